"""The recorded speeds of training as Markdown."""

from collections.abc import Iterator
from typing import Any


def training_speed_table(report: dict[str, Any]) -> str:
    """How fast each network learns, against the device's peak and against the drawing of its samples."""
    drawing, networks = report["drawing"], report["networks"]
    drawn = f"one by one {drawing['alone_per_s']:.0f}, a batch as on this device {drawing['as_here_per_s']:.0f}"
    said = (
        f"Samples drawn a second, and nothing else done: {drawn}, as on an accelerator {drawing['together_per_s']:.0f}."
        f" Computed in {report['arithmetic']}."
    )
    compiled = any("compile_s" in of for of in networks.values())
    lines = [*(_compiled(networks) if compiled else _speeds(networks)), "", said]
    on = f"{report['device']}, {report['threads']} threads of {report['machine']['cores']} cores"
    recorded = f"Recorded on {report['date'][:10]} at commit `{report['commit']}`: {on}"
    return "\n".join([*lines, "", f"{recorded}, batches of {report['batch']}, unshuffle {report['unshuffle']}."])


def _speeds(networks: dict[str, Any]) -> Iterator[str]:
    yield "| samples a second | whole steps | with a batch at hand | of a sample | peak meanwhile | share of it |"
    yield "|---|---|---|---|---|---|"
    for name, of in networks.items():
        speeds = f"{of['whole_per_s']:.1f} | {of['alone_per_s']:.1f}"
        peak = f"{of['peak_tflops_per_s']:.2f} TFLOP/s | {of['share_of_peak']:.0%}"
        yield f"| {name} | {speeds} | {of['gflops_per_sample']:.1f} GFLOP | {peak} |"


def _compiled(networks: dict[str, Any]) -> Iterator[str]:
    yield "| `torch.compile` | first step | steps after it, in speed | pays after |"
    yield "|---|---|---|---|"
    for name, of in networks.items():
        saved = (1 - 1 / of["compiled_over_plain"]) / of["alone_per_s"]  # seconds a sample
        after = f"{of['compile_s'] / saved:,.0f} samples" if saved > 0 else "never"
        yield f"| {name} | {of['compile_s']:.0f} s | {of['compiled_over_plain']:.2f} | {after} |"
