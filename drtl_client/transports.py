"""Carries out the steps of a flow with httpx: one way that blocks, one that awaits."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import ExitStack, aclosing, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import anyio
import httpx

from drtl_client.flow import Emit, Flow, OnUpload, Read, Request, Send, Sleep, Step, Stream
from drtl_client.retries import retried

T = TypeVar("T")


class Transport:
    """Blocks."""

    def __init__(self, http: httpx.Client, retries: int) -> None:
        self.http = http
        self.retries = retries

    def run(self, flow: Flow[T]) -> T:
        """The result of the flow."""
        with closing(self.iterate(_emitting(flow))) as results:
            return next(results)

    def iterate(self, flow: Stream[T]) -> Generator[T, None, None]:
        """What the flow emits. Closing the iterator closes the connection."""
        steps = retried(flow, self.retries)
        response: httpx.Response | None = None
        body: Iterator[bytes] = iter(())
        outcome: Any = None
        try:
            while (step := _next(steps, outcome)) is not None:
                outcome = None
                match step:
                    case Emit(item):
                        yield item
                    case Sleep(seconds):
                        time.sleep(seconds)
                    case Read():
                        try:
                            outcome = next(body, None)
                        except httpx.TransportError as error:
                            outcome = error
                    case Send(request, stream):
                        try:
                            if response is not None:
                                response.close()  # What is not read of it would hold its connection for good.
                            with prepared(self.http, request) as message:
                                outcome = response = self.http.send(message, stream=True)
                            body = response.iter_bytes()
                            if not (stream and response.is_success):
                                response.read()
                        except httpx.TransportError as error:
                            outcome = error
        finally:
            steps.close()
            if response is not None:
                response.close()


class AsyncTransport:
    """Awaits, under asyncio or trio."""

    def __init__(self, http: httpx.AsyncClient, retries: int) -> None:
        self.http = http
        self.retries = retries

    async def run(self, flow: Flow[T]) -> T:
        """The result of the flow."""
        async with aclosing(self.iterate(_emitting(flow))) as results:
            return await anext(results)

    async def iterate(self, flow: Stream[T]) -> AsyncGenerator[T, None]:
        """What the flow emits. Closing the iterator closes the connection."""
        steps = retried(flow, self.retries)
        response: httpx.Response | None = None
        body: AsyncIterator[bytes] | None = None
        outcome: Any = None
        try:
            while (step := _next(steps, outcome)) is not None:
                outcome = None
                match step:
                    case Emit(item):
                        yield item
                    case Sleep(seconds):
                        await anyio.sleep(seconds)
                    case Read():
                        try:
                            outcome = None if body is None else await anext(body, None)
                        except httpx.TransportError as error:
                            outcome = error
                    case Send(request, stream):
                        try:
                            if response is not None:
                                await response.aclose()
                            with prepared(self.http, request) as message:
                                outcome = response = await self.http.send(message, stream=True)
                            body = response.aiter_bytes()
                            if not (stream and response.is_success):
                                await response.aread()
                        except httpx.TransportError as error:
                            outcome = error
        finally:
            steps.close()
            if response is not None:
                await response.aclose()


def _emitting(flow: Flow[T]) -> Stream[T]:
    """A flow's result as the one item of a stream, so that there is one loop for both."""
    yield Emit((yield from flow))


def _next(steps: Stream[T], outcome: Any) -> Step | Emit[T] | None:
    """The next step after this outcome, or None at the end."""
    try:
        return steps.send(outcome)
    except StopIteration:
        return None


@contextmanager
def prepared(http: httpx.Client | httpx.AsyncClient, request: Request) -> Iterator[httpx.Request]:
    """The request in httpx's words, its files open for as long as it takes to send it."""
    with ExitStack() as opened:
        meter = Meter(sum(part.size for part in request.parts), request.on_upload)
        files = []
        for part in request.parts:
            content: Any = part.content
            if isinstance(content, Path):
                file = opened.enter_context(content.open("rb"))
                content = file if request.on_upload is None else MeteredFile(file, meter)
            files.append((part.field, (part.name, content)))
        timeout = http.timeout
        if request.read_timeout_s is not None:
            timeout = httpx.Timeout(
                timeout.connect, read=request.read_timeout_s, write=timeout.write, pool=timeout.pool
            )
        yield http.build_request(
            request.method,
            request.path,
            params=request.params or None,
            headers=request.headers,
            json=request.json,
            data=request.form or None,
            files=files or None,
            timeout=timeout,
        )


class Meter:
    """Counts what has been read of a request's files."""

    def __init__(self, total: int, told: OnUpload | None) -> None:
        self.total = total
        self.sent = 0
        self.told = told

    def count(self, size: int) -> None:
        self.sent += size
        if self.told is not None:
            self.told(self.sent, self.total)


class MeteredFile:
    """A file that counts what is read of it; as much of a file as httpx uses."""

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._file = file
        self._meter = meter

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._meter.count(len(content))
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
