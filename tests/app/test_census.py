"""The census of jobs, and what the pages compute from it: how many workers there should be."""

import math
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from app.api.metrics import rows
from app.core.census import CensusTaker
from app.core.database import read_sessions
from app.core.tables import ACTIVE, ENDED, PHASES, Dataset, Job

PAGE = Path(__file__).parents[2] / "docs/operations.md"


def exposed(engine: Engine) -> str:
    """What `/metrics` says of the rows."""

    class Rows(Collector):
        def collect(self) -> list[Metric]:
            return list(rows(CensusTaker(read_sessions(engine))))

    registry = CollectorRegistry()
    registry.register(Rows())
    return generate_latest(registry).decode()


def test_every_state_and_every_phase_has_a_number_though_there_is_no_job(engine: Engine) -> None:
    states = {(state, "") for state in (*ACTIVE, *ENDED) if state != "running"}
    running = {("running", phase) for phase in ("starting", *PHASES)}
    assert CensusTaker(read_sessions(engine)).take().jobs == dict.fromkeys(states | running, 0)


def printed(exposition: str) -> str:
    """What the page's command makes of an exposition."""
    (program,) = re.findall(r"\| awk '(.+?)'", PAGE.read_text(), flags=re.DOTALL)
    return subprocess.run(["awk", program], input=exposition, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(("busy", "work_s"), [(0, 0.0), (0, 1.0), (4, 0.0), (4, 1.0), (1, 4800.0), (3, 1e7)])
def test_the_command_of_the_page_prints_the_busy_workers_and_those_that_the_waiting_work_needs(
    engine: Engine, database: sessionmaker[Session], busy: int, work_s: float
) -> None:
    with database.begin() as session:
        session.add(Dataset(id="ds_m", scale=1, pairs=[]))
        session.flush()
        for number in range(busy):
            phase = [None, "transferring", "fine_tuning"][number % 3]
            session.add(Job(name=f"j{number}", dataset_id="ds_m", options={}, state="running", phase=phase))
        if work_s:
            session.add(Job(name="waits", dataset_id="ds_m", options={}, work_s=work_s))
    assert int(printed(exposed(engine))) == max(1, math.ceil(busy + work_s / 2400))


def test_the_command_of_the_page_prints_nothing_where_the_database_does_not_answer() -> None:
    assert not printed('drtl_up{part="database"} 0.0\n')
