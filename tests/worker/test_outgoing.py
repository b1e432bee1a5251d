"""Messages on their way to real receivers: whom they reach, whom they do not, and that nobody can hold them up."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import anyio
import pytest

from app.core import receivers as address_policy
from app.core.deliveries import Answer
from app.core.receivers import Receivers, parsed_networks
from app.core.settings import Settings
from tests.receivers import LOOPBACK, Authority, Message, answering, authority, receiver
from worker.outgoing import EXCERPT_BYTES, outgoing

HERE = Receivers(parsed_networks(LOOPBACK), http=True)
ANYWHERE = Receivers(http=True)
BODY = b'{"type": "ping"}'


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


def post(url: str, receivers: Receivers = HERE, *, timeout_s: float = 5.0, ca_file: Path | None = None) -> Answer:
    settings = Settings(webhook_timeout_s=timeout_s, webhook_ca_file=ca_file)

    async def send() -> Answer:
        async with outgoing(settings, receivers, 1) as connections:
            return await connections.post(url, {"webhook-id": "msg_1"}, BODY)

    return anyio.run(send)


@contextmanager
def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> Iterator[list[str]]:
    """A resolver that answers with these, one after the other; the last goes on. Everything else is real."""
    asked: list[str] = []

    def look_up(host: str, _port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    with monkeypatch.context() as patch:
        patch.setattr(address_policy, "look_up", look_up)
        yield asked


def test_a_message_arrives_as_it_is_with_a_true_host_and_nothing_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with receiver() as there:
        there.respond = answering(200, b"thanks", Set_Cookie="a=b")
        answer = post(f"{there.url}?a=b%20c")
        (message,) = there.messages
    assert (answer.status, answer.excerpt, answer.error) == (200, "thanks", None)
    assert answer.is_good
    assert message.path == "/hook?a=b%20c"
    assert message.body == BODY
    assert message.headers["host"] == there.url.split("/")[2]
    assert message.headers["webhook-id"] == "msg_1"
    assert not {"cookie", "authorization"} & set(message.headers)


def test_a_receiver_inside_is_not_reached_unless_the_operator_allows_its_network() -> None:
    with receiver() as there:
        assert post(there.url, ANYWHERE).error == "The URL's host has no public address."
        assert not there.messages
        assert post(there.url).is_good


def test_names_and_spellings_of_this_machine_reach_nothing() -> None:
    with receiver() as there:
        port = there.url.split(":")[2]
        for host in ("localhost", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):  # noqa: S104
            answer = post(f"http://{host}:{port}", ANYWHERE)
            assert answer.status is None, host
            assert answer.error
        assert not there.messages


def test_a_name_that_turns_inward_after_it_was_judged_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the first answer is good, every later one is this machine."""
    with receiver() as there, resolving(monkeypatch, ["203.0.114.1"], ["127.0.0.1"]) as asked:
        port = int(there.url.split(":")[2].split("/")[0])
        monkeypatch.setattr(address_policy, "PORTS", {port})
        judged = Receivers(http=True)
        judged.check(f"http://rebinding.example:{port}/")
        answer = post(f"http://rebinding.example:{port}/", judged)
        assert asked == ["rebinding.example"] * 2, "each connection asks once"
        assert answer.error == "The URL's host has no public address."
        assert not there.messages


def test_the_connection_goes_to_the_address_that_was_judged_and_to_no_second_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with receiver() as there, receiver(host="127.0.0.2", port=int(there.url.split(":")[2].split("/")[0])) as wrong:
        port = there.url.split(":")[2].split("/")[0]
        with resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"]) as asked:
            answer = post(f"http://twice.example:{port}/")
        assert answer.is_good
        assert len(asked) == 1
        assert len(there.messages) == 1
        assert not wrong.messages
        assert there.messages[0].headers["host"] == f"twice.example:{port}"


def test_the_second_address_is_tried_where_the_first_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as there, resolving(monkeypatch, ["127.0.0.9", "127.0.0.1"]):
        assert post(f"http://two.example:{there.url.split(':')[2]}").is_good


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with receiver() as inside, receiver() as there:
        for status in (301, 302, 307, 308):
            there.respond = answering(status, Location=inside.url)
            answer = post(there.url)
            assert answer.status == status
            assert not answer.is_good
        assert not inside.messages


def test_tls_is_verified_by_name_though_the_connection_goes_to_an_address(
    monkeypatch: pytest.MonkeyPatch, trusted: Authority
) -> None:
    with receiver(tls=trusted.server_context("right.example")) as there, resolving(monkeypatch, ["127.0.0.1"]):
        port = there.url.split(":")[2]
        good = post(f"https://right.example:{port}", ca_file=trusted.file)
        assert good.is_good, good
        wrong_name = post(f"https://wrong.example:{port}", ca_file=trusted.file)
        assert "certificate" in (wrong_name.error or "")
        assert "mismatch" in (wrong_name.error or "").lower()
        unknown = post(f"https://right.example:{port}")
        assert "certificate" in (unknown.error or "")
        assert len(there.messages) == 1


