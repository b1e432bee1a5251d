"""A service without keys is for its own machine alone: by its names, and behind no other address."""

import socket

import httpx
import pytest

from app.api.auth import is_loopback
from app.core.settings import Settings
from app.embedded import CannotStart, require_keys_beyond_loopback
from tests.app.test_keys import MakeKey, database, locked, make_key, refused, service

__all__ = ["database", "locked", "make_key", "service"]  # Fixtures of the keys' tests.


def test_an_open_service_refuses_other_names_and_proxies(service: httpx.Client) -> None:
    """A page whose name resolves to 127.0.0.1 must not read what is here."""
    port = service.base_url.port
    assert service.get("/v1/jobs", headers={"Host": f"localhost:{port}"}).status_code == 200
    refused(service.get("/v1/jobs", headers={"Host": f"rebound.example:{port}"}))
    refused(service.get("/v1/jobs", headers={"X-Forwarded-For": "203.0.113.7"}))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8000",
        "localhost.:8000",
        "localhost:",
        "127.0.0.1",
        "127.9.9.9:1",
        "[::1]",
        "[::1]:8000",
        "[::FFFF:127.0.0.1]:8000",
    ],
)
def test_an_open_service_answers_to_every_name_of_its_machine(service: httpx.Client, host: str) -> None:
    assert service.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "rebound.example",
        "rebound.example.:8000",
        "localhost.rebound.example:8000",
        # What no name may contain, though resolvers and browsers let some of it pass:
        "a{b.rebound.example:8000",
        "a`b.rebound.example:8000",
        'a"b.rebound.example',
        "a b",
        "a@localhost",
        "localhost@rebound.example",
        "localhost/rebound.example",
        "localhost:8000:8000",
        "localhost:8000@rebound.example",
        "localhost:999999",
        "localhost..",
        "[",
        "[::1",
        "[::1].rebound.example",
        "[localhost]",
        "[127.0.0.1]",
        "[2001:db8::1]:8000",
        "::1",
        "127.0.0.1.rebound.example",
        "127.1",
        "0.0.0.0:8000",
    ],
)
def test_an_open_service_refuses_a_host_that_is_no_name_of_its_machine(service: httpx.Client, host: str) -> None:
    refused(service.get("/v1/jobs", headers={"Host": host}))


def test_an_open_service_refuses_a_request_without_a_host(service: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", service.base_url.port or 0), timeout=10) as connection:
        connection.sendall(b"GET /v1/jobs HTTP/1.0\r\n\r\n")
        assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 401"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_known_by_all_its_names(host: str) -> None:
    assert is_loopback(host)


EVERYWHERE = "0.0.0.0"  # noqa: S104 - an address to be judged


@pytest.mark.parametrize("host", ["", EVERYWHERE, "10.0.0.1", "localhost.example", "::", "127.0.0.1.example"])
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", [EVERYWHERE, "192.0.2.7"])
def test_a_service_without_keys_does_not_listen_beyond_loopback(locked: Settings, make_key: MakeKey, host: str) -> None:
    beyond = locked.model_copy(update={"host": host})
    with pytest.raises(CannotStart, match="drtl keys create"):
        require_keys_beyond_loopback(beyond)
    require_keys_beyond_loopback(locked)
    make_key()
    require_keys_beyond_loopback(beyond)
    with pytest.raises(CannotStart, match="DRTL_REQUIRE_KEYS=never"):
        require_keys_beyond_loopback(beyond.model_copy(update={"require_keys": "never"}))
    require_keys_beyond_loopback(beyond.model_copy(update={"require_keys": "always"}))
