"""What every schema shares: ids, names, pages, and two bases."""

from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from app.api import examples

T = TypeVar("T")

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
REFERENCE_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}(@([a-z][a-z0-9._-]{0,62}|[1-9][0-9]{0,8}))?$"
PATTERNS_IN_WORDS = {
    NAME_PATTERN: "a name has lower-case letters, digits, '.', '_' and '-', begins with a letter or a digit, and is at "
    "most 63 characters long",
    REFERENCE_PATTERN: "a model is named as its name, `name@version` or `name@alias`, all in lower case",
}
RESERVED_NAME = "auto"  # Where a model is asked for, it leaves the choice to the service.
LARGEST_INTEGER = 2**31 - 1  # What every database can compare.
LARGEST_EVENT = 2**63 - 1  # Events are numbered for as long as a service lives.
JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]

DatasetId = Annotated[str, Field(pattern=r"^ds_[0-9a-f]{1,36}$", examples=[examples.DATASET["id"]])]
JobIdPath = Annotated[str, Path(pattern=r"^job_[0-9a-f]{1,36}$", examples=[examples.JOB["id"]])]
BatchIdPath = Annotated[str, Path(pattern=r"^batch_[0-9a-f]{1,34}$", examples=[examples.BATCH["id"]])]
OperationIdPath = Annotated[str, Path(pattern=r"^op_[0-9a-f]{1,36}$", examples=[examples.OPERATION["id"]])]
ModelNamePath = Annotated[str, Path(pattern=NAME_PATTERN, examples=["scanner"])]


class Wire(BaseModel):
    """Refuses what it does not know: a misspelt option must not be ignored."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, protected_namespaces=())


class Reported(BaseModel):
    """Written by the method, which may say more than is promised here."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Page(BaseModel, Generic[T]):
    """A page of a list; where `next` is not null, pass it as `after` to get the following page."""

    items: list[T]
    next: str | None = None


def digits_as_number(value: object) -> object:
    """Form fields are strings, which a literal number does not take."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value


class JobError(BaseModel):
    code: str | None
    message: str | None