def test_the_server_is_told_the_name_so_that_it_can_choose_its_certificate(
    monkeypatch: pytest.MonkeyPatch, trusted: Authority
) -> None:
    names: list[str | None] = []
    context = trusted.server_context("sni.example")
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with receiver(tls=context) as there, resolving(monkeypatch, ["127.0.0.1"]):
        assert post(f"https://sni.example:{there.url.split(':')[2]}", ca_file=trusted.file).is_good
    assert names == ["sni.example"]


def test_a_plain_receiver_is_refused_where_the_operator_wants_tls() -> None:
    with receiver() as there:
        answer = post(there.url, Receivers(parsed_networks(LOOPBACK)))
        assert answer.error == "A webhook's URL begins with https://."
        assert not there.messages


def endless(_message: Message, handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def dripping_body(_message: Message, handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def stopping_in_the_body(_message: Message, handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x")
    time.sleep(3)


def dripping_headers(_message: Message, handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        handler.wfile.write(f"X-{number}: y\r\n".encode())
        time.sleep(0.1)


def huge_headers(_message: Message, handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        handler.wfile.write(f"X-{number}: {'y' * 100}\r\n".encode())


def silent(_message: Message, _handler: BaseHTTPRequestHandler) -> None:
    time.sleep(5)


def hanging_up(_message: Message, handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def no_http(_message: Message, handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")


@pytest.mark.parametrize("respond", [dripping_headers, silent])
def test_a_receiver_that_never_gets_to_the_point_is_left_after_the_time_limit(
    respond: Callable[[Message, BaseHTTPRequestHandler], None],
) -> None:
    with receiver() as there:
        there.respond = respond
        began = time.monotonic()
        answer = post(there.url, timeout_s=0.6)
        assert time.monotonic() - began < 2.0
    assert answer.error == "No answer within 0.6 s."


@pytest.mark.parametrize("respond", [hanging_up, no_http, huge_headers])
def test_what_is_no_answer_is_told_in_a_sentence(respond: Callable[[Message, BaseHTTPRequestHandler], None]) -> None:
    with receiver() as there:
        there.respond = respond
        answer = post(there.url)
    assert answer.status is None
    assert (answer.error or "").startswith("The answer could not be read")


@pytest.mark.parametrize("respond", [endless, dripping_body])
def test_of_a_body_only_the_beginning_is_read_and_the_status_decides(
    respond: Callable[[Message, BaseHTTPRequestHandler], None],
) -> None:
    with receiver() as there:
        there.respond = respond
        answer = post(there.url)
    assert answer.is_good
    assert 1 <= len(answer.excerpt or "") <= EXCERPT_BYTES
    assert answer.seconds < 4.0


@pytest.mark.parametrize("respond", [dripping_body, stopping_in_the_body])
def test_a_body_that_outlasts_the_time_limit_does_not_undo_the_status(
    respond: Callable[[Message, BaseHTTPRequestHandler], None],
) -> None:
    def late(message: Message, handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        respond(message, handler)

    with receiver() as there:
        there.respond = late
        answer = post(there.url, timeout_s=0.6)
    assert (answer.status, answer.error) == (200, None)
    assert (answer.excerpt or "").startswith("x")
    assert 0.6 <= answer.seconds < 4.0


def test_an_excerpt_is_text_that_every_database_takes() -> None:
    with receiver() as there:
        there.respond = answering(500, b"\xff\0\xfe no")
        assert post(there.url).excerpt == "\ufffd\ufffd\ufffd no"


def test_a_receiver_may_say_when_it_wants_to_be_asked_again() -> None:
    with receiver() as there:
        there.respond = answering(503, Retry_After="120")
        assert post(there.url).retry_after_s == 120.0
        there.respond = answering(503, Retry_After="Wed, 21 Oct 2030 07:28:00 GMT")
        assert post(there.url).retry_after_s is None


def test_where_nobody_listens_the_reason_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert post(f"http://127.0.0.1:{port}/").error == "The connection was refused or could not be made."


def test_a_resolver_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(address_policy, "look_up", lambda host, port: release.wait(10) and [])
    began = time.monotonic()
    timer = threading.Timer(1.5, release.set)
    timer.start()
    answer = post("http://slow.example/", timeout_s=0.3)
    assert answer.error == "No answer within 0.3 s."
    assert answer.seconds < 1.0
    timer.join()
    assert time.monotonic() - began < 5.0
