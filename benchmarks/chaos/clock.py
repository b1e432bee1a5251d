"""Shifts the clock of single processes while they run, by libfaketime and a file that it looks at."""

import os
from importlib.util import find_spec
from pathlib import Path

ASKED = "CHAOS_SKEWABLE"  # In the environment of what starts the processes: whether clocks shall be shiftable.


def library() -> Path | None:
    """libfaketime as the wheel of that name brings it, where it is installed."""
    spec = find_spec("libfaketime")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("vendor/libfaketime/src/libfaketime.so.1"), None)


def offset_file(folder: Path, name: str) -> Path:
    return folder / f"clock-of-{name}"


def skewed(folder: Path, name: str) -> dict[str, str]:
    """The environment of a process whose clock shall be shiftable: its own, not its measure of time that passes.

    The times of files stay those of the disk, as they are on a volume that machines share.
    """
    found = library()
    assert found is not None
    shift(folder, name, 0)
    return {
        "LD_PRELOAD": str(found),
        "FAKETIME_TIMESTAMP_FILE": str(offset_file(folder, name)),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # Otherwise waits by the monotonic clock return at once, and threads that wait for Python's lock wake each other
        # thousands of times a second: a worker of sixteen threads then takes twenty times as long.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        "NO_FAKE_STAT": "1",
    }


def skewable(command: list[str], folder: Path, name: str) -> list[str]:
    """The command such that `shift` moves the clock of its process, where that has been asked for."""
    if ASKED not in os.environ:
        return command
    return ["env", *(f"{key}={value}" for key, value in skewed(folder, name).items()), *command]


def shift(folder: Path, name: str, by_s: int) -> None:
    """Set the clock of that process, and of its children, so many seconds ahead of the true time, or behind."""
    partial = offset_file(folder, f"{name}.partial")
    partial.write_text(f"{by_s:+d}\n")
    partial.replace(offset_file(folder, name))
