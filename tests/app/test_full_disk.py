"""A full disk is known as such, whoever meets it."""

import errno
import io
import os
import sqlite3
import zipfile
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from safetensors import SafetensorError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from app.api import archives
from app.core.full_disk import is_disk_full
from tests.app.conftest import problem
from tests.app.material import encoded, pixels


def test_the_operating_system_says_so() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        Path("/dev/full").write_bytes(b"x")
    assert is_disk_full(caught.value)
    assert is_disk_full(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)))
    assert not is_disk_full(OSError(errno.EIO, os.strerror(errno.EIO)))


def test_it_is_not_taken_for_a_damaged_zip(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a good one is laid out on it."""

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archives, "_extract", full)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for side in ("clean", "distorted"):
            archive.writestr(f"{side}/a.png", encoded(pixels()))
    answer = client.post("/v1/datasets", content=packed.getvalue(), headers={"Content-Type": "application/zip"})
    problem(answer, 507, "storage-full")


def test_sqlite_says_so(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'small.sqlite3'}")
    with engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count = 3"))
        with pytest.raises(OperationalError) as caught:
            connection.execute(text("CREATE TABLE large AS SELECT zeroblob(100000) AS much"))
    engine.dispose()
    assert isinstance(caught.value.orig, sqlite3.OperationalError)
    assert is_disk_full(caught.value)


def test_postgresql_says_so(postgres_database: str) -> None:
    engine = create_engine(postgres_database)
    raising = "DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$"
    with pytest.raises(OperationalError) as caught, engine.begin() as connection:
        connection.execute(text(raising))
    engine.dispose()
    assert is_disk_full(caught.value)


def test_it_is_seen_below_what_it_led_to() -> None:
    outer = RuntimeError("the model could not be written")
    outer.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert is_disk_full(outer)


@pytest.mark.parametrize("error", [ValueError("full"), OperationalError("", {}, sqlite3.OperationalError("locked"))])
def test_other_failures_are_no_full_disk(error: Exception) -> None:
    assert not is_disk_full(error)


def test_safetensors_says_it_in_words(tmp_path: Path) -> None:
    assert is_disk_full(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not is_disk_full(SafetensorError("Error while deserializing header"))
