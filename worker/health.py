"""`python -m worker.health training|inference|reconciler`: exit 0 if that part works. For containers' checks."""

import argparse
import socket
import sys

from app.core.queue import Queue
from app.core.settings import settings

ANSWER_WITHIN_S = 5.0


def worker_answers(queue: Queue, kind: str) -> bool:
    """Whether the worker on this host answers a ping. Tasks run in its children or threads, so it does while busy."""
    name = f"{kind}@{socket.gethostname()}"
    return bool(queue.celery.control.ping(destination=[name], timeout=ANSWER_WITHIN_S, limit=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["training", "inference", "reconciler"])
    part = parser.parse_args().part
    queue = Queue(settings().broker_url)
    healthy = queue.did_a_round_lately() if part == "reconciler" else worker_answers(queue, part)
    sys.exit(None if healthy else f"{part} does not answer")


if __name__ == "__main__":
    main()
