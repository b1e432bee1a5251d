"""What a batch is as a whole: derived from its operations, so that no worker has to keep it up to date."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.tables import ACTIVE, Batch, Operation


@dataclass
class Tally:
    """The operations of a batch, added up."""

    counts: dict[str, int] = field(default_factory=dict)  # by state
    pixels: int = 0
    done_pixels: float = 0.0
    finished_at: datetime | None = None  # of the latest that has ended

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def ended(self) -> bool:
        return not any(self.counts.get(state) for state in ACTIVE)

    @property
    def progress(self) -> float:
        """How much is done, by pixels, in 0…1. What has ended is done, however it ended."""
        return 1.0 if self.ended else min(1.0, self.done_pixels / max(1, self.pixels))

    def state(self, batch: Batch) -> str:
        """As a job's. A batch has succeeded if any image has: the counts say how many have not."""
        if not self.ended:
            if batch.cancel_requested:
                return "cancelling"
            return "queued" if self.total == self.counts.get("queued", 0) + self.counts.get("failed", 0) else "running"
        if batch.cancel_requested and self.counts.get("cancelled"):
            return "cancelled"
        return "succeeded" if self.counts.get("succeeded") else "failed"


def tallies(session: Session, batch_ids: Sequence[str]) -> dict[str, Tally]:
    """The tallies of some batches, in one query."""
    query = select(
        Operation.batch_id,
        Operation.state,
        func.count(),
        func.sum(Operation.pixels),
        func.sum(Operation.pixels * Operation.progress),
        func.max(Operation.finished_at),
    )
    query = query.where(Operation.batch_id.in_(batch_ids)).group_by(Operation.batch_id, Operation.state)
    found = {batch_id: Tally() for batch_id in batch_ids}
    for batch_id, state, count, pixels, done_pixels, finished_at in session.execute(query):
        assert batch_id is not None
        tally = found[batch_id]
        tally.counts[state] = count
        tally.pixels += int(pixels)
        tally.done_pixels += done_pixels if state in ACTIVE else int(pixels)
        if finished_at is not None:
            tally.finished_at = finished_at if tally.finished_at is None else max(tally.finished_at, finished_at)
    return found
