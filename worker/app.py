"""The workers' Celery application: its tasks, its clock, and what a worker does when it starts, loses a child or stops.

`celery -A worker.app worker --queues training|inference,housekeeping` starts a worker, `celery -A worker.app beat` the
clock. Modules that need torch are imported where they are used, so that the clock stays small.
"""

import logging
import os
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from billiard.exceptions import WorkerLostError
from celery import bootsteps, current_task, signals

from app.core import jobs, logs, queue, tracing
from app.core.settings import settings
from worker import devices, onnx_export, reconciler
from worker.lease import shutdown
from worker.service import Service

if TYPE_CHECKING:
    from worker.inference import Inference
    from worker.webhooks import Deliverer

log = logging.getLogger(__name__)


def train(_job_id: str) -> None:
    """Train the job that is next by the owners' shares: which one the message meant does not matter."""
    from worker import training  # Loads torch.

    if not service().queue.is_first_delivery(current_task.request.id):
        return
    slots = training_slots()
    slot = devices.take(slots, shutdown.is_set) if slots else nullcontext()
    if slot is None:
        return  # This worker stops; the job waits for another.
    with slot:
        try:
            training.run_next(service(), current_task.request.id)
        finally:
            service().numbers.flush()  # This child ends now.
            tracing.flush()


@cache
def training_slots() -> list[devices.Slot]:
    """The accelerators of this machine. Asked first in the parent, whose children inherit the answer."""
    return devices.of_this_machine(settings())


def super_resolve(_operation_id: str) -> None:
    """Restore the images that wait."""
    inference().run_waiting()


def export_onnx(reference: str) -> None:
    """Make the ONNX file of `name@version`."""
    onnx_export.export(service(), reference)


def deliver_webhooks(_whose: str) -> None:
    """Send webhooks' messages that are due."""
    deliverer().run()


def reconcile() -> None:
    """Mend what faults have bent."""
    reconciler.reconcile(service())


def sweep() -> None:
    """Remove what has outlived its retention."""
    reconciler.sweep(service())


@cache
def service() -> Service:
    """This process's connections. The parent of forked children never opens any."""
    tracing.configure("drtl-worker")
    return Service.open(settings())


@cache
def inference() -> "Inference":
    """This process's warm models."""
    from worker.inference import Inference  # Loads torch.

    return Inference(service().passing())  # What is lost with the power is restored again.


@cache
def deliverer() -> "Deliverer":
    """This process's sender of webhooks."""
    from worker.webhooks import Deliverer  # Loads httpx.

    return Deliverer(service())


app = queue.celery_app(settings().broker_url)
TASKS = {
    queue.TRAIN: train,
    queue.SUPER_RESOLVE: super_resolve,
    queue.EXPORT_ONNX: export_onnx,
    queue.DELIVER_WEBHOOKS: deliver_webhooks,
    queue.RECONCILE: reconcile,
    queue.SWEEP: sweep,
}
CLOCK = {queue.RECONCILE: settings().reconcile_every_s, queue.SWEEP: settings().sweep_every_s}
for name, task in TASKS.items():
    app.task(task, name=name)
app.conf.update(
    beat_schedule={name: {"task": name, "schedule": every_s} for name, every_s in CLOCK.items()},
    beat_scheduler="worker.clock:SteadyScheduler",
    worker_lost_wait=0.2,  # A killed child's result cannot be on its way: there are no results.
    worker_hijack_root_logger=True,
)


class ReplaceChildrenSoon(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types.
    """Look for ended children four times a second, so that the next job need not wait for a new one.

    Celery is woken when a child closes its files, which is a moment before the kernel can say that it has ended; where
    it looks in that moment it finds nothing, and looks again only five seconds later.
    """

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def start(self, worker: Any) -> None:
        if queue.TRAINING_QUEUE in worker.app.amqp.queues.consume_from:
            worker.timer.call_repeatedly(0.25, worker.pool.maintain_pool)


app.steps["worker"].add(ReplaceChildrenSoon)


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def write_logs(**_: Any) -> None:
    """Have what is said before Celery sets up its own handlers in the same format."""
    logs.configure(settings().log_format)


@signals.worker_init.connect  # type: ignore[untyped-decorator]  # Celery ships no types.
def prepare(sender: Any, **_: Any) -> None:
    """Set the thread budget, then load the method before the first task, so that no task waits for it."""
    consumed = set(sender.app.amqp.queues.consume_from)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # Spinning threads slow every other process on the machine.
    if settings().blob_url:
        import app.core.object_storage  # noqa: F401 - forked children find it loaded
    if queue.TRAINING_QUEUE in consumed:
        os.environ["OMP_NUM_THREADS"] = str(settings().training_threads)
        # However it was started: only the end of a process returns an accelerator's memory, and one that has woken CUDA
        # cannot be given other devices.
        sender.max_tasks_per_child = 1
        # Forked children find torch loaded; no operator runs in the parent. The first optimizer would load the compiler
        # (which nothing here uses), and each job has a fresh child: nearly two seconds a job.
        import torch._dynamo  # noqa: F401

        import worker.training  # noqa: F401

        training_slots()
    if queue.INFERENCE_QUEUE in consumed:
        os.environ["OMP_NUM_THREADS"] = str(settings().inference_threads)
        inference()  # Here rather than in the first task: two tasks at once would make two.


@signals.task_failure.connect  # type: ignore[untyped-decorator]
def notice_lost_child(sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
    """End a killed child's lease at once instead of letting it run out. Called in the worker's parent process."""
    if sender.name != queue.TRAIN or not isinstance(exception, WorkerLostError):
        return
    connections = Service.open(settings())  # Not `service()`: the next child must not inherit it.
    try:
        connections.write(lambda session: jobs.abandon(session, task_id))
    finally:
        connections.close()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def stop_at_next_step(**_: Any) -> None:
    shutdown.set()


@signals.after_setup_task_logger.connect  # type: ignore[untyped-decorator]
@signals.after_setup_logger.connect  # type: ignore[untyped-decorator]
def quieten(logger: logging.Logger, **_: Any) -> None:
    """Write in the format that is asked for, without the lines that Celery writes about every task and libvips
    about every image.

    The reconciler alone makes 60,000 of those a day.
    """
    logs.reformat(logger, settings().log_format)
    for name in ("celery.app.trace", "celery.worker.strategy", "celery.beat", "pyvips"):
        logging.getLogger(name).setLevel(logging.WARNING)
