"""What happens to a job, as typed events, and the server-sent form in which they come."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from drtl_client.flow import Json


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; of a kind that this version does not know where it is of no class below."""

    kind: ClassVar[str] = ""
    last: ClassVar[bool] = False  # Whether the job has ended with it.

    id: int
    job_id: str
    created_at: datetime
    raw: Json

    @property
    def payload(self) -> Json:
        payload: Json = self.raw["payload"]
        return payload

    @staticmethod
    def of(document: Json) -> "Event":
        kind = BY_KIND.get(document["kind"], Event)
        created_at = datetime.fromisoformat(document["created_at"])
        return kind(document["id"], document["job_id"], created_at, document)


class Started(Event):
    """A worker has begun, or taken the job up again."""

    kind = "started"

    @property
    def attempt(self) -> int:
        return int(self.payload["attempt"])


class Progress(Event):
    """How far the job is. What a phase measures (steps, losses, PSNR) is in `payload`."""

    kind = "progress"

    @property
    def phase(self) -> str:
        return str(self.payload["phase"])

    @property
    def progress(self) -> float:
        """0…1 over the whole job."""
        return float(self.payload["progress"])

    @property
    def eta_s(self) -> float | None:
        """Seconds to go, where known."""
        eta_s: float | None = self.payload.get("eta_s")
        return eta_s


class GraphReady(Event):
    """The relation graph can be fetched."""

    kind = "graph"


class Requeued(Event):
    """The job waits for a worker again."""

    kind = "requeued"

    @property
    def reason(self) -> str:
        return str(self.payload["reason"])


class Cancelling(Event):
    kind = "cancelling"


class Succeeded(Event):
    kind = "succeeded"
    last = True

    @property
    def verdict(self) -> str:
        return str(self.payload["verdict"])

    @property
    def model(self) -> str:
        """`name@version`"""
        return f"{self.payload['model']}@{self.payload['version']}"


class Failed(Event):
    kind = "failed"
    last = True

    @property
    def code(self) -> str:
        return str(self.payload["code"])

    @property
    def message(self) -> str:
        return str(self.payload["message"])


class Cancelled(Event):
    kind = "cancelled"
    last = True


BY_KIND = {
    kind.kind: kind for kind in (Started, Progress, GraphReady, Requeued, Cancelling, Succeeded, Failed, Cancelled)
}


class EventStream:
    """Server-sent events (HTML standard, 9.2.6) out of bytes that come in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Any]:
        """The JSON documents of the events that the chunk completes. Ids and kinds are in the documents as well."""
        *lines, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        found = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" ").decode())
            elif not line and self._data:
                found.append(json.loads("\n".join(self._data)))
                self._data = []
        return found
