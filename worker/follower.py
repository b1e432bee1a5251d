"""What the method tells while it runs, written to the job's row and its checkpoint blob."""

import io
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from sqlalchemy import select
from torch import Tensor

from app.core import jobs, telemetry, tracing
from app.core.jobs import Lease
from app.core.tables import Job, JobEvent
from ml.preview import Preview
from worker.lease import Heartbeat, WorkerStopping, shutdown
from worker.own_blobs import sign_png, sign_safetensors
from worker.service import PATIENCE_S, DatabaseDown, Service

log = logging.getLogger(__name__)

REPORT_EVERY_S = 0.5
PREVIEW_EVERY_S = 4.0
PREVIEW_SHARE = 1 / 60  # of the time, at most, goes into previews.
STOP_GRACE_S = 3.0  # A worker that stops waits this long for the method to offer a checkpoint.


class JobFollower:
    """What the method tells while it runs, written to the job's row as long as the lease is ours."""

    def __init__(self, service: Service, lease: Lease, heartbeat: Heartbeat) -> None:
        self.service = service
        self.passing = service.passing()
        self.lease = lease
        self.heartbeat = heartbeat
        self.owner = f"{lease.job_id}/{lease.attempt}"  # of what this attempt stores
        self.scratch = Path()
        self.checkpoint_blob: str | None = None
        self.began = time.monotonic()
        self.first_fraction: float | None = None
        self.reached = 0.0  # By the attempt that this one resumes; a bar that has come so far does not fall back.
        self.phase = ""
        self.steps = tracing.Steps()
        self.next_report = self.began
        self.next_checkpoint = self.began + service.settings.checkpoint_every_s
        self.next_preview = self.began
        self.preview_blob: str | None = None
        self.best_preview_psnr = -math.inf
        self.stop_seen: float | None = None

    def begin(self, scratch: Path, job: Job) -> None:
        """Take over what the attempt before left."""
        self.scratch = scratch
        self.checkpoint_blob, self.preview_blob = job.checkpoint_blob, job.preview_blob
        if self.preview_blob is not None:
            self.best_preview_psnr = self._best_shown()

    def has_trained(self) -> bool:
        """Whether the method has come past what it does before its first step."""
        return self.phase not in {"", "validating", "embedding"}

    def progress(self, phase: str, fraction: float, **facts: float | str | Tensor) -> None:
        """Publish where the job is: each new phase at once, else twice a second, and more rarely in a long job."""
        self.heartbeat.check()
        self._stop_without_checkpoint()
        if "step" in facts:
            self.service.numbers.add(telemetry.TRAINING_STEPS)
        now = time.monotonic()
        if phase == self.phase and now < self.next_report:
            return
        if phase != self.phase:
            log.info("job %s: %s", self.lease.job_id, phase)
            self.steps.enter(phase)
        self.phase = phase
        self.next_report = now + max(REPORT_EVERY_S, (now - self.began) / 500)
        payload, eta_s = finite(facts), self._eta_s(fraction, now)
        try:
            self.passing.write(
                lambda session: jobs.report_progress(
                    session, self.lease, phase, max(fraction, self.reached), eta_s, **payload
                )
            )
        except DatabaseDown as error:
            log.warning("job %s: progress not written: %s", self.lease.job_id, error)

    def graph(self, graph: dict[str, Any]) -> None:
        """Publish the relation graph while the job goes on."""
        self.service.write(lambda session: jobs.save_graph(session, self.lease, finite(graph)), PATIENCE_S)

    def checkpoint(self, write: Callable[[Path], None]) -> None:
        """Store a checkpoint when it is time: every so often, and once more before this worker stops."""
        self.heartbeat.check()
        stopping = shutdown.is_set()
        started = time.monotonic()
        if started < self.next_checkpoint and not stopping:
            return
        try:
            self._store(write)
        except (OSError, SafetensorError, *DatabaseDown) as error:
            # A full disk costs the next attempt some time, but must not cost the user the job.
            log.warning("job %s: checkpoint not stored: %s", self.lease.job_id, error)
        finished = time.monotonic()
        settings = self.service.settings
        rest = (finished - started) * (1 / settings.checkpoint_share - 1)
        self.next_checkpoint = finished + max(settings.checkpoint_every_s, rest)
        if stopping:
            raise WorkerStopping(self.lease.job_id)

    def preview(self, look: Callable[[], Preview]) -> None:
        """Show every so often what a held-out crop looks like now; the image stays that of the best look so far."""
        started = time.monotonic()
        if started < self.next_preview:
            return
        seen = look()
        improved = seen.psnr > self.best_preview_psnr
        try:
            self._show(seen, improved=improved)
        except (OSError, *DatabaseDown) as error:
            log.warning("job %s: preview not shown: %s", self.lease.job_id, error)
        finished = time.monotonic()
        cost = finished - started
        self.next_preview = finished + max(PREVIEW_EVERY_S, cost / PREVIEW_SHARE, (finished - self.began) / 250)

    def _show(self, seen: Preview, *, improved: bool) -> None:
        blob = self.preview_blob
        if improved:
            blob = self.service.storage.put(io.BytesIO(sign_png(seen.png, self.owner)))
        facts = {
            "pair": seen.pair,
            "candidate": seen.candidate,
            "step": seen.step,
            "psnr_db": seen.psnr,
            "input_psnr_db": seen.input_psnr,
            "width": seen.width,
            "height": seen.height,
            "improved": improved,
        }
        self.passing.write(lambda session: jobs.save_preview(session, self.lease, blob, **finite(facts)))
        if improved:
            # The one before goes with the next sweep: it is an image, so its owner may have sent it in meanwhile.
            self.preview_blob, self.best_preview_psnr = blob, seen.psnr

    def _best_shown(self) -> float:
        """What the image that is shown has reached, in dB; −∞ where its event is past its retention."""
        told = select(JobEvent.payload).where(JobEvent.job_id == self.lease.job_id, JobEvent.kind == "preview")
        with self.service.read_sessions() as session:
            looks = [look for look in session.scalars(told) if look["improved"]]
        # JSON has no infinity: what is equal to the clean crop was told without a number.
        reached = (math.inf if look["psnr_db"] is None else look["psnr_db"] for look in looks)
        return max(reached, default=-math.inf)

    def drop_checkpoint(self) -> None:
        """Remove the last checkpoint's blob once the job has ended and its row names it no more."""
        self._remove(self.checkpoint_blob)

    def _store(self, write: Callable[[Path], None]) -> None:
        path = self.scratch / "checkpoint"
        write(path)
        sign_safetensors(path, self.owner)
        with path.open("rb") as file:
            blob = self.service.storage.put(file)
        path.unlink()
        self.service.write(lambda session: jobs.save_checkpoint(session, self.lease, blob))
        self.checkpoint_blob, outdated = blob, self.checkpoint_blob
        if outdated != blob:
            self._remove(outdated)

    def _remove(self, blob: str | None) -> None:
        """Delete a checkpoint that this attempt stored or took over, unless a later one has taken it over in turn."""
        if blob is None:
            return
        try:
            with self.service.read_sessions() as session:
                shared = session.scalar(select(Job.id).where(Job.checkpoint_blob == blob).limit(1)) is not None
            if not shared:
                self.service.storage.delete(blob)
        except (OSError, *DatabaseDown) as error:
            log.warning("blob %s stays until the next sweep: %s", blob, error)

    def _eta_s(self, fraction: float, now: float) -> float | None:
        """Seconds to go at this attempt's pace so far; None while that is still a guess."""
        if not self.has_trained():
            return None  # What comes before the first step says nothing about the steps.
        if self.first_fraction is None:
            self.first_fraction, self.began = fraction, now
        done = fraction - self.first_fraction
        return (now - self.began) * (1.0 - fraction) / done if done >= 0.02 else None

    def _stop_without_checkpoint(self) -> None:
        """Stop in a phase that offers no checkpoint, too, but only after waiting for one."""
        if not shutdown.is_set():
            return
        self.stop_seen = self.stop_seen or time.monotonic()
        if time.monotonic() - self.stop_seen > STOP_GRACE_S:
            raise WorkerStopping(self.lease.job_id)


def finite(value: Any) -> Any:
    """JSON-ready copy in which numbers that JSON does not have (infinite PSNR of equal images) are null."""
    match value:
        case Tensor():
            return finite(float(value))
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: finite(entry) for key, entry in value.items()}
        case list() | tuple():
            return [finite(entry) for entry in value]
        case _:
            return value
