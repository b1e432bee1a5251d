"""What both storages promise of their blobs: stored whole or not at all, and read at any place."""

import hashlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.core.object_storage import PART_BYTES, READ_BYTES
from app.core.settings import Settings
from app.core.storages import open_storage
from tests.app.storage.places import Place
from tests.s3_server import S3Server

ABSENT = "0" * 64


class OneWay(io.RawIOBase):
    """A stream that can be read once, a few bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed wants any Buffer
        return self._rest.readinto(memoryview(buffer)[:70_001])


class Breaking(io.BytesIO):
    """A file on a disk that fails, once it is read for the second time, after so many bytes."""

    def __init__(self, content: bytes, fails_at: int) -> None:
        super().__init__(content)
        self.fails_at = fails_at

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= self.fails_at:
            raise OSError("the disk is broken")
        return super().read(size)


# Whole or not at all


def test_a_blob_is_read_back_under_the_hash_of_its_content(place: Place) -> None:
    for content in (b"", b"one", os.urandom(READ_BYTES + 17), os.urandom(2 * PART_BYTES + 3)):
        key = place.put(content)
        assert key == hashlib.sha256(content).hexdigest()
        assert place.read(key) == content
        place.storage.make_durable(key)


def test_what_is_left_of_a_stream_is_stored(place: Place) -> None:
    stream = io.BytesIO(b"header and content")
    stream.seek(11)
    assert place.read(place.storage.put(stream)) == b"content"


@pytest.mark.parametrize("size", [5, 2 * PART_BYTES + 3])
def test_a_stream_that_can_be_read_only_once_is_stored_whole(place: Place, size: int) -> None:
    content = os.urandom(size)
    assert place.read(place.storage.put(io.BufferedReader(OneWay(content)))) == content


def test_an_absent_blob_is_not_found(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        place.storage.open(ABSENT)
    with pytest.raises(FileNotFoundError):
        place.storage.make_durable(ABSENT)
    place.storage.delete(ABSENT)


def test_a_deleted_blob_is_gone_however_often_it_was_stored(place: Place) -> None:
    key = place.put(b"short-lived")
    assert place.put(b"short-lived") == key
    place.storage.delete(key)
    assert place.kept() == set()
    with pytest.raises(FileNotFoundError):
        place.storage.open(key)


def test_of_a_stream_that_breaks_nothing_is_left(place: Place) -> None:
    content = os.urandom(2 * PART_BYTES)
    with pytest.raises(OSError, match="the disk is broken"):
        place.storage.put(Breaking(content, fails_at=PART_BYTES))
    assert place.kept() == set()
    assert place.parts() == 0


def test_an_upload_of_a_file_that_changes_meanwhile_is_given_up(bucket: Place) -> None:
    class Changing(io.BytesIO):
        """A file whose last bytes change after it was read for the first time."""

        def seek(self, offset: int, whence: int = 0) -> int:
            self.getbuffer()[-1] ^= 1
            return super().seek(offset, whence)

    for size in (10, 2 * PART_BYTES):
        with pytest.raises(OSError, match="changed while it was stored"):
            bucket.storage.put(Changing(os.urandom(size)))
    assert bucket.kept() == set()
    assert bucket.parts() == 0


# Reading


@hypothesis_settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.tuples(st.integers(0, 2), st.integers(-100, 3 * READ_BYTES), st.integers(0, 200_000))))
def test_an_open_blob_is_a_file_that_can_be_read_at_any_place(place: Place, moves: list[tuple[int, int, int]]) -> None:
    content = bytes(range(251)) * (2 * READ_BYTES // 251 + 99)
    key = hashlib.sha256(content).hexdigest()
    if key not in place.kept():
        place.put(content)
    reference = io.BytesIO(content)
    with place.storage.open(key) as file:
        for whence, offset, size in moves:
            there = {0: 0, 1: reference.tell(), 2: len(content)}[whence] + offset
            if there >= 0:
                assert file.seek(there) == reference.seek(there)
            assert file.read(size) == reference.read(size)
            assert file.tell() == reference.tell()
        assert file.seek(0, io.SEEK_END) == len(content)


def test_many_threads_read_and_write_at_the_same_time(place: Place) -> None:
    failed: list[Exception] = []

    def work(number: int) -> None:
        try:
            for round_ in range(5):
                content = bytes([number, round_]) * 5_000
                assert place.read(place.put(content)) == content
        except Exception as error:  # noqa: BLE001 - it is looked at below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(place.kept()) == 40


MEMORY = """
import io, resource, sys
from pathlib import Path
from app.core.settings import Settings
from app.core.storages import open_storage

def peak_mib():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024

storage = open_storage(Settings(data_dir=Path(sys.argv[1]), blob_url=sys.argv[2]))
with storage.open(storage.put(io.BytesIO(b"warm"))) as file:
    file.read()
before = peak_mib()
with open(sys.argv[3], "rb") as file:
    key = storage.put(file)
size = 0
with storage.open(key) as file:
    while chunk := file.read(1 << 20):
        size += len(chunk)
print(size, peak_mib() - before)
"""


def test_memory_does_not_grow_with_the_blob(place: Place, tmp_path: Path) -> None:
    big, size = tmp_path / "big", 96 * 2**20
    with big.open("wb") as file:
        file.truncate(size)
    command = [sys.executable, "-c", MEMORY, str(tmp_path), place.url, str(big)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(said[0]) == size
    assert float(said[1]) < 48, f"{said[1]} MiB"  # benchmarks/storage.py has it for larger ones.
    place.storage.delete(next(iter(place.kept())))


# Settings


@pytest.mark.parametrize("url", ["s3://", "s3://UPPER", "http://bucket", "s3://key:secret@bucket/p", "s3://b/p?x=1"])
def test_what_names_no_bucket_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="blob_url"):
        Settings(data_dir=tmp_path, blob_url=url)


def test_prefixes_keep_installations_apart(s3: S3Server, bucket: Place, tmp_path: Path) -> None:
    key = bucket.put(b"mine")
    other = open_storage(Settings(data_dir=tmp_path, blob_url=f"{bucket.url}/below/"))
    assert list(other.inventory()) == []
    other.put(io.BytesIO(b"other"))
    assert bucket.kept() == {key}
    bucket.make_old()
    bucket.storage.sweep({key}, grace_s=60.0)
    assert len(list(other.inventory())) == 1
