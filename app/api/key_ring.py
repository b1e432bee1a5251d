"""The keys that this process has just seen, so that most requests are authenticated without the database."""

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from app.core import keys
from app.core.owners import Sessions
from app.core.tables import ApiKey, utc_now

log = logging.getLogger(__name__)

REMEMBERED_S: Final = 1.0  # A revoked key may be used for this long.
MOST: Final = 10_000
TICKET_S: Final = 3600
# As `_ticket` makes it. Strangers write what they like, such as numbers that are too long to be read.
TICKET: Final = re.compile(r"(?P<key_id>[0-9a-f]{12})\.(?P<until>[0-9]{1,12})\.[0-9a-f]{64}")


class KeyRing:
    """Finds the key behind what a client presents, and notes its use beside the request."""

    def __init__(self, read_sessions: Sessions, sessions: Sessions) -> None:
        self._read_sessions = read_sessions
        self._sessions = sessions
        self._keys: dict[bytes, tuple[float, ApiKey]] = {}  # By the hash of what was presented.
        self._locked: tuple[float, bool] = (0.0, False)
        self._notes = ThreadPoolExecutor(1, thread_name_prefix="key-use")

    def remembered(self, presented: str) -> ApiKey | None:
        """The usable key if it was looked up a moment ago. Asks nobody."""
        until, key = self._keys.get(_hash(presented), (0.0, None))
        return key if key is not None and time.monotonic() < until and keys.is_usable(key) else None

    def key_of_token(self, token: str) -> ApiKey | None:
        """Look the token up in the database; None where it opens nothing."""
        with self._read_sessions() as session:
            return self._remember(token, keys.find(session, token))

    def key_of_ticket(self, ticket: str) -> ApiKey | None:
        """As `key_of_token`, for what `issue_ticket` made."""
        claim = TICKET.fullmatch(ticket)
        if claim is None or (until := int(claim["until"])) < time.time():
            return None
        with self._read_sessions() as session:
            key = session.get(ApiKey, claim["key_id"])
        if key is None or not hmac.compare_digest(ticket.encode(), _ticket(key, until).encode()):
            return None
        return self._remember(ticket, key if keys.is_usable(key) else None)

    def is_locked(self) -> bool | None:
        """Whether there are keys, so that everybody needs one; None where that has to be looked up."""
        until, locked = self._locked
        return locked if time.monotonic() < until else None

    def look_whether_locked(self) -> bool:
        with self._read_sessions() as session:
            locked = keys.any_exists(session)
        self._locked = time.monotonic() + REMEMBERED_S, locked
        return locked

    def _remember(self, presented: str, key: ApiKey | None) -> ApiKey | None:
        if key is None:
            return None  # Guesses must not fill the memory.
        if len(self._keys) >= MOST:
            self._keys.clear()
        self._keys[_hash(presented)] = time.monotonic() + REMEMBERED_S, key
        if key.last_used_at is None or key.last_used_at < utc_now() - keys.NOTED_EVERY:
            self._notes.submit(self._note_use, key.id)  # A busy database must not hold the request up.
        return key

    def _note_use(self, key_id: str) -> None:
        try:
            with self._sessions.begin() as session:
                keys.note_use(session, key_id)
        except SQLAlchemyError as error:
            log.warning("the use of key %s was not noted: %s", key_id, error)

    def close(self) -> None:
        self._notes.shutdown()


def issue_ticket(key: ApiKey, now: Callable[[], float] = time.time) -> str:
    """What a browser may show instead of the key for `TICKET_S` seconds, where it cannot send headers.

    Signed with the key's hash: it dies with the key, every process can check it, and it tells nothing of the key.
    """
    return _ticket(key, int(now()) + TICKET_S)


def _ticket(key: ApiKey, until: int) -> str:
    claim = f"{key.id}.{until}"
    return f"{claim}.{hmac.digest(key.secret_sha256.encode(), f'ticket.{claim}'.encode(), 'sha256').hex()}"


def _hash(presented: str) -> bytes:
    return hashlib.sha256(presented.encode()).digest()
