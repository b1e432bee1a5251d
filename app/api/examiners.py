"""Child processes that decode images of pairs: few, bounded in memory and time, and replaced when they fail."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from app.api.uploads import Spool, UploadedFile
from app.core.errors import BadImage, BadPairs, ServiceError, StorageFull, TooLarge, UnsupportedMedia
from app.core.settings import Settings

MOST_USES: Final = 100  # A fresh process now and then bounds whatever leaks.
MOST_REQUESTS: Final = 32  # that hold a thread while they wait for a child; further ones wait without.
STALE_S: Final = 30.0  # Well before the child ends by itself for want of work.
MOST_ANSWER_BYTES: Final = 1 << 20
KINDS: Final[dict[str, type[ServiceError]]] = {
    kind.code: kind for kind in (BadImage, BadPairs, TooLarge, UnsupportedMedia)
}
Refusal = tuple[str, str, type[ServiceError]]  # side, reason, kind


@dataclass(frozen=True)
class Examined:
    """The report on a pair and, where it was mended, the two images as PNG files."""

    report: dict[str, Any]
    fixed: tuple[UploadedFile, UploadedFile] | None


class Refused(Exception):
    """Files of a pair that cannot be used."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__(refusals)
        self.refusals = refusals


class Lost(Exception):
    """The child has died or hangs; `entering` is the file that it read last."""

    def __init__(self, reason: str, entering: str) -> None:
        super().__init__(reason)
        self.reason, self.entering = reason, entering


class Examiners:
    """Up to `settings.examiners` children, started when there is work and ended when there is none for a while."""

    def __init__(self, settings: Settings) -> None:
        self.count, self.limit_s = settings.examiners, settings.examination_s
        self._limits = {name: getattr(settings, name) for name in ("max_pair_pixels", "min_pair_side", "max_scale")}
        self.turns = asyncio.Semaphore(MOST_REQUESTS)  # Whoever is about to call `examine` or `render` takes one.
        self._free = threading.BoundedSemaphore(self.count)
        self._idle: list[_Child] = []
        self._lock = threading.Lock()

    def examine(self, clean: UploadedFile, distorted: UploadedFile, fixes: Collection[str], spool: Spool) -> Examined:
        """Examine one pair; mended images are written to `spool`. Blocks while all children are busy.

        Raises Refused, also where the child dies or takes longer than `settings.examination_s`.
        """
        request = {
            "limits": self._limits,
            "fixes": sorted(fixes),
            "slices": [(file.start, file.size) for file in (clean, distorted)],
        }
        outputs = [spool.another() for _ in range(2)] if fixes else []
        descriptors = [clean.spool.descriptor(), distorted.spool.descriptor(), *(each.descriptor() for each in outputs)]
        with self._child() as child:
            try:
                answer = child.ask(request, descriptors, self.limit_s)
            except Lost as lost:
                raise Refused([(lost.entering, lost.reason, BadImage)]) from lost
        require_room(answer)
        if "refused" in answer:
            raise Refused([(side, reason, KINDS[code]) for side, reason, code in answer["refused"]])
        if not answer["fixed"]:
            return Examined(answer["report"], None)
        fixed = [each.whole(file.field, file.name) for each, file in zip(outputs, (clean, distorted), strict=True)]
        return Examined(answer["report"], (fixed[0], fixed[1]))

    def render(self, image: BinaryIO, max_side: int | None, spool: Spool) -> UploadedFile:
        """The image of a pair as a browser can show it, as a PNG in `spool`. Raises the error of what is no image."""
        source, target = spool.another(), spool.another()
        while chunk := image.read(1 << 20):
            source.append(chunk)
        request = {"max_side": max_side, "max_pixels": self._limits["max_pair_pixels"]}
        with self._child() as child:
            try:
                answer = child.ask(request, [source.descriptor(), target.descriptor()], self.limit_s)
            except Lost as lost:
                raise BadImage(lost.reason) from lost
        require_room(answer)
        for _side, reason, code in answer.get("refused", ()):
            raise KINDS[code](reason)
        return target.whole("image", "rendition.png")

    @contextmanager
    def _child(self) -> Iterator["_Child"]:
        with self._free:
            child = self._fresh()
            try:
                yield child
            finally:
                if child.sound and child.uses < MOST_USES:
                    with self._lock:
                        self._idle.append(child)
                else:
                    child.end()

    def _fresh(self) -> "_Child":
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.fresh:
                    return child
                child.end()
        return _Child()

    def close(self) -> None:
        with self._lock:
            for child in self._idle:
                child.end()
            self._idle.clear()


def require_room(answer: dict[str, Any]) -> None:
    """Raise StorageFull where the child found no room for what it made."""
    if "disk_full" in answer:
        raise StorageFull("The disk of the service is full. Nothing was kept; try again later.", pointer="storage")


class _Child:
    """One process and the channel to it."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "app.api.examiner", str(theirs.fileno())]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
        self.uses, self.sound, self._used_at = 0, True, time.monotonic()

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self._used_at < STALE_S and self._process.poll() is None

    def ask(self, request: dict[str, Any], descriptors: list[int], limit_s: float) -> dict[str, Any]:
        """The answer to one request. Raises Lost, after which the child is of no use."""
        self.uses, self.sound = self.uses + 1, False
        deadline, entering, received = time.monotonic() + limit_s, "clean", b""
        try:
            self._channel.settimeout(limit_s)
            socket.send_fds(self._channel, [json.dumps(request).encode()], descriptors)
            while True:
                line, found, rest = received.partition(b"\n")
                if found:
                    received, message = rest, json.loads(line)
                    if "entering" not in message:
                        self.sound, self._used_at = True, time.monotonic()
                        return dict(message)
                    entering = message["entering"]
                    continue
                self._channel.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = self._channel.recv(1 << 16)
                received += chunk
                if not chunk or len(received) > MOST_ANSWER_BYTES:
                    raise Lost("The image makes its decoder fail; save it anew with another program.", entering)
        except TimeoutError:
            raise Lost(f"The image takes longer than {limit_s:g} s to decode and examine.", entering) from None
        except (ConnectionError, ValueError) as error:
            raise Lost("The image makes its decoder fail; save it anew with another program.", entering) from error

    def end(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()
