"""Idempotency keys: which requests have begun, and what each has made; nothing here commits."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from app.core.errors import IdempotencyMismatch, RequestInFlight
from app.core.owners import view_of
from app.core.tables import IdempotencyKey, utc_ago


@dataclass(frozen=True)
class KeyClaim:
    """A request's hold on an Idempotency-Key: since when, and what an equal request has made before."""

    key: str
    since: datetime
    made_id: str | None = None


def begin(session: Session, key: str, fingerprint: str, in_flight_s: float) -> KeyClaim:
    """Note that a keyed request has begun, or return what it made before.

    Raises RequestInFlight while the first is unanswered, IdempotencyMismatch where the body differs. The unique
    key makes a second, simultaneous insert fail with IntegrityError at the flush; callers treat it as in flight.
    A key unanswered for `in_flight_s` seconds was left by a process that died, and is taken over.
    """
    own = (IdempotencyKey.owner == view_of(session).owner, IdempotencyKey.key == key)
    known = session.scalar(select(IdempotencyKey).where(*own).with_for_update())
    if known is None:
        known = IdempotencyKey(key=key, fingerprint=fingerprint, created_at=utc_ago())
        session.add(known)
        session.flush()
        return KeyClaim(key, known.created_at)
    if known.fingerprint != fingerprint:
        raise IdempotencyMismatch("The key was used with a different request.", pointer="Idempotency-Key")
    if known.made_id is None:
        fresh = select(IdempotencyKey.id).where(*own, IdempotencyKey.created_at > utc_ago(in_flight_s))
        if session.scalar(fresh) is not None:
            raise RequestInFlight("The first request with this key has not been answered yet.", retry_after_s=1)
        known.created_at = utc_ago()
        session.flush()
    return KeyClaim(key, known.created_at, known.made_id)


def finish(session: Session, claim: KeyClaim, made_id: str | None) -> None:
    """Attach the answer to the key, or forget the key after a refusal so that a mended request may use it.

    Raises RequestInFlight where another request has taken the key over: what this one has made must not be committed.
    """
    own = (IdempotencyKey.owner == view_of(session).owner, IdempotencyKey.key == claim.key)
    held = (*own, IdempotencyKey.made_id.is_(None), IdempotencyKey.created_at == claim.since)
    if made_id is None:
        session.execute(delete(IdempotencyKey).where(*held))
        return
    answered = session.execute(update(IdempotencyKey).where(*held).values(made_id=made_id))
    assert isinstance(answered, CursorResult)
    if not answered.rowcount:
        raise RequestInFlight("Another request with this key has taken this one's place.", retry_after_s=1)
