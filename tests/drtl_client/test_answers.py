"""What is no success is an error, whatever stands before the service; what is no name of anything is not asked for."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import pytest

from drtl_client import AsyncClient, Client, errors

ELSEWHERE = "https://login.example/?next=drtl"


@contextmanager
def giving(status: int, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """A server that gives every request this answer; yields its URL and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(self.path)
            body = b"" if status in {204, 304} else b"<html>"
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that are looked for

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


CALLS: dict[str, Callable[[Client, Path], Any]] = {
    "a list": lambda client, _: list(client.jobs.list()),
    "a thing": lambda client, _: client.jobs.get("job_1"),
    "events": lambda client, _: list(client.jobs.watch("job_1", patience_s=2)),
    "a drawing": lambda client, _: client.jobs.graph_svg("job_1"),
    "a change": lambda client, _: client.webhooks.delete("wh_1"),
    "a deletion": lambda client, _: client.jobs.delete("job_1"),
    "an image": lambda client, _: client.models["scanner"].super_resolve(b"image"),
    "an image on disk": lambda client, folder: client.models["scanner"].super_resolve_to(folder / "x.png", b"image"),
    "a file": lambda client, folder: client.models["scanner@1"].download(folder),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_redirect_is_an_error_that_says_where_it_points(call: str, tmp_path: Path) -> None:
    with giving(302, Location=ELSEWHERE) as (url, asked), Client(url) as client:
        with pytest.raises(errors.Problem, match="HTTP 302 Found") as redirected:
            CALLS[call](client, tmp_path)
        assert redirected.value.status == 302
        assert ELSEWHERE in str(redirected.value)
        assert len(asked) == 1
    assert not list(tmp_path.iterdir())


def test_so_it_is_for_those_who_await(tmp_path: Path) -> None:
    async def restore(url: str) -> None:
        async with AsyncClient(url) as client:
            assert not await client.ready()
            with pytest.raises(errors.Problem, match="HTTP 302 Found") as redirected:
                await client.models["scanner"].super_resolve_to(tmp_path / "x.png", b"image")
            assert ELSEWHERE in str(redirected.value)

    with giving(302, Location=ELSEWHERE) as (url, _):
        anyio.run(restore, url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [300, 304, 307, 308])
def test_whoever_answers_with_anything_but_success_is_not_ready(status: int) -> None:
    with giving(status) as (url, _), Client(url) as client:
        assert not client.ready()
        with pytest.raises(errors.Problem, match=f"HTTP {status}"):
            client.webhooks.delete("wh_1")


def test_an_empty_success_is_one() -> None:
    with giving(204) as (url, _), Client(url) as client:
        assert client.ready()
        client.webhooks.delete("wh_1")
        client.models["scanner@2"].delete()
        client.jobs.delete("job_1")
        client.datasets.delete("ds_1")
        assert list(client.jobs.watch("job_1")) == []


# ---- names


NAMED: dict[str, Callable[[Client, str], Any]] = {
    "dataset": lambda client, name: client.datasets.get(name),
    "dataset to delete": lambda client, name: client.datasets.delete(name),
    "job": lambda client, name: client.jobs.get(name),
    "job to delete": lambda client, name: client.jobs.delete(name),
    "job's events": lambda client, name: list(client.jobs.watch(name)),
    "operation": lambda client, name: client.operations.cancel(name),
    "batch": lambda client, name: client.batches.get(name),
    "webhook": lambda client, name: client.webhooks.delete(name),
    "webhook's deliveries": lambda client, name: list(client.webhooks.deliveries(name)),
    "delivery": lambda client, name: client.webhooks.redeliver("wh_1", name),
    "model": lambda client, name: client.models[name].version(),
    "model to delete": lambda client, name: client.models[name].delete(),
    "version to delete": lambda client, name: client.models[f"{name}@1"].delete(),
    "model at work": lambda client, name: client.models[name].super_resolve(b"image"),
    "weights": lambda client, name: client.models[f"{name}@1"].download(),
    "alias": lambda client, name: client.models["scanner@1"].promote(name),
}


@pytest.mark.parametrize("kind", NAMED)
def test_what_would_lead_to_another_path_is_refused_unasked(kind: str) -> None:
    with giving(204) as (url, asked), Client(url) as client:
        for name in ("", ".", "..", "/", "a/versions/1", "../jobs"):
            with pytest.raises(errors.NotFound, match="There is no"):
                NAMED[kind](client, name)
        assert not asked


@pytest.mark.parametrize("kind", NAMED)
def test_whatever_else_a_name_holds_arrives_as_one_segment(kind: str) -> None:
    name = "?a=1#b%2Fc \\d;é"
    with giving(404) as (url, asked), Client(url) as client:
        with pytest.raises(errors.NotFound):
            NAMED[kind](client, name)
        assert name in [unquote(segment) for segment in asked[0].split("/")]


def test_a_name_that_no_encoding_has_is_still_only_unknown() -> None:
    with giving(404) as (url, asked), Client(url) as client:
        with pytest.raises(errors.NotFound):
            client.jobs.get("job_\udcff")
        assert asked == ["/v1/jobs/job_%3F"]


def test_a_version_keeps_its_sign() -> None:
    with giving(404) as (url, asked), Client(url) as client:
        with pytest.raises(errors.NotFound):
            client.models["scanner@2"].super_resolve(b"image")
        assert asked == ["/v1/models/scanner@2/super-resolve"]


def test_another_web_server_is_told_from_the_service() -> None:
    expected = pytest.raises(errors.Problem, match="HTTP 200 OK; is the address that of the service")
    with giving(200) as (url, _), Client(url) as client, expected:
        client.jobs.get("job_1")
