"""`python -m ml.helper PARENT RENDEZVOUS RANK SIZE`: computes parts of steps for another process (`ml/crew.py`).

It gets everything that it needs from its leader, and ends with it.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml.crew import Crew
    from ml.race import Course


def main() -> None:
    parent, rendezvous, rank, size = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    end_with(parent)
    from ml.crew import join  # Loads torch: only after the kernel knows whose end is this process's.

    print("ready", flush=True)
    help_out(join(rendezvous, rank, size))


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (prctl PR_SET_PDEATHSIG, Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that this was to help has ended")


def help_out(crew: "Crew") -> None:
    """Compute the parts that the leader asks for, until it ends."""
    from ml.crew import Order
    from ml.precision import device

    course: Course | None = None
    while True:
        order, candidate, step = crew.next_order()
        if order is Order.ENLIST:
            course = crew.enlisted().to(device())
        elif order is not Order.STAND_BY:
            assert course is not None
            course.gradient(crew, order, candidate, step)


if __name__ == "__main__":
    main()
