"""Which accelerators a training computes on: each job takes a slot for as long as its process lives.

The slots of a machine are files with locks, so that workers need not know of each other, however many there are and
whoever has started them; the kernel frees the slot of a process that dies.
"""

import fcntl
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

from app.core.settings import Settings

Slot = tuple[str, ...]  # The devices of one job, by the names that CUDA_VISIBLE_DEVICES takes.
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
LOOK_EVERY_S: Final = 0.2


def slots(devices: Sequence[str], per_job: int, jobs_per_device: int) -> list[Slot]:
    """The groups of devices that jobs may have, `per_job` in each; every group comes once before any comes twice.

    Devices that do not make up a whole group stay unused; where there are fewer than `per_job`, a job has all.
    """
    groups = [tuple(devices[first : first + per_job]) for first in range(0, len(devices) - per_job + 1, per_job)]
    if devices and not groups:
        groups = [tuple(devices)]
    return groups * jobs_per_device


def of_this_machine(settings: Settings) -> list[Slot]:
    """The slots that trainings on this machine share; none where it has no accelerator, and nothing is to be shared."""
    named = settings.devices or os.environ.get(VISIBLE)
    devices = [str(number) for number in range(count_devices())] if named is None else named.split(",")
    return slots(
        [name.strip() for name in devices if name.strip()], settings.training_devices, settings.jobs_per_device
    )


def count_devices() -> int:
    """Asked in a process of its own: one that has woken CUDA can fork no child that uses it."""
    import torch  # The clock and the inference worker need not load it for this.

    if not torch.backends.cuda.is_built():
        return 0
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as other:
        return other.submit(torch.cuda.device_count).result()


def lock_file(device: str, number: int) -> IO[bytes]:
    """The file that whoever locks it has this slot of the device: one for all users, made by the first of them.

    It is open for reading, which is enough for a lock. Another user's may not be writable, or not be opened as one to
    make where it is missing (fs.protected_regular).
    """
    path = Path(tempfile.gettempdir()) / f"drtl-device-{quote(device, safe='')}-{number}.lock"
    with suppress(FileNotFoundError):
        return path.open("rb")
    # It appears under its name with its rights: whatever the umask, nobody meets it closed.
    with tempfile.NamedTemporaryFile(dir=path.parent) as made, suppress(FileExistsError):
        os.fchmod(made.fileno(), 0o666)  # Earlier releases open it for writing.
        path.hardlink_to(made.name)
    return path.open("rb")


def take(free: Sequence[Slot], give_up: Callable[[], bool]) -> IO[bytes] | None:
    """Take the first free slot, and let this process see nothing but its devices; wait while there is none.

    The slot is held until the file is closed. None where `give_up` says so first. Call before CUDA wakes.
    """
    while not give_up():
        for index, devices in enumerate(free):
            lock = lock_file(devices[0], free[:index].count(devices))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            os.environ[VISIBLE] = ",".join(devices)
            return lock
        time.sleep(LOOK_EVERY_S)
    return None
