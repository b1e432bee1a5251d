"""Restores images with models that stay loaded, several at a time; one device is shared among them."""

import logging
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import torch
from sqlalchemy.orm import Session

from app.core import logs, operations, repository, telemetry, tracing
from app.core.errors import LeaseLost, ModelDeleted, NotFound, OperationCancelled, TooLarge
from app.core.operations import OperationLease
from app.core.origin import REQUEST_ID
from app.core.owners import look_as
from app.core.storage import StorageDown
from app.core.tables import ModelVersion, Operation
from ml.match import nearest, reference_in
from ml.precision import device
from ml.restore import Restored, RestoreOptions, Restorer, describe_file, load_restorer
from worker.batcher import Batcher
from worker.failures import diagnose
from worker.lease import Heartbeat, WorkerStopping, shutdown
from worker.service import PATIENCE_S, DatabaseDown, Service
from worker.watch import watch_accelerator

log = logging.getLogger(__name__)

IMAGES_AT_ONCE: Final = 12  # Each in a thread of its own, which reads and writes while others have the device.
LARGE_AT_ONCE: Final = 2  # Of these, so that there is always room for small ones, and memory has a bound.
LARGE_PIXELS: Final = 4_000_000
BEAT_S: Final = 0.5  # How soon a cancelled image is noticed.
CPU_BATCH, ACCELERATOR_BATCH = 4, 32


