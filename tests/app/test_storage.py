"""What both storages promise: the same tests on a folder and on a bucket of a real S3 server."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.cli import app as cli
from app.commands.blobs import copy_missing
from app.core.folder_storage import FolderStorage
from app.core.object_storage import PART_BYTES, READ_BYTES, ObjectStorage
from app.core.settings import Settings
from app.core.storage import Storage, StorageDown, StoredFile
from app.core.storages import open_storage
from tests.s3_server import BUCKET, S3Server
from tests.servers import eventually

DAY_S = 86_400.0
ABSENT = "0" * 64


@dataclass
class Place:
    """A storage, and the files in which it keeps its blobs."""

    storage: Storage
    files: Path
    url: str

    def put(self, content: bytes) -> str:
        return self.storage.put(io.BytesIO(content))

    def read(self, key: str) -> bytes:
        with self.storage.open(key) as file:
            return file.read()

    def make_old(self, age_s: float = DAY_S) -> None:
        """Let everything that is there now be that old."""
        then = time.time() - age_s
        for path in self.files.rglob("*"):
            if path.is_file():
                os.utime(path, (then, then))
        time.sleep(0.05)  # The server remembers for a moment how old they were.

    def kept(self) -> set[str]:
        return {file.key for file in self.storage.inventory() if file.key is not None}

    def parts(self) -> int:
        return sum(file.key is None for file in self.storage.inventory())


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def bucket(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A prefix of the test's own in the bucket."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    return Place(open_storage(Settings(data_dir=tmp_path, blob_url=url)), s3.bucket / tmp_path.name, url)


@pytest.fixture
def folder(tmp_path: Path) -> Place:
    return Place(open_storage(Settings(data_dir=tmp_path)), tmp_path / "blobs", "")


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


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


# Sweeping


def test_only_what_is_old_and_unwanted_is_swept(place: Place) -> None:
    wanted, unwanted = place.put(b"wanted"), place.put(b"unwanted")
    place.make_old()
    young = place.put(b"young")
    assert place.storage.sweep({wanted}, grace_s=3600.0) == 1
    assert place.kept() == {wanted, young}
    assert place.storage.sweep({wanted}, grace_s=3600.0) == 0
    assert place.read(wanted) == b"wanted"
    assert unwanted != young


def test_a_blob_stored_again_is_young_again(place: Place) -> None:
    key = place.put(b"again")
    place.make_old()
    assert place.put(b"again") == key
    place.storage.sweep(set(), grace_s=3600.0)
    assert place.read(key) == b"again"
    place.make_old()
    place.storage.sweep(set(), grace_s=3600.0)
    assert place.kept() == set()


def test_ages_are_told_as_they_are(place: Place) -> None:
    place.put(b"old")
    place.make_old(5000.0)
    (found,) = place.storage.inventory()
    assert found.size_bytes == 3
    assert 4990 < found.age_s < 5060


def test_a_blob_that_is_stored_while_sweeps_go_on_is_never_lost(place: Place) -> None:
    """The race that matters: the blob was old and unwanted, and is stored again in the middle of a sweep."""
    stop = threading.Event()

    def sweep() -> None:
        while not stop.wait(0.01):
            place.storage.sweep(set(), grace_s=3600.0)

    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for round_ in range(10):
            content = b"wanted again %d" % round_
            key = place.put(content)
            place.make_old()
            place.put(content)
            # From here on the blob is wanted, and young; a sweep that saw the old one may be at any point.
            for _ in range(3):
                assert place.read(key) == content
    finally:
        stop.set()
        for sweeper in sweepers:
            sweeper.join()


def test_a_blob_stored_again_after_a_sweep_has_found_it_old_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same race with its worst timing, and with a removal that arrives a second time, late."""
    key = place.put(b"in the nick of time")
    place.make_old()
    storage = place.storage
    renewals: list[str] = []

    def renew() -> None:
        if not renewals:
            renewals.append(place.put(b"in the nick of time"))

    if isinstance(storage, ObjectStorage):
        remove = storage._remove

        def remove_late(name: str) -> None:
            renew()
            remove(name)
            remove(name)

        monkeypatch.setattr(storage, "_remove", remove_late)
    else:
        assert isinstance(storage, FolderStorage)
        remove_if_older = storage._remove_if_older

        def look_late(path: Path, before: float) -> bool:
            renew()
            return remove_if_older(path, before)

        monkeypatch.setattr(storage, "_remove_if_older", look_late)
    storage.sweep(set(), grace_s=3600.0)
    assert renewals == [key]
    assert place.read(key) == b"in the nick of time"


