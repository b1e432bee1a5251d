"""Shares one device among the images that are being restored at the same time."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from ml.backbones import Part, SameSize
from ml.precision import Arithmetic, Computed, NotFinite, compute, is_out_of_memory

LONGEST_WAIT_S: Final = 2.0  # Of a tile of a large image, while small images keep coming.


@dataclass(eq=False)
class _Request:
    """Tiles of one image, waiting for the network."""

    network: SameSize
    batch: Tensor
    part: Part
    arithmetic: Arithmetic
    answer: "Future[Computed]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What requests must share to go through the network together."""
        return id(self.network), self.batch.shape[1:], self.part, self.arithmetic


class Batcher:
    """Runs networks in one thread, one batch after the other, whoever asks.

    An image has at most one request here at a time, so all are served in turn. Images that are a single tile go first:
    they wait for no more than the batch at hand, however large the other images are. Small images of one size for one
    model go together.
    """

    def __init__(
        self, most_together: int, threads: int, note_batch: Callable[[int], None] = lambda tiles: None
    ) -> None:
        self._note_batch = note_batch  # is told how many tiles go together
        self._most_together = most_together
        self._small: deque[_Request] = deque()
        self._large: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._served_small = False  # What the last batch was.
        self._closed = False
        self._thread = threading.Thread(target=self._serve, args=(threads,), name="network", daemon=True)
        self._thread.start()

    def run(self, network: SameSize, batch: Tensor, part: Part, arithmetic: Arithmetic, whole: bool) -> Computed:
        """As `ml.precision.compute`; returns once it has been done. `whole` says that this is all of the image."""
        request = _Request(network, batch, part, arithmetic)
        with self._changed:
            (self._small if whole else self._large).append(request)
            self._changed.notify()
        return request.answer.result()

    def close(self) -> None:
        """Let the thread end once nothing waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _serve(self, threads: int) -> None:
        # A thread takes on the number that was set last, anywhere, when it first asks; from then on it has its own.
        torch.get_num_threads()
        torch.set_num_threads(threads)
        while requests := self._next():
            self._note_batch(sum(len(request.batch) for request in requests))
            _answer(requests)

    def _next(self) -> list[_Request]:
        """The requests to run now; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._small or self._large or self._closed)
            # Never two large ones while a small one waits, or it would wait for as many as there are.
            overdue = self._large and self._large[0].since < time.monotonic() - LONGEST_WAIT_S
            self._served_small = bool(self._small) and not (overdue and self._served_small)
            if not self._served_small:
                return [self._large.popleft()] if self._large else []
            first = self._small.popleft()
            alike = [request for request in self._small if request.kind == first.kind][: self._most_together - 1]
            for request in alike:
                self._small.remove(request)
            return [first, *alike]


def _answer(requests: list[_Request]) -> None:
    """Run requests of one kind together; one by one where memory does not suffice, or one of them has no result."""
    first = requests[0]
    try:
        batch = first.batch if len(requests) == 1 else torch.cat([request.batch for request in requests])
        computed = compute(first.network, batch, first.part, first.arithmetic)
    except BaseException as error:  # noqa: BLE001 - It is raised where the answer is awaited.
        if len(requests) > 1 and (isinstance(error, NotFinite) or is_out_of_memory(error)):
            for request in requests:
                _answer([request])
            return
        for request in requests:
            request.answer.set_exception(error)
        return
    results = computed.result.split([len(request.batch) for request in requests])
    for request, result in zip(requests, results, strict=True):
        request.answer.set_result(Computed(result, computed.fell_back))
