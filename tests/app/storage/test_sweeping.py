"""What both storages promise of a sweep: the old and unwanted goes, and nothing else, whenever it dies."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.core.folder_storage import FolderStorage
from app.core.object_storage import READ_BYTES, ObjectStorage
from tests.app.storage.places import Place
from tests.servers import eventually


def test_only_what_is_old_and_unwanted_is_swept(place: Place) -> None:
    wanted, unwanted = place.put(b"wanted"), place.put(b"unwanted")
    place.make_old()
    young = place.put(b"young")
    assert place.storage.sweep({wanted}, grace_s=3600.0) == 1
    assert place.kept() == {wanted, young}
    assert place.storage.sweep({wanted}, grace_s=3600.0) == 0
    assert place.read(wanted) == b"wanted"
    assert unwanted != young


def test_what_is_not_the_storages_stays_and_does_no_harm(tmp_path: Path) -> None:
    """An operator's folder may hold other things, and some mounts have folders of their own."""
    storage = FolderStorage(tmp_path)
    with (tmp_path / "holiday.jpg").open("w+b") as file:
        unwanted = storage.put(file)
    others = [tmp_path / "photos" / "holiday.jpg", tmp_path / "ab" / "notes.txt", tmp_path / "cd" / ("ab" * 32)]
    for other in others:
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(b"not ours")
    folder = tmp_path / ".snapshot" / "hourly.0"
    folder.mkdir(parents=True)
    for old in (*others, folder, tmp_path / unwanted[:2] / unwanted):
        os.utime(old, (0, 0))
    assert [file.key for file in storage.inventory()] == [unwanted]
    assert storage.sweep(set(), grace_s=3600.0) == 1
    assert all(other.exists() for other in others)
    assert folder.is_dir()


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
