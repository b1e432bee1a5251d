"""What a call does, free of input and output: a generator that yields steps and is sent their outcomes.

Every call of the client is written once as such a generator. `drtl_client.transports` carries the steps out,
blocking or awaiting; it knows nothing of jobs or models, and the calls know nothing of sockets.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import httpx

from drtl_client.errors import Unreachable, problem_of

T = TypeVar("T")

Json: TypeAlias = dict[str, Any]
OnUpload: TypeAlias = Callable[[int, int], None]  # Bytes sent so far, bytes in all.


@dataclass(frozen=True)
class Part:
    """One file of a form: read from disk while it is sent, or from memory."""

    field: str
    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class Request:
    """An HTTP request, described so that it can be sent again.

    `repeatable` requests do no harm when they arrive twice, so they are sent again even where only the answer was lost.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    repeatable: bool = True
    read_timeout_s: float | None = None  # None: the client's.
    on_upload: OnUpload | None = None


@dataclass(frozen=True)
class Send:
    """Send a request. The outcome is the response, or the httpx.TransportError that stood in its way.

    The response has been read whole, unless it is a success and was asked for as a stream: then `Read` reads it.
    """

    request: Request
    stream: bool = False


@dataclass(frozen=True)
class Read:
    """Read on in the stream. The outcome is its next bytes, None at its end, or an httpx.TransportError."""


@dataclass(frozen=True)
class Sleep:
    """Wait. There is no outcome."""

    seconds: float


@dataclass(frozen=True)
class Emit(Generic[T]):
    """Hand an item to whoever iterates. There is no outcome."""

    item: T


Step: TypeAlias = Send | Read | Sleep
Flow: TypeAlias = Generator[Step, Any, T]
Stream: TypeAlias = Generator[Step | Emit[T], Any, None]


def send(request: Request, *, stream: bool = False) -> Flow[httpx.Response]:
    """The successful response. Raises Unreachable where none comes, and for any other the Problem that it says.

    Redirects are not followed: they come from something that stands before the service, and lead elsewhere.
    """
    outcome = yield Send(request, stream)
    if isinstance(outcome, httpx.TransportError):
        raise Unreachable(outcome) from outcome
    assert isinstance(outcome, httpx.Response)
    if not outcome.is_success:
        raise problem_of(outcome)
    return outcome


def fetch(request: Request) -> Flow[Json]:
    """The JSON document that answers the request. Raises as `send` does, and a Problem for what is none."""
    response = yield from send(request)
    try:
        document: Json = response.json()
    except ValueError:
        raise problem_of(response) from None
    return document


def read() -> Flow[bytes | None]:
    """The next bytes of the open stream, or None at its end. Raises Unreachable where it breaks."""
    outcome = yield Read()
    if isinstance(outcome, httpx.TransportError):
        raise Unreachable(outcome) from outcome
    assert outcome is None or isinstance(outcome, bytes)
    return outcome
