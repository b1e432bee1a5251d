"""The training worker with a method that trains nothing, to measure all that surrounds a training.

    celery -A benchmarks.noop_worker worker --queues training --pool prefork --concurrency 1

Queue, claim, lease, heartbeat, blobs, transactions and processes are the real ones.
"""

from typing import Any

from celery import current_task

from app.api.examples import METRICS
from app.core import queue
from ml.report import Outcome
from worker import app as production

app = production.app


def nothing(*_: Any, **__: Any) -> Outcome:
    """What `run_job` would return, at once."""
    return Outcome(b"no weights", {"scale": 1}, METRICS, "gain", "It was not trained.", {})


def train(_job_id: str) -> None:
    from worker import training  # Loads torch, as in the real one.

    try:
        training.run_next(production.service(), current_task.request.id, nothing)
    finally:
        production.service().numbers.flush()


app.tasks.unregister(queue.TRAIN)
app.task(train, name=queue.TRAIN)
