"""What hostile clients do to an api, each attack at a scale, and how the service fares meanwhile."""

import asyncio
import json
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Final

from tests.app.material import encoded, pixels
from tests.chaos.api_process import RunningApi

LEAST_S: Final = 1.5  # A measurement takes no less, or there is nothing to measure by.
HEAD_S: Final = 4.0  # The limits that the attacked service is told; short, so that an attack shows them.
STALL_S: Final = 3.0
SETTINGS: Final = {
    "DRTL_REQUEST_HEAD_S": str(HEAD_S),
    "DRTL_UPLOAD_STALL_S": str(STALL_S),
    "DRTL_DOWNLOAD_STALL_S": str(STALL_S),
    "DRTL_MAX_UPLOAD_BYTES": str(8 << 20),
    "DRTL_WAIT_S": "20",
}
SLACK_S: Final = 30.0  # How much later than its deadline a busy machine may hang up.
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Address = tuple[str, int]


@dataclass(frozen=True)
class Target:
    """Where to send what, with the path of something that is large, of a job that goes on, and of a model."""

    address: Address
    download: str
    download_bytes: int
    events: str
    model: str


@dataclass(frozen=True)
class Fared:
    """How the service fared during an attack: `/healthz` from another process, memory, and what clients saw."""

    connections: int
    seconds: float
    healthz_p50_ms: float
    healthz_p99_ms: float
    healthz_most_ms: float
    probes: int
    rss_before_mib: float
    rss_most_mib: float
    seen: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


Attack = Callable[[Target, int], Awaitable[Counter[str]]]


async def measure(api: RunningApi, target: Target, attack: Attack, connections: int) -> Fared:
    """Attack with so many connections, with a probe beside it."""
    allow_many_files()
    before, most = api.resident_mib(), 0.0
    probe = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.probe", *map(str, target.address)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert probe.stdout is not None
    await probe.stdout.readline()

    async def watch_memory() -> None:
        nonlocal most
        while True:
            most = max(most, await asyncio.to_thread(api.resident_mib))
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch_memory())
    began = time.monotonic()
    try:
        seen = await attack(target, connections)
        await asyncio.sleep(began + LEAST_S - time.monotonic())
    finally:
        seconds = time.monotonic() - began
        watching.cancel()
        said, _ = await probe.communicate(b"")  # Which closes its standard input.
    times = json.loads(said)
    return Fared(
        connections=connections,
        seconds=round(seconds, 2),
        healthz_p50_ms=round(statistics.median(times), 2),
        healthz_p99_ms=round(sorted(times)[int(0.99 * (len(times) - 1))], 2),
        healthz_most_ms=max(times),
        probes=len(times),
        rss_before_mib=round(before, 1),
        rss_most_mib=round(max(before, most), 1),
        seen=dict(sorted(seen.items())),
    )


def allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def everywhere(target: Target, connections: int, one: Callable[[Connection], Awaitable[str]]) -> Counter[str]:
    """Let `one` client after the other begin, quickly, and all of them go on at the same time; counts what they see."""

    async def client() -> str:
        try:
            connection = await asyncio.open_connection(*target.address)
        except OSError as error:
            return type(error).__name__
        try:
            return await one(connection)
        except (OSError, EOFError) as error:
            return type(error).__name__
        finally:
            connection[1].transport.abort()

    running = []
    for number in range(connections):
        running.append(asyncio.create_task(client()))
        if number % 50 == 49:  # The kernel's queue of connections is finite.
            await asyncio.sleep(0.005)
    return Counter(await asyncio.gather(*running))


async def answered(reader: asyncio.StreamReader, patience_s: float) -> str:
    """The status of what comes, `closed` where nothing does, `open` where the connection outlasts the patience."""
    try:
        line = await asyncio.wait_for(reader.readline(), patience_s)
    except TimeoutError:
        return "open"
    return line.split()[1].decode() if line.startswith(b"HTTP/1.1 ") else "closed"


def head(method: str, path: str, *fields: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *fields, "", ""]).encode()


async def idle(target: Target, connections: int) -> Counter[str]:
    """Connections that send nothing."""
    return await everywhere(target, connections, lambda connection: answered(connection[0], HEAD_S + SLACK_S))


async def slow_heads(target: Target, connections: int) -> Counter[str]:
    """A header that grows by a byte now and then (Slowloris)."""

    async def one(connection: Connection) -> str:
        reader, writer = connection
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        return await while_sending(reader, writer, b"a", every_s=0.5, for_s=HEAD_S + SLACK_S)

    return await everywhere(target, connections, one)


async def half_bodies(target: Target, connections: int) -> Counter[str]:
    """A body that ends in the middle, on a connection that stays open."""

    async def one(connection: Connection) -> str:
        reader, writer = connection
        writer.write(
            head("POST", "/v1/jobs", "Content-Type: multipart/form-data; boundary=b", "Content-Length: 1000000")
        )
        writer.write(b'--b\r\nContent-Disposition: form-data; name="clean"; filename="a.png"\r\n\r\n' + bytes(2000))
        return await answered(reader, STALL_S + SLACK_S)

    return await everywhere(target, connections, one)


