"""Prints a file of benchmarks/results/ as the tables of docs/results.md; a test keeps the page equal to them."""

import json
import sys
from pathlib import Path
from typing import Any

from doctor_table import doctor_table
from relation_table import leave_one_out_table, unrelated_table
from restoring_table import restoring_table

RECORDED = Path(__file__).with_name("results") / "main_job.json"


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    match report.get("benchmark"):
        case "match":
            return match_table(report)
        case "trust":
            return trust_table(report)
        case "unrelated":
            return unrelated_table(report)
        case "leave-one-out":
            return leave_one_out_table(report)
        case _ if "throughput" in report or "large" in report:
            return restoring_table(report)
        case _ if "parts" in report:
            return doctor_table(report)
        case _:
            return main_job_table(report)


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


def match_table(report: dict[str, Any]) -> str:
    """Own images told from foreign ones, the nearest model, the words, the two ways side by side, cost."""
    lines = ["| model of | own against other devices | against photographs | against its own, altered | against all |"]
    lines += ["|---|---|---|---|---|"]
    for name, areas in report["descriptor"]["auc"].items():
        cells = [f"{areas[kind]:.3f}" if kind in areas else "–" for kind in ("other_devices", "photographs", "altered")]
        lines.append(f"| {name} | {' | '.join(cells)} | {areas['all']:.3f} |")
    lines += ["", "| with | mean AUC | auto of 3 real | auto of all | own: close / near / far | altered | foreign |"]
    lines += ["|---|---|---|---|---|---|---|"]
    by_condition = {f"{report['shots']} pairs, whole images": report["descriptor"] | {"words": report["words"]}}
    by_condition |= {f"{pairs} pairs": judged for pairs, judged in report["few_pairs"].items()}
    by_condition |= {f"images of {side}×{side}": judged for side, judged in report["small_images"].items()}
    for condition, judged in by_condition.items():
        figures = [f"{judged['mean_auc']:.3f}", *(f"{judged[f'auto_accuracy_{of}']:.0%}" for of in ("real", "all"))]
        shares = [
            " / ".join(f"{share:.0%}" for share in judged["words"][kind].values())
            for kind in ("own", "altered", "foreign")
        ]
        lines.append(f"| {' | '.join([condition, *figures, *shares])} |")
    both, cost = report["head_to_head"], report["cost"]
    lines += [
        "",
        f"| way, over {len(both['models'])} models | mean AUC | auto of 3 real | auto of all | CPU time |",
        "|---|---|---|---|---|",
    ]
    spent = {
        "descriptor": f"{cost['512x512_cpu_ms']:.0f} ms an image",
        "drn": f"{both['drn_cpu_ms_per_image_and_model']:.0f} ms an image and model",
    }
    for way, words in (("descriptor", "descriptor of the image"), ("drn", "DRN node against the model's own result")):
        judged = both[way]
        figures = [f"{judged['mean_auc']:.3f}", *(f"{judged[f'auto_accuracy_{of}']:.0%}" for of in ("real", "all"))]
        lines.append(f"| {' | '.join([words, *figures, spent[way]])} |")
    lines += ["", "| model of | close: images, gain, share that lose | near | far |", "|---|---|---|---|"]
    for name, by_word in report["gain_db_by_word"].items():
        cells = [
            f"{said['images']}, {said['mean_gain_db']:+.2f} dB, {said['share_that_lose']:.0%}" if said else "–"
            for said in (by_word.get(word) for word in ("close", "near", "far"))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| size of the image | CPU time of sampling and describing |", "|---|---|"]
    lines += [f"| {what.removesuffix('_cpu_ms').replace('x', '×')} | {ms:.1f} ms |" for what, ms in cost.items()]
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    chosen = f"{report['images_per_kind']} images of every kind, networks of {report['finetune_steps']} steps"
    return "\n".join([*lines, "", f"{_dated(report)}: {machine}, seed {report['seed']}, {chosen}."])


def trust_table(report: dict[str, Any]) -> str:
    """Gain of the self-ensemble, and rank correlation of its spread with the error."""
    head = ["target", "input", "one result", "mean of eight", "ρ of pixels", "ρ of patches", "ρ of texture"]
    head += ["spread: median, 99 %", "CPU time"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, row in report["targets"].items():
        quality = [f"{row[f'{of}_psnr']:.2f} dB" for of in ("input", "single", "ensemble")]
        ranks = [f"{row[f'spearman_{of}']:.2f}" for of in ("pixels", "patches", "patches_of_texture")]
        spread = f"{row['median_spread_levels']:.2f}, {row['p99_spread_levels']:.2f} levels"
        lines.append(f"| {' | '.join([name, *quality, *ranks, spread])} | {row['cost_ratio']:.1f}× |")
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    chosen = f"{report['images']} unseen images a target, the middle {report['side']}×{report['side']} of each"
    steps = f"networks of {report['finetune_steps']} steps"
    return "\n".join([*lines, "", f"{_dated(report)}: {machine}, seed {report['seed']}, {chosen}, {steps}."])


def _dated(report: dict[str, Any]) -> str:
    return f"Recorded on {report['date'][:10]} at commit `{report['commit']}`"


def _recorded(report: dict[str, Any]) -> str:
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    chosen = f"seed {report['seed']}, {report['shots']} pairs, preset `{report['preset']}`"
    return f"{_dated(report)}: {machine}, {chosen}."


def _scores(target: dict[str, Any]) -> list[dict[str, float]]:
    return [target["input"], target["baseline"]["test"], target["auto"]["test"]]


if __name__ == "__main__":
    print(table(json.loads(Path(*sys.argv[1:2] or [RECORDED]).read_text())))
