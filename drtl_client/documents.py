"""The service's answers, typed. Each keeps the JSON that it was made of in `raw`: a newer service may say more."""

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from drtl_client.flow import Json


@dataclass(frozen=True)
class Document:
    """What a JSON object says: fields by name, those not known here left to `raw`, those missing as None."""

    raw: Json

    @classmethod
    def of(cls, document: Json) -> Self:
        kinds = _kinds(cls)
        known = {name: _value(kind, document.get(name)) for name, kind in kinds.items()}
        return cls(raw=document, **known)


def _kinds(kind: type[Document]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.name != "raw"}


def _value(kind: Any, value: Any) -> Any:
    """A JSON value as the type that the field is annotated with."""
    if value is None:
        return None
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _value(next(each for each in arguments if each is not types.NoneType), value)
    if origin is tuple:
        return tuple(_value(arguments[0], each) for each in value)
    if origin is dict:
        return {key: _value(arguments[1], each) for key, each in value.items()}
    if kind is datetime:
        return datetime.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, Document):
        return kind.of(value)
    return value


# Datasets


@dataclass(frozen=True)
class Pair(Document):
    """A pair and what the service saw of it. `psnr_db` is None for equal images."""

    name: str
    scale: int
    psnr_db: float | None
    verdict: str
    note: str


@dataclass(frozen=True)
class Dataset(Document):
    id: str
    created_at: datetime
    scale: int
    pairs: tuple[Pair, ...]


# Jobs


@dataclass(frozen=True)
class ModelReference(Document):
    name: str
    version: int
    reference: str


@dataclass(frozen=True)
class Failure(Document):
    """Why a job or an operation failed."""

    code: str | None
    message: str | None


@dataclass(frozen=True)
class Job(Document):
    """A few-shot training. `progress` is 0…1 over the whole job, `eta_s` seconds to go where known.

    `queue_position` is 1 for the job that is to be begun next, None for one that does not wait or comes from a list.
    """

    ENDED: ClassVar = frozenset({"succeeded", "failed", "cancelled"})

    id: str
    name: str
    dataset_id: str
    options: Json
    state: str
    phase: str | None
    progress: float
    eta_s: float | None
    queue_position: int | None
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    verdict: str | None
    explanation: str | None
    metrics: Json | None
    model: ModelReference | None
    error: Failure | None

    @property
    def ended(self) -> bool:
        return self.state in self.ENDED

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded"


@dataclass(frozen=True)
class Relation(Document):
    """The relation graph as it comes: node-link form."""

    directed: bool
    graph: Json
    nodes: tuple[Json, ...]
    links: tuple[Json, ...]

    @property
    def sentence(self) -> str:
        """What the graph says, in plain words."""
        return str(self.graph["sentence"])

    @property
    def gamma(self) -> Mapping[str, float]:
        """γ of every auxiliary distortion, the nearest first."""
        by_name = {node["id"]: node for node in self.nodes}
        return {name: by_name[name]["gamma"] for name in self.graph["ranking"]}


# Models


@dataclass(frozen=True)
class ModelVersions(Document):
    """A model: its versions, newest first, and which aliases point at them."""

    name: str
    versions: tuple[int, ...]
    aliases: dict[str, int]
    created_at: datetime


@dataclass(frozen=True)
class ModelVersion(Document):
    """One version with its card: data, γ, metrics, seed, prior, code and licence."""

    name: str
    version: int
    created_at: datetime
    job_id: str
    aliases: tuple[str, ...]
    weights_sha256: str
    card: Json


@dataclass(frozen=True)
class Alias(Document):
    name: str
    alias: str
    version: int


# Super-resolution


@dataclass(frozen=True)
class Operation(Document):
    """One image on its way through a model; `batch` and `name` where it is one of many. `progress` is 0…1."""

    ENDED: ClassVar = frozenset({"succeeded", "failed", "cancelled"})

    id: str
    batch: str | None
    name: str | None
    state: str
    model: str | None
    progress: float | None
    created_at: datetime
    finished_at: datetime | None
    result: str | None
    error: Failure | None

    @property
    def ended(self) -> bool:
        return self.state in self.ENDED


@dataclass(frozen=True)
class Batch(Document):
    """Many images on their way through a model. `progress` is 0…1, `counts` says how many images are in each state."""

    ENDED: ClassVar = frozenset({"succeeded", "failed", "cancelled"})

    id: str
    state: str
    model: str
    progress: float
    counts: dict[str, int]
    created_at: datetime
    finished_at: datetime | None
    result: str | None

    @property
    def ended(self) -> bool:
        return self.state in self.ENDED


# Webhooks


@dataclass(frozen=True)
class Webhook(Document):
    """An address that hears of jobs. `secret` is None but where it has just been made or rotated."""

    id: str
    url: str
    events: tuple[str, ...]
    description: str
    enabled: bool
    disabled_reason: str | None
    created_at: datetime
    failing_since: datetime | None
    previous_secret_until: datetime | None
    secret: str | None


@dataclass(frozen=True)
class Attempt(Document):
    """A request to the receiver: its status, or the error that stood in the way."""

    number: int
    created_at: datetime
    seconds: float
    status: int | None
    error: str | None
    excerpt: str | None


@dataclass(frozen=True)
class Delivery(Document):
    """A message to a webhook: `pending`, `delivered`, or `failed` once it has been given up."""

    id: str
    webhook_id: str
    event: str
    job_id: str | None
    state: str
    created_at: datetime
    next_attempt_at: datetime | None
    message: Json
    attempts: tuple[Attempt, ...]
