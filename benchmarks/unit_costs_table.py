"""The recorded unit costs as Markdown: what a job costs, and what so many jobs a day need."""

import math
from collections.abc import Iterator
from typing import Any

DAY_S = 86_400
JOBS_A_DAY = (10, 1_000, 100_000)
LOOKS_A_JOB = 60  # A client that asks every five seconds for five minutes.
BUSIEST = 3.0  # The busiest hour of a day against its mean.


def unit_costs_table(report: dict[str, Any]) -> str:
    """Unit costs, the cost of a claim, several processes at one step, and the plans: what of these was measured."""
    parts = {"job": _costs, "claims": _claims, "crew": _crew, "requests": _plans}
    lines = [line for part, table in parts.items() if part in report for line in (*table(report), "")]
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']} at a load of {report['load_average']}"
    recorded = f"Recorded on {report['date'][:10]} at commit `{report['commit']}`: {machine}, seed {report['seed']}"
    return "\n".join([*lines, f"{recorded}, {report['pairs']} pairs of {report['side']}×{report['side']}."])


def _costs(report: dict[str, Any]) -> list[str]:
    return ["| what | measured |", "|---|---|", *(f"| {what} | {measured} |" for what, measured in _job(report))]


def _claims(report: dict[str, Any]) -> Iterator[str]:
    claims = report["claims"]
    sqlite, postgresql = claims["sqlite"], claims["postgresql"]
    yield f"| claims from {claims['waiting']:,} waiting jobs of {claims['owners']} owners | SQLite | PostgreSQL |"
    yield "|---|---|---|"
    for what, name in (
        ("one alone, p50", "alone_p50_ms"),
        (f"{claims['claimers']} at once, p50", "together_p50_ms"),
        (f"{claims['claimers']} at once, p99", "together_p99_ms"),
        ("of which to see who waits", "who_waits_ms"),
    ):
        yield f"| {what} | {sqlite[name]:.0f} ms | {postgresql[name]:.0f} ms |"
    yield f"| claims a second | {sqlite['per_s']:.0f} | {postgresql['per_s']:.0f} |"
    spread = [f"{on['least_held_by_an_owner']} to {on['most_held_by_an_owner']}" for on in (sqlite, postgresql)]
    yield f"| jobs that an owner then holds | {' | '.join(spread)} |"


def _crew(report: dict[str, Any]) -> Iterator[str]:
    crew = report["crew"]
    many, threads = crew["processes"], crew["threads"]
    yield f"| transfer steps a second, vdsr | one process, {threads} threads | {many} processes, a thread each |"
    yield "|---|---|---|"
    for preset, batch in (("quick", 8), ("paper", 32)):
        rates = [crew[f"{preset}_{size}_steps_per_s"] for size in (1, many)]
        yield f"| batch of {batch} | {' | '.join(f'{rate:.1f}' for rate in rates)} |"


def _plans(report: dict[str, Any]) -> Iterator[str]:
    head = [f"{jobs:,} quick jobs a day" for jobs in JOBS_A_DAY]
    yield f"| from these, for | {' | '.join(head)} |"
    yield "|---" * (len(head) + 1) + "|"
    plans = [dict(_plan(report, jobs)) for jobs in JOBS_A_DAY]
    yield from (f"| {what} | {' | '.join(plan[what] for plan in plans)} |" for what in plans[0])


def _job(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    job, requests = report["job"], report["requests"]
    rows = sum(job["rows"].values())
    yield "training a job, core seconds", f"{job['training_cpu_s']:.0f} s"
    yield "the api's share of it (upload, pair doctor, polling), core seconds", f"{job['api_cpu_s']:.1f} s"
    yield "rows of a job, events among them", f"{rows}, {job['rows'].get('job_events', 0)}"
    yield "database of a job, with indexes", f"{job['database_bytes'] / 1024:.0f} KiB"
    yield "blobs of a job: pairs, weights, preview", f"{job['blob_bytes'] / 2**20:.1f} MiB"
    yield "messages of a job to training workers", f"{job['messages']}"
    for call, cost in requests.items():
        yield f"`{call}`, one client", f"{cost['per_s']:.0f} a second, p50 {cost['p50_ms']:.1f} ms"
        yield f"`{call}`, the api's core", f"{cost['api_cpu_ms']:.1f} ms"


def _plan(report: dict[str, Any], jobs: int) -> Iterator[tuple[str, str]]:
    """What so many jobs a day need, at the mean and in an hour that is `BUSIEST` times as busy."""
    job, requests = report["job"], report["requests"]
    training = jobs * job["training_cpu_s"] / DAY_S
    asked = LOOKS_A_JOB * requests["GET /v1/jobs/{id}"]["api_cpu_ms"] / 1000 + job["api_cpu_s"]
    api = jobs * asked / DAY_S
    yield "cores that train, mean", _cores(training)
    yield (
        f"cores that train so that the busiest hour ({BUSIEST:g} times the mean) is done in it",
        _cores(BUSIEST * training),
    )
    yield f"cores of the api, each job asked after {LOOKS_A_JOB} times, busiest hour", _cores(BUSIEST * api)
    yield "claims a second, busiest hour", f"{BUSIEST * jobs / DAY_S:.2g}"
    yield "rows a day", f"{jobs * sum(job['rows'].values()):,}"
    yield "database a day", _bytes(jobs * job["database_bytes"])
    yield "blobs a day", _bytes(jobs * job["blob_bytes"])
    yield "messages a second to training workers, busiest hour", f"{BUSIEST * jobs * job['messages'] / DAY_S:.2g}"


def _cores(cores: float) -> str:
    return f"{cores:.2f}" if cores < 1 else f"{math.ceil(cores)}"


def _bytes(number: float) -> str:
    power = min(3, int(math.log(max(number, 1024), 1024)))
    return f"{number / 1024**power:.1f} {('B', 'KiB', 'MiB', 'GiB')[power]}"
