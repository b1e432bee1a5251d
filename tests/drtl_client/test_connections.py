"""A call holds one connection at a time, and gives it back."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from drtl_client import AsyncClient, Client

# Whoever needs a second connection at the same time waits for it in vain.
ONE: dict[str, Any] = {"limits": httpx.Limits(max_connections=1), "timeout": httpx.Timeout(10.0, pool=0.5)}


class SlowAtImages(BaseHTTPRequestHandler):
    """Answers as the service does where an image is not done in time: with an operation, then with its result."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(202, json.dumps({"id": "op_1"}).encode())

    def do_GET(self) -> None:
        ended = json.dumps({"id": "op_1", "state": "succeeded"}).encode()
        self.answer(200, b"restored" if self.path.endswith("/result") else ended)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Location", "/v1/operations/op_1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowAtImages) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_images_that_take_long_leave_no_connections_behind(url: str, tmp_path: Path) -> None:
    with Client(http=httpx.Client(base_url=url, **ONE), retries=0) as client:
        for number in range(3):
            client.models["scanner"].super_resolve_to(tmp_path / f"{number}.png", b"image")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == 3 * [b"restored"]


def test_nor_do_those_that_are_awaited(url: str, tmp_path: Path) -> None:
    async def restore() -> None:
        async with AsyncClient(http=httpx.AsyncClient(base_url=url, **ONE), retries=0) as client:
            for number in range(3):
                await client.models["scanner"].super_resolve_to(tmp_path / f"{number}.png", b"image")

    anyio.run(restore)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == 3 * [b"restored"]
