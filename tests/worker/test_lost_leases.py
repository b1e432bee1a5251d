"""Leases that another worker has taken over just where the end of an attempt is to be written."""

import pytest
from sqlalchemy import update

from app.core import telemetry
from app.core.tables import Job, Operation
from ml.report import Outcome
from tests.worker.conftest import MakeJob
from tests.worker.test_training import SHORT, read, service
from worker import training
from worker.inference import Inference
from worker.service import Service

__all__ = ["service"]  # A fixture of another file.


def taken_over(service: Service, table: type[Job | Operation]) -> None:
    """As if the reconciler had given the work to another worker."""
    with service.sessions.begin() as session:
        session.execute(update(table).values(lease_token="another's", attempt=2))


def test_a_lease_that_is_lost_before_a_failed_job_can_say_so_is_counted_and_nothing_else(
    service: Service, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, counted = make_job(**SHORT), list[tuple[object, str]]()
    monkeypatch.setattr(service.numbers, "add", lambda total, label="", amount=1.0: counted.append((total, label)))

    def method(*args: object, **options: object) -> Outcome:
        taken_over(service, Job)
        raise ValueError("pairs: bad")

    training.run_next(service, "task", method)
    assert (read(service, job_id).state, read(service, job_id).error_code) == ("running", None)
    assert counted == [(telemetry.LEASES_LOST, "job")]


def test_a_lease_that_is_lost_before_a_failed_image_can_say_so_is_counted_and_the_next_is_restored(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service.sessions.begin() as session:
        session.add(Operation(id="op_00", model_name="m", model_version=1, input_blob="0" * 64, options={}))
    counted = list[tuple[object, str]]()
    monkeypatch.setattr(service.numbers, "add", lambda total, label="", amount=1.0: counted.append((total, label)))

    def restore(*args: object) -> None:
        taken_over(service, Operation)
        raise ValueError("image: bad")

    monkeypatch.setattr(Inference, "_restore", restore)
    Inference(service).run_waiting()
    with service.sessions() as session:
        operation = session.get_one(Operation, "op_00")
    assert (operation.state, operation.error_code) == ("running", None)
    assert (telemetry.LEASES_LOST, "operation") in counted