def test_a_reader_goes_on_when_its_copy_is_superseded_and_swept(bucket: Place) -> None:
    content = os.urandom(3 * READ_BYTES)
    key = bucket.put(content)
    with bucket.storage.open(key) as file:
        beginning = file.read(10)
        bucket.put(content)
        assert bucket.storage.sweep({key}, grace_s=3600.0) == 1
        assert beginning + file.read() == content
    assert len(list(bucket.storage.inventory())) == 1


def test_files_that_are_no_blobs_are_left_alone(bucket: Place) -> None:
    bucket.put(b"ours")
    (bucket.files / "notes.txt").write_text("somebody else's")
    (bucket.files / "ab").mkdir(exist_ok=True)
    (bucket.files / "ab" / "readme").write_text("somebody else's")
    bucket.make_old()
    bucket.storage.sweep(set(), grace_s=3600.0)
    assert bucket.kept() == set()
    assert (bucket.files / "notes.txt").exists()
    assert (bucket.files / "ab" / "readme").exists()


def test_a_folder_copied_into_the_bucket_as_it_is_can_be_read(bucket: Place, folder: Place) -> None:
    key = folder.put(b"moved")
    (bucket.files / key[:2]).mkdir(parents=True)
    (bucket.files / key[:2] / key).write_bytes((folder.files / key[:2] / key).read_bytes())
    assert bucket.kept() == {key}
    assert bucket.read(key) == b"moved"
    bucket.put(b"moved")
    assert bucket.storage.sweep({key}, grace_s=3600.0) == 1
    assert bucket.read(key) == b"moved"


def test_parts_of_an_upload_whose_process_was_killed_are_found_and_swept(bucket: Place, tmp_path: Path) -> None:
    storage = bucket.storage
    assert isinstance(storage, ObjectStorage)
    code = """
import io, os, signal, sys
from app.core import object_storage

class Killing(object_storage.ObjectStorage):
    def _complete(self, *_):
        os.kill(os.getpid(), signal.SIGKILL)

Killing(*sys.argv[1:]).put(io.BytesIO(bytes(20 << 20)))
"""
    killed = subprocess.run([sys.executable, "-c", code, storage.bucket, storage.prefix], check=False)
    assert killed.returncode == -9
    (part,) = storage.inventory()
    assert (part.key, part.size_bytes) == (None, 20 << 20)
    assert bucket.kept() == set()
    assert storage.sweep(set(), grace_s=3600.0) == 0, "it might still go on"
    eventually(lambda: storage.sweep(set(), grace_s=1.0), what="the sweep of the upload")
    assert bucket.parts() == 0


def test_a_broken_upload_into_a_folder_is_found_and_swept(folder: Place) -> None:
    (folder.files / "incoming" / "tmp0").write_bytes(b"half")
    assert folder.parts() == 1
    folder.make_old()
    assert folder.storage.sweep(set(), grace_s=3600.0) == 1
    assert folder.parts() == 0


# A folder's sweep dies


