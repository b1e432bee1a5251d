"""Restores images with models that stay loaded, one image at a time."""

import io
import logging
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

from app.core import operations, repository
from app.core.errors import LeaseLost, OperationCancelled
from app.core.operations import OperationLease
from ml.restore import Restored, Restorer, load_restorer
from worker.failures import diagnose
from worker.lease import Heartbeat, WorkerStopping, shutdown
from worker.service import PATIENCE_S, DatabaseDown, Service

log = logging.getLogger(__name__)


class WarmModels:
    """The models used last, loaded and ready; the one unused for longest makes room."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._models: OrderedDict[str, Restorer] = OrderedDict()

    def get(self, weights_blob: str, service: Service) -> Restorer:
        """The model with these weights, loaded at first use."""
        if weights_blob not in self._models:
            with tempfile.TemporaryDirectory(prefix="drtl-model-") as folder:
                path = service.fetch(weights_blob, Path(folder) / "model.safetensors")
                try:
                    model = load_restorer(path)
                except ValueError as error:  # Which must not be taken for a mistake in the image.
                    raise RuntimeError(f"the model in blob {weights_blob} cannot be loaded") from error
            while len(self._models) >= self.capacity:
                self._models.popitem(last=False)
            self._models[weights_blob] = model
        self._models.move_to_end(weights_blob)
        return self._models[weights_blob]


class Inference:
    """Works through the queued operations in one thread at a time, whichever message woke it.

    Messages are hints, so a task that finds the work going on leaves its operation to the thread that is at it. The
    worker's other thread thus stays free for housekeeping, and two images never fight for the same cores.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.models = WarmModels(service.settings.warm_models)
        self._busy = threading.Lock()
        torch.set_num_threads(service.settings.inference_threads)

    def run_waiting(self) -> None:
        """Restore everything that is queued, unless another thread is doing so already."""
        while self._busy.acquire(blocking=False):
            try:
                while (lease := self._claim()) is not None:
                    self._run(lease)
            finally:
                self._busy.release()
            # Whoever came between the last claim and the release was turned away, so look once more.
            with self.service.read_sessions() as session:
                if shutdown.is_set() or not operations.waiting(session):
                    return

    def _claim(self) -> OperationLease | None:
        if shutdown.is_set():
            return None
        return self.service.write(lambda session: operations.claim_next(session, self.service.settings.lease_s))

    def _run(self, lease: OperationLease) -> None:
        def renew() -> None:
            self.service.write(lambda session: operations.renew(session, lease, self.service.settings.lease_s))

        with Heartbeat(renew, self.service.settings.heartbeat_s) as heartbeat:

            def stop() -> None:
                heartbeat.check()
                if shutdown.is_set():
                    raise WorkerStopping(lease.operation_id)

            try:
                restored = self._restore(lease, stop)
                blob = self.service.storage.put(io.BytesIO(restored.data))
                result = {
                    "media_type": restored.media_type,
                    "width": restored.width,
                    "height": restored.height,
                    "tile": restored.tile,
                    "tiles": restored.tiles,
                    "precision": restored.precision,
                    "seconds": {"restore": restored.seconds},
                }
                self.service.write(lambda session: operations.succeed(session, lease, blob, result), PATIENCE_S)
            except LeaseLost:
                log.warning("operation %s: the lease was lost, its result is dropped", lease.operation_id)
                return
            except OperationCancelled:
                self.service.write(lambda session: operations.confirm_cancelled(session, lease), PATIENCE_S)
                return
            except WorkerStopping:
                self.service.write(lambda session: operations.release(session, lease), PATIENCE_S)
                return
            except DatabaseDown:
                raise  # Nothing can be written now; the lease runs out and the operation is tried again.
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

    def _restore(self, lease: OperationLease, stop: Callable[[], None]) -> Restored:
        with self.service.read_sessions() as session:
            operation = repository.get_operation(session, lease.operation_id)
            assert operation.model_name is not None
            assert operation.model_version is not None
            assert operation.input_blob is not None
            model = repository.get_model_version(session, operation.model_name, operation.model_version)
        with self.service.storage.open(operation.input_blob) as file:
            image = file.read()
        restorer = self.models.get(model.weights_blob, self.service)
        return restorer.restore(image, output=operation.options.get("output", "png"), after_tile=stop)
