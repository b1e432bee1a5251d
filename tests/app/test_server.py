"""How many connections the HTTP server takes, by the files that its process may have open."""

import resource
import subprocess
import sys

import pytest

from app.server import FILES_BESIDE, room_for_connections

ROOM = """
import resource
from app.server import room_for_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 2000))
print(room_for_connections(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


class Kernel:
    """A kernel that names no hard limit and grants a soft one up to `most`, as macOS does."""

    def __init__(self, soft: int, most: int) -> None:
        self.limits = (soft, resource.RLIM_INFINITY)
        self.most = most

    def getrlimit(self, _kind: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _kind: int, limits: tuple[int, int]) -> None:
        if limits[0] == resource.RLIM_INFINITY or limits[0] > self.most:
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


def room(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", kernel.setrlimit)
    return room_for_connections()


def test_the_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    told = subprocess.run([sys.executable, "-c", ROOM], capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str((2000 - FILES_BESIDE) // 2), "2000", "2000"]


@pytest.mark.parametrize(
    ("soft", "most", "reached"),
    [(256, 200_000, 65_536), (256, 20_000, 10_240), (256, 1_000, 256), (100_000, 200_000, 100_000)],
)
def test_where_the_hard_limit_is_refused_the_room_follows_the_limit_that_was_reached(
    soft: int, most: int, reached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(soft, most)
    assert room(kernel, monkeypatch) == max(16, (reached - FILES_BESIDE) // 2)
    assert kernel.limits == (reached, resource.RLIM_INFINITY)


def test_without_any_limit_there_is_room_for_as_many_as_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert room(Kernel(resource.RLIM_INFINITY, 10_240), monkeypatch) > 10**9