def test_a_sweep_that_is_killed_in_the_middle_strands_no_blob(folder: Place) -> None:
    wanted, unwanted = folder.put(b"wanted"), folder.put(b"unwanted")
    folder.make_old()
    code = """
import os, pathlib, signal, sys
from app.core import folder_storage

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

look = folder_storage._is_older
looks = []

def look_and_die(path, before):
    looks.append(path)
    if len(looks) == 2:  # The second look of a file is the one under the lock.
        die()
    return look(path, before)

folder_storage._is_older = look_and_die
folder_storage.FolderStorage(pathlib.Path(sys.argv[1])).sweep(set(), 3600.0)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(folder.files)], check=False)
    assert killed.returncode == -9
    assert folder.kept() == {wanted, unwanted}
    assert folder.read(wanted) == b"wanted"
    assert folder.put(b"unwanted") == unwanted, "its lock died with it"
    assert folder.storage.sweep({wanted}, grace_s=3600.0) == 0
    folder.make_old()
    assert folder.storage.sweep({wanted}, grace_s=3600.0) == 1


def test_blobs_that_a_sweep_of_an_earlier_release_stranded_get_their_names_back(folder: Place) -> None:
    stranded, renewed = folder.put(b"stranded"), folder.put(b"renewed")
    incoming = folder.files / "incoming"
    (folder.files / stranded[:2] / stranded).rename(incoming / f"sweep-{stranded}")
    (incoming / f"sweep-sweep-{renewed}").write_bytes(b"renewed")
    (incoming / "sweep-tmp0").write_bytes(b"half")
    folder.make_old()
    folder.put(b"renewed")
    again = FolderStorage(folder.files)
    assert {file.key for file in again.inventory()} == {stranded, renewed, None}
    with again.open(stranded) as file:
        assert file.read() == b"stranded"
    assert again.sweep({stranded}, grace_s=3600.0) == 1  # of the part
    assert folder.kept() == {stranded, renewed}


# A storage that is away


@pytest.fixture
def own_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that the test may kill."""
    server = S3Server(tmp_path / "s3")
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.kill()


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


# Copying


def test_what_was_copied_is_the_same_and_is_not_copied_twice(folder: Place, bucket: Place, tmp_path: Path) -> None:
    keys = {folder.put(content) for content in (b"one", b"two", os.urandom(PART_BYTES + 1))}
    run = CliRunner()
    there = run.invoke(cli, ["blobs", "copy", str(folder.files), bucket.url, "--json"], catch_exceptions=False)
    assert json.loads(there.stdout) == {"copied": 3, "damaged": []}
    assert bucket.kept() == keys
    more = bucket.put(b"more")
    elsewhere = tmp_path / "elsewhere"
    back = run.invoke(cli, ["blobs", "copy", bucket.url, str(elsewhere), "--json"], catch_exceptions=False)
    again = run.invoke(cli, ["blobs", "copy", bucket.url, str(elsewhere), "--json"], catch_exceptions=False)
    assert [json.loads(said.stdout)["copied"] for said in (back, again)] == [4, 0]
    copied = Place(FolderStorage(elsewhere), elsewhere, "")
    assert copied.kept() == keys | {more}
    assert all(hashlib.sha256(copied.read(key)).hexdigest() == key for key in keys)


def test_a_damaged_blob_is_named_and_not_copied(folder: Place, bucket: Place) -> None:
    damaged, good = folder.put(b"will be damaged"), folder.put(b"good")
    (folder.files / damaged[:2] / damaged).write_bytes(b"damaged")
    said = CliRunner().invoke(cli, ["blobs", "copy", str(folder.files), bucket.url])
    assert said.exit_code == 1
    assert damaged in str(said.exception)
    assert bucket.kept() == {good}


def test_a_blob_thrown_away_after_it_was_listed_is_left_out(tmp_path: Path) -> None:
    class Busy(FolderStorage):
        def inventory(self) -> Iterator[StoredFile]:
            for file in super().inventory():
                if file.key == outdated:
                    self.delete(outdated)
                yield file

    source, target = Busy(tmp_path / "source"), FolderStorage(tmp_path / "target")
    outdated, kept = (source.put(io.BytesIO(content)) for content in (b"a checkpoint", b"weights"))
    assert copy_missing(source, target) == (1, [])
    assert {file.key for file in target.inventory()} == {kept}


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
