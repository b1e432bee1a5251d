"""Whether a failure means that a disk is full, whoever met it: the operating system, SQLite or PostgreSQL."""

import errno
import os
import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_SPACE: Final = os.strerror(errno.ENOSPC)
POSTGRESQL_DISK_FULL: Final = "53100"


def is_disk_full(error: BaseException) -> bool:
    """Also where the failure was met on the way to another."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DBAPIError) and seen.orig is not None and _database_is_full(seen.orig):
            return True
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if NO_SPACE in str(seen):  # safetensors and libvips tell what the system said in words only.
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _database_is_full(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return getattr(error, "sqlstate", None) == POSTGRESQL_DISK_FULL
