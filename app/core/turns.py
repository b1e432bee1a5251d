"""Whose image is next: small before large, one-off requests before the bulk of a batch, and nobody waits for ever.

Every operation gets its turn when it is queued: the moment at which it would be done if everything that its sender
sent along with it were restored, one after the other, from now on and at `PACE`. The least turn is served first.
(That is fair queueing by virtual finish times; Demers, Keshav and Shenker, 1989.) It follows that

- among requests of the same time the smaller goes first, and a later one overtakes only by as much as it is smaller;
- batches that came together take turns, pixel by pixel, whatever their lengths;
- while workers are faster than `PACE`, the waiting part of a batch has later turns than any small newcomer;
- under a load that never ends an image still gets its turn, once newcomers' turns lie behind its own.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Final

PACE: Final = 20_000.0  # Pixels per second and sender; slower than the slowest backbone on one core.
ENSEMBLE: Final = 8  # The transforms of a square that an ensemble or a trust map computes.


def work(pixels: int, scale: int = 1, *, ensemble: bool = False) -> int:
    """How many pixels the network computes for an image of `pixels`, which a model enlarges by `scale` first."""
    return pixels * scale**2 * (ENSEMBLE if ensemble else 1)


def turns(works: Iterable[int], now: float | None = None) -> Iterator[float]:
    """The turns, in seconds since the epoch, of images that one sender sends at once, in their order.

    The clock is this host's: hosts that differ by a second shift their senders by a second, which does no harm.
    """
    turn = time.time() if now is None else now
    for pixels in works:
        turn += pixels / PACE
        yield turn
