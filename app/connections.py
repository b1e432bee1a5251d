"""What a client may do to its connection: how long it may take over a request's head, and over reading an answer.

uvicorn parses and answers requests, and leaves all of this open: a connection that sends nothing, or one byte of a
header now and then, stays for ever; headers may be as long as they like; an answer that nobody reads is kept until
somebody does.
"""

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Any, Final

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.api.problems import answer, problem_of_status

MAX_HEAD_BYTES: Final = 1 << 16
MAX_HEADERS: Final = 100
MAX_PIPELINED: Final = 16
# What surrounds a body (sizes of chunks, trailers) may be so many times as long as the body, beside the head.
MOST_FRAMING: Final = 8
LEAST_PROGRESS_BYTES: Final = 1 << 14  # An answer of which less is read within the limit has stalled.
UNSENT_BYTES: Final = 1 << 17  # How much of an answer the kernel takes before it is on its way.


@dataclass
class Crowd:
    """The limits that all connections of a process share, and those among them that are between requests."""

    head_s: float
    send_stall_s: float
    max_connections: int
    idle: dict["GuardedConnection", None] = field(default_factory=dict)  # Idle for longest comes first.

    def make_room(self, newcomer: "GuardedConnection", connections: int) -> None:
        """Where there are too many, hang up on the one that has been idle for longest, or else on the newcomer."""
        if connections > self.max_connections:
            next(iter(self.idle), newcomer).hang_up()


class GuardedConnection(HttpToolsProtocol):
    """uvicorn's connection, with deadlines and bounds.

    It is between requests, and so must send a head in time, from its beginning or from the end of an answer until the
    next head is complete. The time for a body is the middleware's affair (`app.api.body_limit`).
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        crowd: Crowd,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._crowd = crowd
        self.access_log = config.access_log  # uvicorn asks whether there is a handler, and the root logger has one.
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._refusal = (400, "The request is not HTTP that this service understands.")
        self._answering: RequestResponseCycle | None = None
        self._head_begun = False
        self._head_bytes = 0  # Of header fields and the target, of this message.
        self._body_bytes = 0
        self._framing_bytes = 0  # Received since the message began, and not body.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        if (lowat := getattr(socket, "TCP_NOTSENT_LOWAT", None)) is not None:
            # A kernel that takes megabytes would hide whether the client reads.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, lowat, UNSENT_BYTES)
        self._await_head()
        self._crowd.make_room(self, len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        self._cancel_send_timer()
        self._crowd.idle.pop(self, None)
        self._tell_that_the_client_is_gone()
        super().connection_lost(exc)

    def hang_up(self) -> None:
        """End the connection now, whatever is on its way."""
        self._crowd.idle.pop(self, None)
        self._tell_that_the_client_is_gone()
        self.transport.abort()

    def _tell_that_the_client_is_gone(self) -> None:
        """uvicorn tells the request that came last, and later; the one that is being answered may be another."""
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    # Heads

    def _await_head(self) -> None:
        self._head_begun = False
        self._cancel_head_timer()
        self._crowd.idle.pop(self, None)
        self._crowd.idle[self] = None
        self._head_timer = self.loop.call_later(self._crowd.head_s, self._head_is_overdue)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_overdue(self) -> None:
        if self._head_begun:
            self._refuse(408, f"The head of the request was not complete within {self._crowd.head_s:g} s.")
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > MAX_HEAD_BYTES + MOST_FRAMING * self._body_bytes and not self.transport.is_closing():
            self._refuse(431, f"The head of a request may have at most {MAX_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_begun = True
        # What of these bytes belongs to the message before is forgiven, and what belongs to this one's head as well.
        self._head_bytes = self._body_bytes = self._framing_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def _count_head(self, more: int) -> None:
        self._head_bytes += more
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) >= MAX_HEADERS:
            detail = f"A request may have at most {MAX_HEADERS} header fields, and {MAX_HEAD_BYTES} bytes of them."
            self._refusal = (431, detail)
            raise ValueError(detail)  # It ends the parsing, whereupon uvicorn asks for `send_400_response`.

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests that did not wait for an answer")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._refusal = (400, "A request names one Host.")  # RFC 9112, 3.2: who routes by another may be misled.
            raise ValueError("not one Host")
        self._cancel_head_timer()
        self._crowd.idle.pop(self, None)
        super().on_headers_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """A client may offer to change the protocol (RFC 9110, 7.8); it is answered in this one, which is no news."""

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._framing_bytes -= len(body)
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        status, detail = self._refusal
        self._refuse(status, detail)

    def _refuse(self, status: int, detail: str) -> None:
        """Answer with a problem document, and hang up. In the middle of another answer it would become part of that."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.hang_up()
            return
        response = answer(problem_of_status(status, detail), headers={"Connection": "close"})
        head = [STATUS_LINE[status], *(b"%s: %s\r\n" % pair for pair in response.raw_headers), b"\r\n"]
        self.transport.write(b"".join([*head, bytes(response.body)]))
        self.transport.close()

    # Answers

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_sending()  # A transport closes once all has been sent, however long that takes.
        elif self.cycle.response_complete:
            self._await_head()
        elif self.pipeline:
            self.flow.pause_reading()  # uvicorn reads on; what it had read before shall be answered first.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_send_timer()

    def _watch_sending(self) -> None:
        self._cancel_send_timer()
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            self._send_timer = self.loop.call_later(self._crowd.send_stall_s, self._hang_up_if_stalled, unsent)

    def _cancel_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _hang_up_if_stalled(self, unsent_before: int) -> None:
        if unsent_before - self.transport.get_write_buffer_size() < min(LEAST_PROGRESS_BYTES, unsent_before):
            self.hang_up()
        else:
            self._watch_sending()
