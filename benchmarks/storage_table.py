"""Tables of what a storage costs."""

from typing import Any


def storage_table(report: dict[str, Any]) -> str:
    """Small blobs, a large one, and the memory that it took."""
    small, places = f"{report['small_bytes'] // 1000} kB", report["places"]
    lines = [f"| | {' | '.join(places)} |", f"|---|{'---|' * len(places)}"]
    for what, name in (("store", "put_ms"), ("read", "get_ms")):
        cells = [f"{place[name]['p50']:.1f}, {place[name]['p99']:.1f} ms" for place in places.values()]
        lines.append(f"| {what} {small}, p50, p99 | {' | '.join(cells)} |")
    for what, name in (("store", "put_mb_per_s"), ("read", "get_mb_per_s")):
        cells = [f"{place[name]:.0f} MB/s" for place in places.values()]
        lines.append(f"| {what} {report['large_mib']} MiB | {' | '.join(cells)} |")
    cells = [f"{place['memory_growth_mib']:.0f} MiB" for place in places.values()]
    lines.append(f"| memory that storing and reading {report['large_mib']} MiB added | {' | '.join(cells)} |")
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    return "\n".join([*lines, "", f"Recorded on {machine}, commit `{report['commit']}`, seed {report['seed']}."])
