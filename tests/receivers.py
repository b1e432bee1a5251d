"""Real receivers of webhooks: HTTP(S) servers on loopback that keep what they are sent, and answer as they are told."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from drtl_client.signatures import verify
from tests.servers import eventually

LOOPBACK = "127.0.0.0/8"


@dataclass(frozen=True)
class Message:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        return str(json.loads(self.body)["type"])

    @property
    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.body)["data"])

    def is_signed_with(self, secret: str) -> bool:
        return bool(verify(self.body, self.headers, secret) == json.loads(self.body))


Respond = Callable[[Message, BaseHTTPRequestHandler], None]


def answering(status: int, body: bytes = b"", **headers: str) -> Respond:
    """Answer with this, whatever came."""

    def respond(_message: Message, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


@dataclass
class Receiver:
    """What came, and how the next is answered: by the first of `script`, or else by `respond`."""

    url: str = ""
    messages: list[Message] = field(default_factory=list)
    script: list[Respond] = field(default_factory=list)
    respond: Respond = field(default_factory=lambda: answering(204))

    def types(self) -> list[str]:
        return [message.type for message in self.messages]

    def wait_for(self, number: int, timeout_s: float = 30.0) -> list[Message]:
        """The first `number` messages, once they are there."""
        eventually(lambda: len(self.messages) >= number, timeout_s, what=f"{number} messages")
        return self.messages[:number]


@contextmanager
def receiver(*, port: int = 0, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Receiver]:
    """A receiver on loopback, on a free port unless told otherwise. With `tls`, by HTTPS."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message = Message(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            state.messages.append(message)
            respond = state.script.pop(0) if state.script else state.respond
            try:
                respond(message, self)
            except OSError:  # The sender has gone.
                self.close_connection = True

        do_GET = do_POST  # noqa: N815 - as above

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None: ...

    with Server((host, port), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        state.url = f"http{'s' if tls else ''}://{host}:{server.server_address[1]}/hook"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test's own."""

    authority: trustme.CA
    file: Path

    def server_context(self, *names: str) -> ssl.SSLContext:
        """What a server with a certificate for these names uses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names).configure_cert(context)
        return context


def authority(folder: Path) -> Authority:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(folder / "ca.pem"))
    return Authority(made, folder / "ca.pem")
