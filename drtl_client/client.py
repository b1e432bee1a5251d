"""The clients: one that blocks, one that awaits."""

import json
import os
import re
from pathlib import Path
from typing import Any, Final, Self

import httpx

from drtl_client.batches import AsyncBatches, Batches
from drtl_client.datasets import AsyncDatasets, Datasets
from drtl_client.errors import BadAddress, BadKey, DRTLError, NoService
from drtl_client.flow import Flow, Request, send
from drtl_client.jobs import AsyncJobs, Jobs
from drtl_client.models import AsyncModels, Models
from drtl_client.operations import AsyncOperations, Operations
from drtl_client.transports import AsyncTransport, Transport
from drtl_client.webhooks import AsyncWebhooks, Webhooks

CONNECT_S: Final = 5.0


def find_service(url: str | None = None) -> str:
    """Where the service is: as told, or else `DRTL_URL`, or else the one that `drtl up` runs on this machine.

    Raises NoService, BadAddress.
    """
    if url := url or os.environ.get("DRTL_URL"):
        return _address(url)
    announced = Path(os.environ.get("DRTL_DATA_DIR") or Path.home() / ".drtl") / "service.json"
    try:
        return str(json.loads(announced.read_text())["url"]).rstrip("/")
    except FileNotFoundError:
        raise NoService("no service runs on this machine") from None


def _address(given: str) -> str:
    try:
        url = httpx.URL(given)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise BadAddress(f"{given!r} is no address of a service; one is such as http://127.0.0.1:8000")
    return given.rstrip("/")


def _connection(url: str | None, key: str | None, timeout_s: float) -> dict[str, Any]:
    key = key or os.environ.get("DRTL_KEY")
    if key and (strange := re.search(r"[^!-~]", key)):  # httpx's own complaint shows all of it.
        raise BadKey(f"the key holds {strange[0]!r}, and keys are of letters, digits, - and _ alone")
    return {
        "base_url": find_service(url),
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": httpx.Timeout(timeout_s, connect=CONNECT_S),
    }


def _ready() -> Flow[bool]:
    try:
        yield from send(Request("GET", "/readyz"))
    except DRTLError:
        return False
    return True


class Client:
    """One service, for callers that block. Every call raises DRTLError and what is below it.

    `url` and `key` are taken from `DRTL_URL` and `DRTL_KEY` where they are not given; without either, `url` is that of
    the service that `drtl up` runs on this machine. A request that meets a service too busy or on its way up is
    sent again up to `retries` times. `timeout_s` bounds every wait for bytes. `http` is an httpx client of one's own.
    Making one raises NoService, BadAddress and BadKey.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 4,
        http: httpx.Client | None = None,
    ) -> None:
        self.http = http or httpx.Client(**_connection(url, key, timeout_s))
        self._transport = Transport(self.http, retries)
        self.datasets = Datasets(self._transport)
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)
        self.operations = Operations(self._transport)
        self.batches = Batches(self._transport)
        self.webhooks = Webhooks(self._transport)

    @property
    def url(self) -> str:
        return str(self.http.base_url).rstrip("/")

    def ready(self) -> bool:
        """Whether database, broker and storage answer."""
        return self._transport.run(_ready())

    def close(self) -> None:
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The same for callers that await, under asyncio or trio. Methods return awaitables or asynchronous iterators."""

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 4,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self.http = http or httpx.AsyncClient(**_connection(url, key, timeout_s))
        self._transport = AsyncTransport(self.http, retries)
        self.datasets = AsyncDatasets(self._transport)
        self.jobs = AsyncJobs(self._transport)
        self.models = AsyncModels(self._transport)
        self.operations = AsyncOperations(self._transport)
        self.batches = AsyncBatches(self._transport)
        self.webhooks = AsyncWebhooks(self._transport)

    @property
    def url(self) -> str:
        return str(self.http.base_url).rstrip("/")

    async def ready(self) -> bool:
        """Whether database, broker and storage answer."""
        return await self._transport.run(_ready())

    async def aclose(self) -> None:
        await self.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
