"""API keys: making, finding, listing and revoking them. None of the queries commits.

A token is `drtl_<id>_<secret>`. The id is public and finds the row; of the secret only the SHA-256 is kept. It has 256
random bits, so nobody can guess it, and a slow password hash would add time to every request and no safety.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self, get_args

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.core.settings import Settings
from app.core.shares import Priority
from app.core.tables import ApiKey, utc_now

Scope = Literal["read", "train", "infer", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
TOKEN: Final = re.compile(r"drtl_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
OWNER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NOTED_EVERY: Final = timedelta(minutes=1)  # Reads must stay reads, so that a use is noted no more often.


@dataclass(frozen=True)
class Limits:
    """What a key may use; a number of 0 means as much as it likes."""

    requests_per_minute: int
    unfinished_jobs: int
    pairs: int  # in a dataset
    megapixels_per_day: int  # sent in to be restored
    stored_bytes: int  # of uploaded files
    priority: Priority  # the highest of a job

    @classmethod
    def of(cls, key: ApiKey, settings: Settings) -> Self:
        """The key's own limits, and the settings' where it has none."""
        defaults = cls(
            requests_per_minute=settings.key_requests_per_minute,
            unfinished_jobs=settings.key_unfinished_jobs,
            pairs=settings.key_pairs,
            megapixels_per_day=settings.key_megapixels_per_day,
            stored_bytes=settings.key_stored_bytes,
            priority=settings.key_priority,
        )
        known = key.limits.keys() & asdict(defaults).keys()  # A newer release may have others.
        return replace(defaults, **{name: key.limits[name] for name in known})


def create(
    session: Session,
    name: str,
    scopes: Sequence[str],
    *,
    owner: str | None = None,
    expires_at: datetime | None = None,
    limits: dict[str, Any] | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its token, which nothing can tell again. Keys of one owner see the same things.

    Raises ValueError for a name, a scope or an owner that cannot be.
    """
    owner = name if owner is None else owner
    for what, value in (("name", name), ("owner", owner)):
        if not OWNER.fullmatch(value):
            raise ValueError(f"{what}: {value!r} must be 1 to 64 letters, digits, dots, dashes and underscores")
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise ValueError(f"scopes: {', '.join(unknown)} is none of {', '.join(SCOPES)}")
    if not scopes:
        raise ValueError("scopes: a key needs at least one")
    key = ApiKey(
        id=secrets.token_hex(6),
        name=name,
        owner=owner,
        scopes=[scope for scope in SCOPES if scope in scopes],
        limits=limits or {},
        expires_at=expires_at,
    )
    secret = secrets.token_urlsafe(32)
    key.secret_sha256 = digest(secret)
    session.add(key)
    session.flush()
    return key, f"drtl_{key.id}_{secret}"


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def find(session: Session, token: str) -> ApiKey | None:
    """The usable key that the token opens, None for every other token. Takes no longer for a nearly right one."""
    if (parts := TOKEN.fullmatch(token)) is None:
        return None
    key = session.get(ApiKey, parts[1])
    known = "0" * 64 if key is None else key.secret_sha256
    right = hmac.compare_digest(digest(parts[2]), known)
    return key if key is not None and right and is_usable(key) else None


def is_usable(key: ApiKey) -> bool:
    """Neither revoked nor expired."""
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > utc_now())


def any_exists(session: Session) -> bool:
    """Whether there has ever been a key. One that was revoked counts: taking a key away must not open the service."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def list_keys(session: Session) -> Sequence[ApiKey]:
    """All keys, oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()


def revoke(session: Session, key_id: str) -> ApiKey:
    """Make the key useless from now on. Raises NotFound; a second time changes nothing."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"There is no key {key_id}.")
    if key.revoked_at is None:
        key.revoked_at = utc_now()
    return key


def note_use(session: Session, key_id: str) -> None:
    """Remember that the key was used, unless that was noted within the last minute."""
    now = utc_now()
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - NOTED_EVERY)
    session.execute(update(ApiKey).where(ApiKey.id == key_id, stale).values(last_used_at=now))
