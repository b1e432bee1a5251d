"""One training job: claim it, read its pairs, run the method, register the model."""

import io
import logging
import tempfile
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from app.core import jobs, logs, repository, telemetry, tracing
from app.core.errors import FileLost, JobCancelled, LeaseLost
from app.core.jobs import Lease
from app.core.origin import REQUEST_ID
from app.core.storage import StorageDown
from app.core.tables import Dataset, Job, Pair
from ml.crew import Crew, HelperLost, crew_of
from ml.foreign_weights import UnusableWeights
from ml.job import run_job
from ml.lpips import Lpips, load_lpips
from ml.options import TrainingOptions
from ml.pairs import PairFile
from ml.report import Outcome
from worker.failures import diagnose
from worker.follower import JobFollower, finite
from worker.lease import Heartbeat, WorkerStopping
from worker.service import PATIENCE_S, DatabaseDown, Service
from worker.watch import watch_accelerator

log = logging.getLogger(__name__)


# What becomes of the pairs; another than `run_job` is for measuring everything else.
Method = Callable[..., Outcome]


def run_next(service: Service, task_id: str, method: Method = run_job) -> None:
    """Train the job whose turn it is, if any waits. Raises what was not foreseen, after failing the job."""
    lease = service.write(lambda session: jobs.claim_next(session, task_id, service.settings.lease_s))
    if lease is None:
        return
    about: dict[str, Any] = {"job_id": lease.job_id, "attempt": lease.attempt}
    with (
        logs.about(request_id=lease.origin.get(REQUEST_ID), **about),
        tracing.span("train", lease.origin, "CONSUMER", **about),
    ):
        run(service, lease, method)


def run(service: Service, lease: Lease, method: Method = run_job) -> None:
    """One attempt, of which nothing is left where its lease is lost. Raises what was not foreseen."""
    try:
        attempt(service, lease, method)
    except LeaseLost:  # Where the end of an attempt is written, too. The checkpoint is another attempt's now.
        service.numbers.add(telemetry.LEASES_LOST, "job")
        log.warning("job %s: the lease was lost; what this attempt computed is dropped", lease.job_id)


def attempt(service: Service, lease: Lease, method: Method) -> None:
    """The work, and what becomes of the job. Raises LeaseLost; what was not foreseen, after failing the job."""
    log.info("job %s: attempt %d begins", lease.job_id, lease.attempt)
    watch_accelerator(service, "training")

    passing = service.passing()

    def renew() -> None:
        passing.write(lambda session: jobs.renew(session, lease, service.settings.lease_s))

    def look() -> None:
        with service.read_sessions() as session:
            jobs.require_running(session, lease)

    with Heartbeat(renew, service.settings.heartbeat_s, look) as heartbeat:
        follower = JobFollower(service, lease, heartbeat)
        try:
            with crew_of(service.settings.training_devices, service.settings.training_threads) as crew:
                train(service, lease, follower, crew, method)
        except JobCancelled:
            service.write(lambda session: jobs.confirm_cancelled(session, lease), PATIENCE_S)
            log.info("job %s: cancelled", lease.job_id)
        except LeaseLost:
            raise  # What happens to the job is another worker's to say.
        except WorkerStopping:
            service.write(lambda session: jobs.release(session, lease), PATIENCE_S)
            log.info("job %s: back in the queue, this worker stops", lease.job_id)
            return
        except HelperLost as error:
            service.write(lambda session: jobs.expire(session, lease), PATIENCE_S)
            log.warning("job %s: this attempt ends, %s", lease.job_id, error)
            return
        except DatabaseDown:
            raise  # Nothing can be written now. The lease runs out, and another attempt resumes.
        except StorageDown as error:
            service.write(lambda session: jobs.release(session, lease, "the storage does not answer"), PATIENCE_S)
            log.warning("job %s: back in the queue, without its blobs nothing can be done: %s", lease.job_id, error)
            return
        except Exception as error:
            failure = diagnose(error, bad_value="bad-input")
            if not service.write(lambda session: jobs.fail(session, lease, failure.code, failure.message), PATIENCE_S):
                raise LeaseLost(lease.job_id) from error
            log.warning("job %s: failed, %s: %s", lease.job_id, failure.code, failure.message)
            follower.drop_checkpoint()
            if not failure.foreseen:
                raise  # Celery logs the traceback, right below the reference that the user was given.
            return
        finally:
            follower.steps.close()
        follower.drop_checkpoint()


