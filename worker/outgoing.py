"""HTTP to the receivers of webhooks: to addresses that were judged, without detours, and bounded in time and size."""

import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.to_thread
import httpcore
import httpx

from app.core.deliveries import Answer
from app.core.errors import BadWebhookUrl
from app.core.receivers import Receivers
from app.core.settings import Settings

CONNECT_S: Final = 5.0
ADDRESSES_TRIED: Final = 2
EXCERPT_BYTES: Final = 1024
EXCERPT_S: Final = 2.0  # Beyond the time limit: the status has come by then, and decides.


class JudgedAddresses(httpcore.AsyncNetworkBackend):
    """Resolves a name once, judges every address found, and connects to one of these very addresses.

    TLS begins above it, with the name from the URL: what a certificate must show and what `Host` says stays the same.
    """

    def __init__(self, receivers: Receivers) -> None:
        self._receivers = receivers
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises BadWebhookUrl for a name with an address that is not allowed, httpcore's errors for the rest."""
        addresses = await anyio.to_thread.run_sync(self._receivers.addresses, host, port, abandon_on_cancel=True)
        *others, last = addresses[:ADDRESSES_TRIED]
        for address in others:
            try:
                return await self._sockets.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._sockets.connect_tcp(str(last), port, timeout, local_address, socket_options)


@asynccontextmanager
async def outgoing(settings: Settings, receivers: Receivers, at_once: int) -> AsyncIterator["Outgoing"]:
    """Something to send with, in this event loop, to `at_once` receivers at a time."""
    trusted = httpx.create_ssl_context(trust_env=False)
    if settings.webhook_ca_file is not None:
        trusted.load_verify_locations(settings.webhook_ca_file)
    async with httpcore.AsyncConnectionPool(
        ssl_context=trusted,
        max_connections=at_once,
        max_keepalive_connections=0,  # An address is only good for as long as it was just judged.
        network_backend=JudgedAddresses(receivers),
    ) as pool:
        yield Outgoing(pool, receivers, settings.webhook_timeout_s)


@dataclass(frozen=True)
class Outgoing:
    """Sends messages. There is no code here that follows redirects, uses proxies, keeps cookies or decodes content."""

    pool: httpcore.AsyncConnectionPool
    receivers: Receivers
    timeout_s: float  # from looking the receiver up to its answer's status

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The receiver's answer, whose head came within `webhook_timeout_s`, or why none did. Raises nothing."""
        began = time.monotonic()
        try:
            return await self._exchange(url, headers, body, began)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's server does is its answer
            return Answer(seconds=time.monotonic() - began, error=self._said(error))

    async def _exchange(self, url: str, headers: Mapping[str, str], body: bytes, began: float) -> Answer:
        destination = self.receivers.parse(url)
        default_port = {"https": 443, "http": 80}[destination.scheme]
        name = f"[{destination.host}]" if ":" in destination.host else destination.host
        host = name if destination.port == default_port else f"{name}:{destination.port}"
        limits = dict.fromkeys(("read", "write", "pool"), self.timeout_s) | {"connect": min(CONNECT_S, self.timeout_s)}
        whole = httpcore.URL(
            scheme=destination.scheme.encode(),
            host=destination.host.encode(),
            port=destination.port,
            target=destination.target.encode(),
        )
        sent = {"Host": host, "Content-Length": str(len(body)), "Accept-Encoding": "identity", **headers}
        request = self.pool.stream(
            "POST",
            whole,
            headers=[(header.encode(), value.encode()) for header, value in sent.items()],
            content=body,
            extensions={"timeout": limits},
        )
        async with AsyncExitStack() as connection:
            with anyio.fail_after(self.timeout_s):
                response = await connection.enter_async_context(request)
            excerpt = await beginning_of(response)
            return Answer(
                seconds=time.monotonic() - began,
                status=response.status,
                excerpt=readable(excerpt) or None,
                retry_after_s=retry_after_s(response),
            )

    def _said(self, error: Exception) -> str:
        """The reason in words for the webhook's owner; it tells nothing of what lies at an address."""
        match error:
            case BadWebhookUrl():
                return error.detail
            case TimeoutError() | httpcore.TimeoutException():
                return f"No answer within {self.timeout_s:g} s."
            case httpcore.ConnectError() if isinstance(cause(error), ssl.SSLError):
                return f"The TLS connection failed: {cause(error)}"[:500]
            case httpcore.ConnectError():
                return "The connection was refused or could not be made."
            case _:
                return f"The answer could not be read: {type(error).__name__}."


async def beginning_of(response: httpcore.Response) -> bytes:
    """The first bytes of the body, as far as they come soon; a body that breaks off or never ends changes nothing."""
    excerpt = b""
    with anyio.move_on_after(EXCERPT_S):
        try:
            async for chunk in response.aiter_stream():
                excerpt += chunk[: EXCERPT_BYTES - len(excerpt)]
                if len(excerpt) >= EXCERPT_BYTES:
                    break
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
            pass
    return excerpt


def readable(excerpt: bytes) -> str:
    """As text that every database takes."""
    return excerpt.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def retry_after_s(response: httpcore.Response) -> float | None:
    """The seconds of `Retry-After`; its other form, a date, is not worth trusting a stranger's clock."""
    for name, value in response.headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 10:
            return float(value)
    return None


def cause(error: BaseException) -> BaseException:
    """What lies below the library's own exceptions."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return error
