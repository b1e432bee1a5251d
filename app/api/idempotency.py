"""`Idempotency-Key`: the same key and the same request make one job, batch or image, however often it is sent."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Header
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.api.uploads import UploadedFile
from app.core import idempotency
from app.core.errors import RequestInFlight
from app.core.idempotency import KeyClaim
from app.core.tables import Batch, Job, Operation

Made = TypeVar("Made", Job, Batch, Operation)
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


def once(
    session: Session,
    key: str | None,
    asked: str,
    in_flight_s: float,
    find: Callable[[Session, str], Made],
    make: Callable[[], Made],
) -> tuple[Made, bool]:
    """What `make` adds to the session, committed, or what an equal request with this key made before, and which it is.

    `asked` is the request's fingerprint; without a key everything is made. Where `make` refuses, the key is free again,
    so that a mended request may use it. Raises RequestInFlight, IdempotencyMismatch, and what `make` and `find` raise.
    """
    claim = _begin(session, key, asked, in_flight_s) if key is not None else None
    if claim is not None and claim.made_id is not None:
        return find(session, claim.made_id), True
    try:
        made = make()
        session.flush()
        if claim is not None:
            idempotency.finish(session, claim, made.id)
        session.commit()
    except BaseException:
        session.rollback()
        if claim is not None:
            idempotency.finish(session, claim, None)
            session.commit()
        raise
    return made, False


def _begin(session: Session, key: str, asked: str, in_flight_s: float) -> KeyClaim:
    """Claim the key and commit."""
    try:
        claim = idempotency.begin(session, key, asked, in_flight_s)
        session.commit()
    except IntegrityError:  # A request of the same moment was first.
        session.rollback()
        raise RequestInFlight("Another request with this key has just begun.", retry_after_s=1) from None
    return claim
