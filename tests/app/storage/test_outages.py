"""A server that is away, hangs, dies or refuses."""

import hashlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.object_storage import PART_BYTES, ObjectStorage
from app.core.storage import StorageDown
from tests.app.storage.places import Place
from tests.s3_server import BUCKET, S3Server


@pytest.fixture
def own_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that the test may kill."""
    with S3Server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_server_that_is_away_is_said_to_be_and_may_come_back(own_s3: S3Server) -> None:
    storage = ObjectStorage(BUCKET)
    key = storage.put(io.BytesIO(b"kept"))
    storage.check()
    own_s3.kill()
    calls = (
        storage.check,
        lambda: storage.put(io.BytesIO(b"more")),
        lambda: storage.open(key),
        lambda: storage.delete(key),
        lambda: storage.sweep(set(), 0.0),
        lambda: list(storage.inventory()),
        lambda: storage.make_durable(key),
    )
    for call in calls:
        with pytest.raises(StorageDown, match="Could not connect"):
            call()
    own_s3.start()
    storage.check()
    with storage.open(key) as file:
        assert file.read() == b"kept"


def test_a_server_that_hangs_is_noticed_in_seconds(own_s3: S3Server) -> None:
    storage = ObjectStorage(BUCKET)
    own_s3.hang()
    began = time.monotonic()
    with pytest.raises(StorageDown, match="timeout"):
        storage.check()
    assert time.monotonic() - began < 12
    own_s3.go_on()


def test_a_server_killed_in_the_middle_of_an_upload_leaves_nothing_half_stored(own_s3: S3Server) -> None:
    class Watched(io.BytesIO):
        """Has the server killed once it is read for the second time, some parts in."""

        killed = False
        passes = 0

        def seek(self, offset: int, whence: int = 0) -> int:
            self.passes += 1
            return super().seek(offset, whence)

        def read(self, size: int | None = -1) -> bytes:
            if self.passes == 1 and self.tell() >= 3 * PART_BYTES and not self.killed:
                self.killed = True
                own_s3.kill()
            return super().read(size)

    content = os.urandom(5 * PART_BYTES)
    storage = ObjectStorage(BUCKET)
    with pytest.raises(StorageDown):
        storage.put(Watched(content))
    own_s3.start()
    with pytest.raises(FileNotFoundError):
        storage.open(hashlib.sha256(content).hexdigest())
    assert list(storage.inventory()) == []
    with storage.open(storage.put(io.BytesIO(content))) as file:
        assert file.read() == content


def test_a_refusal_is_no_loss_and_tells_no_secret(s3: S3Server, bucket: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    key = bucket.put(b"kept")
    prefix = bucket.url.removeprefix(f"s3://{BUCKET}/")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    with pytest.raises(StorageDown, match="SignatureDoesNotMatch") as refused:
        ObjectStorage(BUCKET, prefix).open(key)
    assert "another-secret" not in str(refused.value)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageDown, match="NoSuchBucket"):
        ObjectStorage("no-such-bucket").open(key)
