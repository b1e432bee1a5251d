"""Which accelerators a training gets: groups of devices, slots, and what its process then sees."""

import multiprocessing
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.settings import Settings
from tests.servers import NOBODY
from worker import devices
from worker.devices import VISIBLE, Slot, slots

FORK = multiprocessing.get_context("fork")


@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 4))
def test_no_device_has_more_jobs_than_it_may_and_none_is_in_two_groups(count: int, per_job: int, jobs: int) -> None:
    names = [f"gpu-{number}" for number in range(count)]
    found = slots(names, per_job, jobs)
    assert all(uses <= jobs for uses in Counter(name for slot in found for name in slot).values())
    groups = set(found)
    assert sum(len(group) for group in groups) == len({name for group in groups for name in group})
    assert len(found) == jobs * (max(1, count // per_job) if count else 0)
    assert found[: len(groups)] == list(dict.fromkeys(found)), "a free group before a shared one"
    assert all(len(group) == min(per_job, count) for group in groups)


@pytest.mark.parametrize(
    ("setting", "visible", "expected"),
    [
        ("", "", []),
        ("", "4,7", [("4",), ("7",)]),
        ("2, 3", "4,7", [("2",), ("3",)]),
        ("GPU-aa,GPU-bb", None, [("GPU-aa",), ("GPU-bb",)]),
    ],
)
def test_the_setting_names_the_devices_or_else_the_environment(
    monkeypatch: pytest.MonkeyPatch, setting: str, visible: str | None, expected: list[Slot]
) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    assert devices.of_this_machine(Settings(devices=setting)) == expected


@pytest.fixture
def shared_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for files of all users, as /tmp is. pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="drtl-devices-"))
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(folder))
    monkeypatch.setenv(VISIBLE, "as before")
    yield folder
    shutil.rmtree(folder)


def hold(free: list[Slot], channel: Connection) -> None:
    """A training: takes a slot, says which, and computes until it is told to end."""
    slot = devices.take(free, channel.poll)
    channel.send(None if slot is None else os.environ[VISIBLE])
    channel.recv()


def test_trainings_at_once_see_devices_of_their_own_and_the_next_waits_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    free = slots(["0", "1", "2", "3"], per_job=2, jobs_per_device=1)
    channels, processes = [], []
    for _ in range(3):
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=hold, args=(free, theirs))
        process.start()
        channels.append(ours)
        processes.append(process)
        if len(processes) < 3:
            assert ours.poll(5)
    assert [channels[0].recv(), channels[1].recv()] == ["0,1", "2,3"]
    assert not channels[2].poll(0.5)
    processes[1].kill()  # Whoever dies lets go.
    assert channels[2].poll(5)
    assert channels[2].recv() == "2,3"
    for process in processes:
        process.kill()
        process.join()


def test_a_worker_that_stops_waits_for_no_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv(VISIBLE, "as before")
    held = devices.take([("0",)], lambda: False)
    assert held is not None
    asked = iter([False, True])
    assert devices.take([("0",)], lambda: next(asked)) is None
    held.close()


def hold_as_another(free: list[Slot], channel: Connection) -> None:
    """As `hold`, by a user who may not write to root's files. Without root, a file of 0o444 is one that nobody may."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    hold(free, channel)


@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_a_slot_whose_file_another_user_has_made_may_be_taken(shared_folder: Path, mode: int) -> None:
    made = shared_folder / "drtl-device-0-0.lock"
    made.touch()
    made.chmod(mode)
    free = slots(["0"], per_job=1, jobs_per_device=1)
    ours, theirs = FORK.Pipe()
    other = FORK.Process(target=hold_as_another, args=(free, theirs))
    other.start()
    assert ours.poll(5)
    assert ours.recv() == "0"
    asked = iter([False, True])
    assert devices.take(free, lambda: next(asked)) is None
    other.kill()
    other.join()
    held = devices.take(free, lambda: False)
    assert held is not None
    held.close()


def test_the_file_of_a_slot_is_for_everybody_whatever_the_umask(shared_folder: Path) -> None:
    before = os.umask(0o077)
    try:
        held = devices.take([("0",)], lambda: False)
    finally:
        os.umask(before)
    assert held is not None
    held.close()
    assert [(path.name, path.stat().st_mode & 0o777) for path in shared_folder.iterdir()] == [
        ("drtl-device-0-0.lock", 0o666)
    ]


def test_devices_with_slashes_in_their_names_have_slots(shared_folder: Path) -> None:
    free: list[Slot] = [("MIG-GPU-1f2e/1/0",), ("MIG-GPU-1f2e/2/0",)]
    held = []
    for devices_of_one in free:
        held.append(devices.take(free, lambda: False))
        assert os.environ[VISIBLE] == devices_of_one[0]
    asked = iter([False, True])
    assert devices.take(free, lambda: next(asked)) is None
    for slot in held:
        assert slot is not None
        slot.close()
