"""The api alone, as a process of its own: on a new database, with blobs and a broker, without workers."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from app.core.settings import Settings
from app.embedded import free_port
from migrations import migrate
from tests.servers import ending, eventually, start


@dataclass(frozen=True)
class RunningApi:
    """A process that serves, and what it was told."""

    url: str
    settings: Settings
    process: psutil.Process
    log_path: Path

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def resident_mib(self) -> float:
        """Of the process, and of those in which it examines images."""
        family = [self.process, *self.process.children(recursive=True)]
        return float(sum(each.memory_info().rss for each in family)) / 2**20


@contextmanager
def api(folder: Path, broker_url: str, database_url: str = "", **environment: str) -> Iterator[RunningApi]:
    """Start one that is ready to answer; it stops on leaving."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(data_dir=folder, broker_url=broker_url, database_url=database_url)
    migrate(settings.database_url)
    port = free_port()
    told = {
        "DRTL_DATA_DIR": str(folder),
        "DRTL_BROKER_URL": broker_url,
        "DRTL_DATABASE_URL": settings.database_url,
        "DRTL_WAIT_S": "0.3",  # Nobody restores anything here.
    }
    command = [sys.executable, "-m", "app.server", "--port", str(port), "--stop-within", "1"]
    log_path = folder / "api.log"
    with log_path.open("wb") as log:
        process = start(command, env=os.environ | told | environment, stdout=log, stderr=log)
    running = RunningApi(f"http://127.0.0.1:{port}", settings, psutil.Process(process.pid), log_path)
    with ending(process):

        def ready() -> bool:
            assert process.poll() is None, running.log()
            try:
                return httpx.get(f"{running.url}/readyz").is_success
            except httpx.TransportError:
                return False

        eventually(ready, timeout_s=90, what="the api")
        yield running
