"""Runs the HTTP service: `python -m app.server`. uvicorn, with connections that hold no more than they may.

Options say where to listen; everything else is a setting.
"""

import argparse
import asyncio
import resource
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import uvicorn

from app.connections import Crowd, GuardedConnection
from app.core.settings import Settings, settings
from app.main import create_app

FILES_BESIDE: Final = 256  # Open files that have nothing to do with connections: database, broker, logs, examiners.
LOWER_LIMITS: Final = (65_536, 10_240)  # What to ask for where the hard limit is refused, the most first.


def configure(application: Any, chosen: Settings, **listening: Any) -> uvicorn.Config:
    """How uvicorn serves the application; `listening` is where, and whatever else it takes."""
    crowd = Crowd(
        head_s=chosen.request_head_s,
        send_stall_s=chosen.download_stall_s,
        max_connections=min(chosen.max_connections, room_for_connections()),
    )
    connection = cast("type[asyncio.Protocol]", partial(GuardedConnection, crowd=crowd))
    return uvicorn.Config(application, http=connection, ws="none", **listening)


def room_for_connections() -> int:
    """As many as there may be while each also has a file open. Raises the process's limit as far as it goes.

    macOS names no hard limit, and refuses a soft one that is as high: what counts is what has been reached.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = () if soft == resource.RLIM_INFINITY else (limit for limit in LOWER_LIMITS if limit > soft)
    for limit in (hard, *lower):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            break
    reached, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if reached == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(16, (reached - FILES_BESIDE) // 2)


def main() -> None:
    chosen = settings()
    parser = argparse.ArgumentParser(prog="python -m app.server", description=__doc__)
    parser.add_argument("--host", default=chosen.host)
    parser.add_argument("--port", type=int, default=chosen.port)
    parser.add_argument("--fd", type=int, help="a listening socket that this process has inherited")
    parser.add_argument("--stop-within", type=int, default=5, help="seconds for requests to end when it is stopped")
    parser.add_argument("--access-log", action="store_true", help="a line for each request, also in text")
    asked = parser.parse_args()
    config = configure(
        create_app,
        chosen,
        factory=True,
        host=asked.host,
        port=asked.port,
        access_log=asked.access_log,
        timeout_graceful_shutdown=asked.stop_within,
    )
    listeners = None if asked.fd is None else [socket.socket(fileno=asked.fd)]
    uvicorn.Server(config).run(listeners)


if __name__ == "__main__":
    main()
