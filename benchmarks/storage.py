"""What a storage costs: a folder beside a bucket of a real S3 server on loopback.

    python -m benchmarks.storage [--mib 300] [--blobs 300] [--output FILE]

Writes JSON with machine, commit and seed. Each storage is measured in a process of its own, so that the growth of its
memory can be told. The server is rclone's; it has the same cores and the same disk.
"""

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from app.core.settings import Settings
from app.core.storage import CHUNK_BYTES
from app.core.storages import open_storage
from tests.s3_server import BUCKET, S3Server

RESULT: Final = Path(__file__).with_name("results") / "storage.json"
SMALL_BYTES: Final = 100_000
SEED: Final = 0


class Pattern(io.RawIOBase):
    """A file of that many bytes, which are nowhere."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0
        self._block = random.Random(SEED).randbytes(1 << 20)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed wants any Buffer
        start = self._at % len(self._block)
        count = min(len(buffer), self._size - self._at, len(self._block) - start)
        buffer[:count] = self._block[start : start + count]
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at


def peak_mib() -> float:
    """The most memory that this process has held so far."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def drain(file: BinaryIO) -> int:
    size = 0
    with file:
        while chunk := file.read(CHUNK_BYTES):
            size += len(chunk)
    return size


def measure(blob_url: str, folder: str, mib: int, blobs: int) -> dict[str, Any]:
    """Small blobs, then a large one."""
    storage = open_storage(Settings(data_dir=Path(folder), blob_url=blob_url))
    generator = random.Random(SEED)
    put_ms, get_ms = [], []
    for _ in range(blobs):
        content = generator.randbytes(SMALL_BYTES)
        begun = time.perf_counter()
        key = storage.put(io.BytesIO(content))
        stored = time.perf_counter()
        assert drain(storage.open(key)) == len(content)
        put_ms.append(1000 * (stored - begun))
        get_ms.append(1000 * (time.perf_counter() - stored))
    before = peak_mib()
    begun = time.perf_counter()
    key = storage.put(io.BufferedReader(Pattern(mib << 20), CHUNK_BYTES))
    stored = time.perf_counter()
    assert drain(storage.open(key)) == mib << 20
    read = time.perf_counter()
    return {
        "put_ms": quantiles(put_ms),
        "get_ms": quantiles(get_ms),
        "put_mb_per_s": round((mib << 20) / 1e6 / (stored - begun), 1),
        "get_mb_per_s": round((mib << 20) / 1e6 / (read - stored), 1),
        "memory_growth_mib": round(peak_mib() - before, 1),
    }


def quantiles(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {f"p{cut}": round(cuts[cut - 1], 2) for cut in (50, 90, 99)}


@contextmanager
def bucket(folder: Path) -> Iterator[dict[str, str]]:
    """A running S3 server; yields what its clients need in their environment."""
    with S3Server(folder) as server:
        yield server.environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=300, help="Size of the large blob.")
    parser.add_argument("--blobs", type=int, default=300, help="How many small ones.")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(measure(options.measure or "", options.folder, options.mib, options.blobs)))
        return
    from benchmarks.main_job import commit, machine  # Loads torch, whose memory the children need not have.

    places = {}
    with tempfile.TemporaryDirectory(prefix="drtl-storage-") as name, bucket(Path(name) / "s3") as environment:
        for place, url in (("folder", ""), ("bucket", f"s3://{BUCKET}/benchmark")):
            sizes = ["--mib", str(options.mib), "--blobs", str(options.blobs)]
            command = [sys.executable, "-m", "benchmarks.storage", "--measure", url, "--folder", name, *sizes]
            said = subprocess.run(command, env=os.environ | environment, check=True, stdout=subprocess.PIPE)
            places[place] = json.loads(said.stdout)
    report = {
        "benchmark": "storage",
        "command": f"python -m benchmarks.storage --mib {options.mib} --blobs {options.blobs}",
        "commit": commit(),
        "machine": machine(),
        "seed": SEED,
        "large_mib": options.mib,
        "small_bytes": SMALL_BYTES,
        "places": places,
    }
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
