"""The main job's results as Markdown tables."""

from typing import Any


def main_job_table(report: dict[str, Any]) -> str:
    """Quality on unseen images, then times and memory."""
    lines = [
        "| target (unseen images) | input | fine-tuned from nothing | model of the job | over input | over baseline |",
        "|---|---|---|---|---|---|",
    ]
    for name, target in report["targets"].items():
        cells = [f"{scores['psnr']:.2f} dB, {scores['ssim']:.3f}" for scores in _scores(target)]
        over_input, over_baseline = target["gain_over_input_db"], target["gain_over_baseline_db"]
        row = [f"{name} ({target['test_pairs']})", *cells, f"{over_input:+.2f} dB", f"{over_baseline:+.2f} dB"]
        lines.append(f"| {' | '.join(row)} |")
    lines += [
        "",
        "| target | chosen | POST to 202 | POST to graph | POST to model | baseline: POST to model |",
        "|---|---|---|---|---|---|",
    ]
    for name, target in report["targets"].items():
        auto = target["auto"]
        times = [auto["post_to_202_s"], auto["post_to_graph_s"], auto["post_to_succeeded_s"]]
        times.append(target["baseline"]["post_to_succeeded_s"])
        row = [name, auto["held_out"]["chosen"], *(f"{seconds:.1f} s" for seconds in times)]
        lines.append(f"| {' | '.join(row)} |")
    latency = report["super_resolve_512"]
    memory = ", ".join(f"{process} {mib:.0f}" for process, mib in report["idle_rss_mib"].items())
    lines += [
        "",
        "| what | measured |",
        "|---|---|",
        f"| super-resolve a 512×512 PNG over HTTP, model warm, median | {latency['service_p50_ms']:.0f} ms |",
        f"| the bare network on as many pixels and threads, median | {latency['bare_network_p50_ms']:.0f} ms |",
        f"| `import app.main`, median of five | {report['import_app_main_s']:.2f} s |",
        f"| idle resident memory, MiB | {memory} |",
        "",
        _recorded(report),
    ]
    return "\n".join(lines)


def _recorded(report: dict[str, Any]) -> str:
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    chosen = f"seed {report['seed']}, {report['shots']} pairs, preset `{report['preset']}`"
    return f"Recorded on {report['date'][:10]} at commit `{report['commit']}`: {machine}, {chosen}."


def _scores(target: dict[str, Any]) -> list[dict[str, float]]:
    return [target["input"], target["baseline"]["test"], target["auto"]["test"]]
