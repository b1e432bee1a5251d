"""The recorded figures of super-resolution as Markdown."""

from collections.abc import Iterator
from typing import Any


def restoring_table(report: dict[str, Any]) -> str:
    """Overhead, throughput, many clients, and the very large image: what of these was measured."""
    lines = _latencies(report) if "256x256" in report else []
    lines += ["| what | measured |", "|---|---|"]
    lines += [f"| {what} | {measured} |" for what, measured in (*_rows(report), *_large(report))]
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    recorded = f"Recorded on {report['date'][:10]} at commit `{report['commit']}`: {machine}"
    return "\n".join([*lines, "", f"{recorded}, {report['threads']} threads, {report['backbone']}, float32."])


def _latencies(report: dict[str, Any]) -> list[str]:
    lines = [
        "| one client | over HTTP, p50 | bare network, p50 | difference, p50 | queue, decode, network, encode |",
        "|---|---|---|---|---|",
    ]
    for key, name in (("256x256", "256×256"), ("1_megapixel", "1024×1024")):
        run = report[key]
        stages = run["stages_p50_ms"]
        share = ", ".join(f"{stages[stage]:.1f}" for stage in ("queue", "decode", "restore", "encode"))
        over = f"{run['overhead_p50_ms']:+.1f} ms ({run['overhead_share']:+.1%})"
        times = f"{run['service_p50_ms']:.0f} ms | {run['bare_network_p50_ms']:.0f} ms"
        lines.append(f"| {name} | {times} | {over} | {share} ms |")
    return [*lines, ""]


def _rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "throughput" not in report:
        return
    clients, speed, longer = report["clients"], report["throughput"], report["trust_and_ensemble"]
    many, side = f"{clients['clients']} clients at once, 256×256", f"{speed['side']}×{speed['side']} in memory"
    yield f"{many}: p99 over the ideal queueing time", f"{clients['p99_over_ideal']:.2f}"
    yield f"{many}: images a second over those of a bare loop", f"{clients['throughput_over_loop']:.2f}"
    yield f"{side}: tiles over the whole at once, in speed", f"{speed['tiled_over_untiled']:.2f}"
    yield f"{side}: tiles over a plain loop (256, padding 10)", f"{speed['tiled_over_plain_loop']:.2f}"
    yield f"{side}: largest error of the tiles", f"{speed['tiled_largest_error']:.1e}"
    yield f"{side}: largest error of the plain loop", f"{speed['plain_loop_largest_error']:.1e}"
    yield "time of an ensemble over a plain request", f"{longer['ensemble']:.1f}"
    yield "time of an explained image over a plain request", f"{longer['explain']:.1f}"


def _large(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "large" not in report:
        return
    large = report["large"]
    peak = large["peak_rss_mib"]
    yield f"PNG of {large['side']}×{large['side']} in and out", f"{large['seconds']:.0f} s"
    yield "peak resident memory of the worker meanwhile", f"{peak['worker-inference']:.0f} MiB"
    yield "peak resident memory of the api meanwhile", f"{peak['api']:.0f} MiB"
    yield "a 256×256 image alone, p50", f"{large['small_image_alone_p50_ms']:.0f} ms"
    yield "a 256×256 image meanwhile, p50", f"{large['small_image_meanwhile_p50_ms']:.0f} ms"
    yield "a 256×256 image meanwhile, longest", f"{large['small_image_meanwhile_max_ms']:.0f} ms"
