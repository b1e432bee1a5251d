"""`Idempotency-Key`: the same key and the same request make one job, batch or image, however often it is sent."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.api.uploads import UploadedFile
from app.core import repository
from app.core.errors import RequestInFlight
from app.core.repository import KeyClaim

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Any string that is new for every request. Sending that again returns what the first one made.",
        examples=["7b0c9f6e-upload-of-monday"],
    ),
]


def fingerprint(options: BaseModel, files: Sequence[UploadedFile], *others: object) -> str:
    """Equal for requests that ask for the same, whatever the boundary between the parts of their bodies.

    `others` is what is asked for elsewhere than in the options, as in the path.
    """
    asked = [options.model_dump(mode="json"), [(file.field, file.name, file.sha256) for file in files], *others]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def begin(session: Session, key: str, fingerprint: str, in_flight_s: float) -> KeyClaim:
    """Claim the key and commit; where an equal request has made something, the claim says what.

    Raises RequestInFlight or IdempotencyMismatch.
    """
    try:
        claim = repository.begin_idempotent(session, key, fingerprint, in_flight_s)
        session.commit()
    except IntegrityError:  # A request of the same moment was first.
        session.rollback()
        raise RequestInFlight("Another request with this key has just begun.", retry_after_s=1) from None
    return claim


@contextmanager
def forgotten_on_failure(session: Session, claim: KeyClaim | None) -> Iterator[None]:
    """Give the key back when the request is refused, so that a mended one may use it."""
    try:
        yield
    except BaseException:
        session.rollback()
        if claim is not None:
            repository.finish_idempotent(session, claim, None)
            session.commit()
        raise
