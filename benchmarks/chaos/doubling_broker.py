"""A broker that delivers every message twice, some a third time much later, and none in its order.

Stands where `valkey-server` is expected and takes its arguments: it starts the real one on another port, and passes on
what clients say, except that a push of one message into a queue becomes a push of several, at either end.
`CHAOS_REAL_BROKER` names the real program, `CHAOS_DOUBLED` a file that counts what was added.
"""

import asyncio
import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from app.core.queue import HOUSEKEEPING_QUEUE, INFERENCE_QUEUE, TRAINING_QUEUE
from app.embedded import find_broker, free_port
from app.supervision import die_with_parent

QUEUES = {name.encode() for name in (TRAINING_QUEUE, INFERENCE_QUEUE, HOUSEKEEPING_QUEUE)}
ROOT = Path(__file__).resolve().parents[2]
REMEMBERED = 200  # Messages that may come once more.


def instead_of_the_real_one(folder: Path) -> dict[str, str]:
    """The environment in which a service starts this broker when it means to start Valkey."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    stand_in = programs / "valkey-server"
    stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} -m benchmarks.chaos.doubling_broker "$@"\n')
    stand_in.chmod(0o755)
    return {
        "CHAOS_REAL_BROKER": find_broker(),
        "CHAOS_DOUBLED": str(folder / "doubled"),
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }


def messages_added(folder: Path) -> int:
    """How many deliveries it has made beyond those that were asked for, since it was last started."""
    return int((folder / "doubled").read_text())


class Doubling:
    """What becomes of a command on its way."""

    def __init__(self) -> None:
        self._past: dict[bytes, list[bytes]] = {}
        self._random = random.Random(0)
        self._added = 0

    def rewritten(self, command: list[bytes]) -> list[bytes]:
        """A push of a message into a queue as a push of it twice, and of an old one; everything else as it is."""
        if len(command) != 3 or command[0].upper() not in {b"LPUSH", b"RPUSH"} or command[1] not in QUEUES:
            return command
        _, queue, message = command
        past = self._past.setdefault(queue, [])
        again = [message, message, *([self._random.choice(past)] if past else [])]
        past.append(message)
        del past[:-REMEMBERED]
        self._random.shuffle(again)
        self._added += len(again) - 1
        if (count := os.environ.get("CHAOS_DOUBLED")) is not None:
            Path(count).write_text(str(self._added))
        return [self._random.choice([b"LPUSH", b"RPUSH"]), queue, *again]


async def commands(reader: asyncio.StreamReader) -> list[bytes]:
    """The next command that a client sends (RESP: an array of strings). Raises IncompleteReadError at the end."""
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


def encoded(command: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in command)


async def serve(port: int, real_port: int) -> None:
    doubling = Doubling()

    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", real_port)
        except OSError:
            to_client.close()
            return

        async def there() -> None:
            with suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    to_server.write(encoded(doubling.rewritten(await commands(client))))
                    await to_server.drain()

        async def back() -> None:
            with suppress(OSError):
                while chunk := await server.read(1 << 16):
                    to_client.write(chunk)
                    await to_client.drain()

        ways = [asyncio.ensure_future(there()), asyncio.ensure_future(back())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        to_client.close()
        to_server.close()

    async with await asyncio.start_server(connected, "127.0.0.1", port) as listening:
        await listening.serve_forever()


def main() -> None:
    program, arguments = os.environ["CHAOS_REAL_BROKER"], sys.argv[1:]
    real_port, given = free_port(), ""
    if arguments == ["-"]:
        given = sys.stdin.read()
        port = int(next(line.split()[1] for line in given.splitlines() if line.startswith("port ")))
        given = given.replace(f"port {port}\n", f"port {real_port}\n")
    else:
        at = arguments.index("--port") + 1
        port = int(arguments[at])
        arguments[at] = str(real_port)
    real = subprocess.Popen(
        [program, *arguments],
        stdin=subprocess.PIPE,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
    )
    assert real.stdin is not None
    with real.stdin:
        real.stdin.write(given.encode())
    asyncio.run(serve(port, real_port))


if __name__ == "__main__":
    main()