async def slow_bodies(target: Target, connections: int) -> Counter[str]:
    """A body that comes by the byte, quicker than what counts as a stall."""

    async def one(connection: Connection) -> str:
        reader, writer = connection
        writer.write(head("POST", "/v1/jobs", "Content-Type: application/json", "Content-Length: 100000"))
        return await while_sending(reader, writer, b"[", every_s=0.5, for_s=STALL_S + SLACK_S)

    return await everywhere(target, connections, one)


async def while_sending(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drop: bytes, *, every_s: float, for_s: float
) -> str:
    """What is answered while a drop is sent now and then."""
    answer = asyncio.create_task(answered(reader, for_s))
    while not answer.done():
        writer.write(drop)
        await asyncio.wait([answer], timeout=every_s)
    return answer.result()


async def too_long_bodies(target: Target, connections: int) -> Counter[str]:
    """Bodies beyond the limit: half of them announced by Content-Length, half in chunks that never end."""
    numbers = iter(range(connections))
    block = bytes(1 << 16)

    async def one(connection: Connection) -> str:
        reader, writer = connection
        announced = next(numbers) % 2 == 0
        length = "Content-Length: 9000000000" if announced else "Transfer-Encoding: chunked"
        writer.write(head("POST", "/v1/datasets", "Content-Type: application/zip", length))
        answer = asyncio.create_task(answered(reader, 30))
        while not answer.done():
            writer.write(block if announced else b"10000\r\n" + block + b"\r\n")
            try:
                await asyncio.wait_for(writer.drain(), 30)
            except OSError:
                break
            await asyncio.sleep(0)
        return await answer

    return await everywhere(target, connections, one)


async def unread_downloads(target: Target, connections: int) -> Counter[str]:
    """Large answers of which nobody reads more than the beginning."""

    async def one(connection: Connection) -> str:
        reader, writer = connection
        transport = reader._transport  # type: ignore[attr-defined]  # Typeshed leaves it out.
        transport.pause_reading()  # Streams read ahead by themselves.
        writer.write(head("GET", target.download))
        await asyncio.sleep(2 * STALL_S + 2)
        transport.resume_reading()
        received = 0
        try:
            while piece := await asyncio.wait_for(reader.read(1 << 20), 30):
                received += len(piece)
        except OSError:
            pass
        return "whole" if received > target.download_bytes else "cut off"

    return await everywhere(target, connections, one)


async def event_streams(target: Target, connections: int) -> Counter[str]:
    """Followers of one job that goes on."""

    async def one(connection: Connection) -> str:
        reader, writer = connection
        writer.write(head("GET", target.events, "Accept: text/event-stream"))
        status = await answered(reader, 20)
        await asyncio.sleep(8)
        return status

    return await everywhere(target, connections, one)


async def pipelines(target: Target, connections: int) -> Counter[str]:
    """A thousand requests at once on each connection, whose answers nobody waits for."""

    async def one(connection: Connection) -> str:
        reader, writer = connection
        writer.write(head("GET", "/v1/jobs?limit=1") * 1000)
        return await answered(reader, 20)

    return await everywhere(target, connections, one)


async def huge_heads(target: Target, connections: int) -> Counter[str]:
    """One header field of a megabyte on every second connection, ten thousand fields on the others."""
    numbers = iter(range(connections))

    async def one(connection: Connection) -> str:
        reader, writer = connection
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        writer.write(b"X: " + b"a" * (1 << 20) if next(numbers) % 2 else b"X: a\r\n" * 10_000)
        return await answered(reader, 20)

    return await everywhere(target, connections, one)


async def many_parts(target: Target, connections: int) -> Counter[str]:
    """Forms of a hundred thousand parts, of a field whose name is a megabyte, of files without end; deep JSON."""
    part = b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\nx\r\n'
    file = b'--b\r\nContent-Disposition: form-data; name="clean"; filename="%d"\r\n\r\nx\r\n'
    bodies = [
        ("multipart/form-data; boundary=b", b"".join(part % number for number in range(100_000)) + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", part.replace(b"%d", b"n" * (1 << 20)) + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b"".join(file % number for number in range(50_000)) + b"--b--\r\n"),
        ("application/json", b"[" * 500_000 + b"]" * 500_000),
    ]
    numbers = iter(range(connections))

    async def one(connection: Connection) -> str:
        reader, writer = connection
        kind, body = bodies[next(numbers) % len(bodies)]
        writer.write(head("POST", "/v1/jobs", f"Content-Type: {kind}", f"Content-Length: {len(body)}"))
        writer.write(body)
        return await answered(reader, 30)

    return await everywhere(target, connections, one)


async def waiting_for_images(target: Target, connections: int) -> Counter[str]:
    """Clients that wait for an image which nobody restores."""
    image = encoded(pixels(16, 16))

    async def one(connection: Connection) -> str:
        reader, writer = connection
        path = f"/v1/models/{target.model}/super-resolve"
        writer.write(head("POST", path, "Content-Type: image/png", f"Content-Length: {len(image)}", "Prefer: wait=8"))
        writer.write(image)
        return await answered(reader, 30)

    return await everywhere(target, connections, one)


ATTACKS: Final[dict[str, Attack]] = {
    "idle": idle,
    "slow heads": slow_heads,
    "half bodies": half_bodies,
    "slow bodies": slow_bodies,
    "bodies beyond the limit": too_long_bodies,
    "unread downloads": unread_downloads,
    "event streams": event_streams,
    "pipelines": pipelines,
    "huge heads": huge_heads,
    "many parts": many_parts,
    "waiting for images": waiting_for_images,
}