def train(service: Service, lease: Lease, follower: JobFollower, crew: Crew, method: Method) -> None:
    """The work itself: blobs → `ml` → blob and rows."""
    with tempfile.TemporaryDirectory(prefix="drtl-job-") as folder:
        scratch = Path(folder)
        with service.read_sessions() as session:
            job = repository.get_job(session, lease.job_id)
            dataset = repository.get_dataset(session, job.dataset_id)
        follower.begin(scratch, job)
        prepared = partial(
            method,
            read_pairs(service, dataset),
            training_options(job),
            follower,
            prior_path=service.settings.prior_path,
            clean_dir=service.settings.clean_dir,
            crew=crew,
            lpips=perceptual_metric(service.settings.lpips_weights),
        )

        def trained(resume: Path | None) -> Outcome:
            follower.reached = 0.0 if resume is None else job.progress
            return prepared(resume=resume)

        resume = fetch_checkpoint(service, job.checkpoint_blob, scratch / "resume")
        try:
            outcome = trained(resume)
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            if resume is None or follower.has_trained():
                raise
            # A newer version of the method may not understand what an older one saved, or its networks may have other
            # shapes; the pairs are still good. What is wrong with anything else shows again without the checkpoint.
            log.warning("job %s: the checkpoint does not fit, starting anew: %s", lease.job_id, error)
            outcome = trained(None)
    follower.progress("registering", 0.99)
    register(service, lease, dataset, outcome)


def read_pairs(service: Service, dataset: Dataset) -> list[PairFile]:
    """The uploaded files, unchanged. Raises FileLost, naming pair and side."""

    def read(pair: Pair, side: str, blob: str) -> bytes:
        try:
            return service.read(blob)
        except FileNotFoundError as error:
            lost = f"The {side} image of the pair {pair.name!r} is lost. Upload the pairs again."
            raise FileLost(lost) from error

    return [
        PairFile(pair.name, read(pair, "clean", pair.clean_blob), read(pair, "distorted", pair.distorted_blob))
        for pair in dataset.pairs
    ]


def training_options(job: Job) -> TrainingOptions:
    """The method's part of the job's options; the rest (the model's name) is the registry's."""
    known = [field.name for field in fields(TrainingOptions) if field.name in job.options]
    return TrainingOptions(**{name: job.options[name] for name in known})


def perceptual_metric(weights: Path | None) -> Lpips | None:
    """LPIPS, if the operator has installed its weights; weights that cannot be used cost a job one metric, no more."""
    if weights is None:
        return None
    try:
        return load_lpips(weights)
    except UnusableWeights as error:
        log.warning("jobs are measured without LPIPS: %s", error)
        return None


def fetch_checkpoint(service: Service, blob: str | None, path: Path) -> Path | None:
    """The checkpoint as a file; None where there is none or it is lost, and the job starts anew."""
    if blob is None:
        return None
    try:
        return service.fetch(blob, path)
    except StorageDown:
        raise  # It may well be there.
    except OSError as error:
        log.warning("the checkpoint cannot be read, starting anew: %s", error)
        return None


def register(service: Service, lease: Lease, dataset: Dataset, outcome: Outcome) -> None:
    """Blob first, then job and model in one transaction. The card gains what only the registry knows: the dataset."""
    hashes = [{"clean": pair.clean_blob, "distorted": pair.distorted_blob} for pair in dataset.pairs]
    card = outcome.card | {"dataset": {"id": dataset.id, "pairs": len(dataset.pairs), "sha256": hashes}}
    weights_blob = service.store(io.BytesIO(outcome.weights))
    model = service.write(
        lambda session: jobs.succeed(
            session,
            lease,
            metrics=finite(outcome.metrics),
            verdict=outcome.verdict,
            explanation=outcome.explanation,
            weights_blob=weights_blob,
            card=finite(card),
        ),
        PATIENCE_S,
    )
    log.info("job %s: succeeded, %s@%d, %s", lease.job_id, model.name, model.version, outcome.verdict)
