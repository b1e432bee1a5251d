"""`python -m tests.chaos.probe HOST PORT`: asks `/healthz` on ever new connections until standard input ends.

A process of its own, so that what it measures is the service's slowness and not that of the attacking process. Prints
the milliseconds of every answer as JSON; what was not answered within ten seconds, or otherwise than with 200, counts
as ten seconds.
"""

import json
import select
import socket
import sys
import time
from typing import Final

EVERY_S: Final = 0.02
GIVEN_UP_S: Final = 10.0
REQUEST: Final = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def milliseconds(address: tuple[str, int]) -> float:
    began = time.perf_counter()
    try:
        with socket.create_connection(address, GIVEN_UP_S) as connection:
            connection.sendall(REQUEST)
            if connection.recv(4096).startswith(b"HTTP/1.1 200 "):
                return 1000 * (time.perf_counter() - began)
    except OSError:
        pass
    return 1000 * GIVEN_UP_S


def main() -> None:
    address = (sys.argv[1], int(sys.argv[2]))
    taken = []
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        taken.append(round(milliseconds(address), 2))
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
