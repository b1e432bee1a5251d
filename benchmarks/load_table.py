"""The tables of `load.json` and `hostile_clients.json`, as docs/reliability.md shows them."""

from typing import Any


def load_table(report: dict[str, Any]) -> str:
    """Requests by number of clients, then jobs through the queue."""
    lines = ["| database | request | clients | requests/s | p50 | p99 |", "|---|---|---|---|---|---|"]
    for database, measured in report["databases"].items():
        for request, by_clients in measured["requests"].items():
            for clients, figures in by_clients.items():
                times = f"{figures['p50_ms']:.1f} ms | {figures['p99_ms']:.1f} ms"
                lines.append(f"| {database} | `{request}` | {clients} | {figures['per_s']:.1f} | {times} |")
    lines += ["", "| database | training workers | jobs/s through the queue |", "|---|---|---|"]
    for database, measured in report["databases"].items():
        for workers, figures in measured["queue"].items():
            lines.append(f"| {database} | {workers} | {figures['per_s']:.2f} |")
    return "\n".join([*lines, "", _recorded(report)])


def hostile_table(report: dict[str, Any]) -> str:
    """Each attack: `/healthz` of others meanwhile, memory, and what the attackers saw."""
    lines = [
        "| attack | connections | `/healthz` p50 | p99 | memory before → most | what the clients saw |",
        "|---|---|---|---|---|---|",
    ]
    for name, fared in report["attacks"].items():
        times = f"{fared['healthz_p50_ms']:.1f} ms | {fared['healthz_p99_ms']:.1f} ms"
        memory = f"{fared['rss_before_mib']:.0f} → {fared['rss_most_mib']:.0f} MiB"
        seen = ", ".join(f"{what} ×{times}" for what, times in fared["seen"].items())
        lines.append(f"| {name} | {fared['connections']} | {times} | {memory} | {seen} |")
    return "\n".join([*lines, "", _recorded(report)])


def _recorded(report: dict[str, Any]) -> str:
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}, client and service on the same"
    busy = f"load average before the run {report['busy_before']}"
    return f"Recorded on {report['date'][:10]} at commit `{report['commit']}`: {machine}; {busy}."