class WarmModels:
    """The models used last, loaded and ready, in at most `budget_bytes` of weights; the one unused for longest goes."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._models: OrderedDict[str, Restorer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, weights_blob: str, service: Service) -> Restorer:
        """The model with these weights, loaded at first use. Whoever uses one that is evicted meanwhile keeps it."""
        with self._lock:
            service.numbers.add(telemetry.WARM_MODELS, "hit" if weights_blob in self._models else "miss")
            if weights_blob not in self._models:
                self._models[weights_blob] = self._load(weights_blob, service)
            self._models.move_to_end(weights_blob)
            while (
                len(self._models) > 1 and sum(model.size_bytes for model in self._models.values()) > self.budget_bytes
            ):
                self._models.popitem(last=False)
                service.numbers.add(telemetry.WARM_MODELS, "eviction")
            return self._models[weights_blob]

    @staticmethod
    def _load(weights_blob: str, service: Service) -> Restorer:
        with tempfile.TemporaryDirectory(prefix="drtl-model-") as folder:
            path = service.fetch(weights_blob, Path(folder) / "model.safetensors")
            try:
                return load_restorer(path)
            except ValueError as error:  # Which must not be taken for a mistake in the image.
                raise RuntimeError(f"the model in blob {weights_blob} cannot be loaded") from error


class Inference:
    """Works through the queued operations, several at a time, whichever message woke it.

    Messages are hints, so a task that finds all places taken leaves its operation to the threads that are at it. The
    worker's other threads thus stay free for housekeeping.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.models = WarmModels(service.settings.warm_model_bytes)
        together = CPU_BATCH if device().type == "cpu" else ACCELERATOR_BATCH
        self.batcher = Batcher(together, service.settings.inference_threads, self._note_batch)
        watch_accelerator(service, "inference")
        self._places = threading.BoundedSemaphore(IMAGES_AT_ONCE)
        self._large_places = threading.BoundedSemaphore(LARGE_AT_ONCE)

    def _note_batch(self, tiles: int) -> None:
        self.service.numbers.observe(telemetry.TILE_BATCH_SIZE, tiles)

    def run_waiting(self) -> None:
        """Restore everything that is queued, unless enough threads are doing so already."""
        torch.set_num_threads(1)  # Of this thread, which prepares tiles; the network has the batcher's.
        while self._places.acquire(blocking=False):
            try:
                while self._run_next():
                    pass
            finally:
                self._places.release()
            # Whoever came between the last claim and the release was turned away, so look once more.
            with self._room() as most_pixels, self.service.read_sessions() as session:
                if shutdown.is_set() or not operations.waiting(session, most_pixels):
                    return

    def _run_next(self) -> bool:
        """Restore the image whose turn it is, if one waits that there is room for."""
        if shutdown.is_set():
            return False
        with self._room() as most_pixels:
            lease_s = self.service.settings.lease_s
            lease = self.service.write(lambda session: operations.claim_next(session, lease_s, most_pixels))
            if lease is None:
                return False
            if lease.pixels > LARGE_PIXELS:
                self._run(lease)
                return True
        self._run(lease)
        return True

    @contextmanager
    def _room(self) -> Iterator[int | None]:
        """How large an image may be now: None for any, while one of the places for large images is held for it."""
        if not self._large_places.acquire(blocking=False):
            yield LARGE_PIXELS
            return
        try:
            yield None
        finally:
            self._large_places.release()

    def _run(self, lease: OperationLease) -> None:
        with (
            logs.about(request_id=lease.origin.get(REQUEST_ID), operation_id=lease.operation_id),
            tracing.span("restore", lease.origin, "CONSUMER", operation_id=lease.operation_id, pixels=lease.pixels),
        ):
            try:
                self._attempt(lease)
            except LeaseLost:  # Where the end of an attempt is written, too.
                self.service.numbers.add(telemetry.LEASES_LOST, "operation")
                log.warning("operation %s: the lease was lost, its result is dropped", lease.operation_id)

    def _attempt(self, lease: OperationLease) -> None:
        progress = Progress()

        def renew() -> None:
            def write(session: Session) -> None:
                operations.renew(session, lease, self.service.settings.lease_s)
                operations.report_progress(session, lease, progress.done)

            self.service.write(write)

        with Heartbeat(renew, min(BEAT_S, self.service.settings.heartbeat_s)) as heartbeat:

            def after_tiles(done: float) -> None:
                progress.done = done
                heartbeat.check()
                if shutdown.is_set():
                    raise WorkerStopping(lease.operation_id)

            try:
                self._restore(lease, after_tiles)
            except OperationCancelled:
                self.service.write(lambda session: operations.confirm_cancelled(session, lease), PATIENCE_S)
                log.info("operation %s: cancelled", lease.operation_id)
            except LeaseLost:
                raise  # What happens to the operation is another worker's to say.
            except WorkerStopping:
                self.service.write(lambda session: operations.release(session, lease), PATIENCE_S)
                return
            except DatabaseDown:
                raise  # Nothing can be written now; the lease runs out and the operation is tried again.
            except StorageDown as error:
                self.service.write(lambda session: operations.release(session, lease), PATIENCE_S)
                log.warning("operation %s: back in the queue, without blobs: %s", lease.operation_id, error)
                raise  # This task ends; the reconciler sends others.
            except Exception as error:
                failure = diagnose(error, bad_value="bad-image")
                self.service.write(
                    lambda session: operations.fail(session, lease, failure.code, failure.message), PATIENCE_S
                )
                log.warning("operation %s: failed, %s: %s", lease.operation_id, failure.code, failure.message)
                if not failure.foreseen:
                    raise
            finally:
                self.service.queue.notify_done(lease.operation_id)

    def _restore(self, lease: OperationLease, after_tiles: Callable[[float], None]) -> None:
        """Blob → files → blob, then the row."""
        with self.service.read_sessions() as session:
            operation = repository.get_operation(session, lease.operation_id)
        with tempfile.TemporaryDirectory(prefix="drtl-image-") as name:
            folder = Path(name)
            source, target, trust = folder / "input", folder / "output", folder / "trust.png"
            assert operation.input_blob is not None
            self.service.fetch(operation.input_blob, source)
            model = self._model(operation, lease, source)
            restorer = self._loaded(model)
            self._judge_size(operation, restorer)
            restored = restorer.restore_file(
                source, target, restore_options(operation), trust=trust, run=self.batcher.run, after_tiles=after_tiles
            )
            blob = self._store(target)
            trust_blob = self._store(trust) if trust.exists() else None
        self._succeed(lease, restored, blob, trust_blob)

    def _judge_size(self, operation: Operation, restorer: Restorer) -> None:
        """Raise TooLarge where the model enlarges too much, which the api cannot know when the worker chooses it."""
        pixels, most = operation.pixels * restorer.scale**2, self.service.settings.max_image_pixels
        if pixels > most:
            raise TooLarge(f"The model enlarges the image to {pixels} pixels; at most {most} are accepted.")

    def _store(self, path: Path) -> str:
        with path.open("rb") as stream:
            return self.service.store(stream)

    def _succeed(self, lease: OperationLease, restored: Restored, blob: str, trust_blob: str | None) -> None:
        self.service.write(
            lambda session: operations.succeed(session, lease, blob, restored.facts(), trust_blob), PATIENCE_S
        )

    def _model(self, operation: Operation, lease: OperationLease, source: Path) -> ModelVersion:
        """The model that was asked for, or of those in production the one whose training images are most like this."""
        if operation.model_name is not None:
            return self._version(operation.owner, operation.model_name, operation.model_version or 0)
        with self.service.read_sessions() as session:
            look_as(session, operation.owner)
            promoted = repository.promoted_models(session)
        if not promoted:
            raise ModelDeleted("No model is promoted any more, so there is none to choose from.")
        chosen = choose(promoted, source)
        self.service.write(lambda session: operations.resolve(session, lease, chosen.name, chosen.version), PATIENCE_S)
        return chosen

    def _version(self, owner: str, name: str, version: int) -> ModelVersion:
        """The owner's version, which existed when the image came in. Raises ModelDeleted."""
        with self.service.read_sessions() as session:
            look_as(session, owner)
            try:
                return repository.get_model_version(session, name, version)
            except NotFound as error:
                raise ModelDeleted(f"{name}@{version} was deleted before the image was restored.") from error

    def _loaded(self, model: ModelVersion) -> Restorer:
        """The model, ready. Raises ModelDeleted where it is gone since its row was read, and its blob with it."""
        try:
            return self.models.get(model.weights_blob, self.service)
        except FileNotFoundError:
            self._version(model.owner, model.name, model.version)
            raise


class Progress:
    """How much of an image is done, 0…1; written by its thread, read by its heartbeat's."""

    done = 0.0


def choose(models: Sequence[ModelVersion], source: Path) -> ModelVersion:
    """The model whose training images are most like the image in `source`.

    Raises ValueError where that cannot be told.
    """
    references = {str(at): reference for at, model in enumerate(models) if (reference := reference_in(model.card))}
    descriptor = describe_file(source)
    if descriptor is None or not references:
        raise ValueError("image: it cannot be told which model is nearest; name one instead of auto")
    return models[int(nearest(references, descriptor)[0][0])]


def restore_options(operation: Operation) -> RestoreOptions:
    """The options of the request, those that the method knows."""
    known = {field.name for field in fields(RestoreOptions)}
    given: dict[str, Any] = {name: value for name, value in operation.options.items() if name in known}
    return RestoreOptions(**given)
