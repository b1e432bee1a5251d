"""How long it takes after a fault until the api answers again, and until the job that was hit takes its next step."""

import itertools
import statistics
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

import httpx

from benchmarks.chaos.audit import Tenure
from benchmarks.chaos.schedule import Kind

HITS_A_JOB: Final[tuple[Kind, ...]] = ("training child", "training parent", "frozen training")
PROBE_EVERY_S: Final = 0.05


@dataclass(frozen=True)
class Struck:
    """A fault that was done: when, and to which process."""

    at: float  # seconds since the epoch
    kind: Kind
    pid: int | None  # None where none was there, or none is meant

    @property
    def hit(self) -> bool:
        """Whether it could be done."""
        return self.pid is not None or self.kind == "FLUSHALL"


@dataclass(frozen=True)
class Probe:
    """One look at `/readyz`, which asks database, broker and storage: when, and whether all answered."""

    began: float
    ended: float
    ready: bool


class Prober:
    """Looks again and again from a thread of its own, as a load balancer would."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[Probe] = []
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober")
        self._thread.start()

    def _run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=10.0) as http:
            while not self._leave.wait(PROBE_EVERY_S):
                began = time.time()
                try:
                    ready = http.get("/readyz").status_code == 200
                except httpx.TransportError:
                    ready = False
                self.seen.append(Probe(began, time.time(), ready))

    def stop(self) -> None:
        self._leave.set()
        self._thread.join()


def until_ready(struck: list[Struck], seen: list[Probe]) -> dict[str, list[float]]:
    """Seconds from each fault to the end of the first look that began after it and found all well."""
    times: dict[str, list[float]] = defaultdict(list)
    for fault in struck:
        after = next((probe for probe in seen if probe.began >= fault.at and probe.ready), None)
        if after is not None:
            times[fault.kind].append(after.ended - fault.at)
    return times


def until_the_next_step(struck: list[Struck], leases: dict[str, list[Tenure]]) -> dict[str, list[float]]:
    """Seconds from each fault that took a job's worker to the first step of the job's next attempt."""
    faults = [fault for fault in struck if fault.kind in HITS_A_JOB and fault.pid is not None]
    times: dict[str, list[float]] = defaultdict(list)
    for tenures in leases.values():
        for tenure, following in itertools.pairwise(tenures):
            hit = [fault for fault in faults if tenure.claimed_at <= fault.at <= following.claimed_at]
            # Of several, the last that may have been it: the worker wrote until then.
            hit = [fault for fault in hit if fault.at >= tenure.last_write_at - 1.0] or hit
            if hit and tenure.taken_back and following.first_step_at is not None:
                times[hit[0].kind].append(following.first_step_at - hit[0].at)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    return {
        kind: {
            "count": len(values),
            "p50_s": round(statistics.median(values), 2),
            "max_s": round(max(values), 2),
        }
        for kind, values in sorted(times.items())
        if values
    }
