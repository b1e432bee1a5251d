"""Processor time and memory of reading and writing images of 100 megapixels, and of small ones; one JSON object a line.

`python benchmarks/image_files.py [--side 10000]`; each case runs in a process of its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from skimage import data

from ml.image_metadata import Metadata
from ml.image_reader import open_image
from ml.image_writer import FileFormat, ImageCanvas, Output
from ml.libvips import pyvips

ROWS = 64
READ = ("png", "png interlaced", "jpeg", "jpeg progressive", "jpeg turned", "tiff", "webp")
WRITTEN: tuple[FileFormat, ...] = ("png", "jpeg", "tiff")


def photograph(width: int, height: int) -> pyvips.Image:
    """A photograph tiled over the whole, with noise, so that no two tiles compress alike."""
    tile = data.astronaut()
    image = pyvips.Image.new_from_memory(tile.tobytes(), tile.shape[1], tile.shape[0], 3, "uchar")
    noise = pyvips.Image.gaussnoise(width, height, sigma=4, mean=0)
    tiled = image.replicate(-(-width // tile.shape[1]), -(-height // tile.shape[0])).crop(0, 0, width, height)
    return (tiled + noise).cast("uchar").copy(interpretation="srgb")


def make(case: str, side: int, path: Path) -> None:
    width = min(side, 16_383) if case == "webp" else side
    image = photograph(width, side if width == side else side * side // width)
    match case.split():
        case ["png", *interlaced]:
            image.pngsave(str(path), compression=1, interlace=bool(interlaced))
        case ["jpeg", *how]:
            image = image.copy()
            image.set_type(pyvips.GValue.gint_type, "orientation", 6 if how == ["turned"] else 1)
            image.jpegsave(str(path), Q=90, interlace=how == ["progressive"])
        case ["tiff"]:
            image.tiffsave(str(path), compression="deflate", predictor="horizontal", level=1)
        case _:
            image.webpsave(str(path), Q=90, effort=0)


def memory_mib() -> dict[str, float]:
    """The most that was resident, and how much of it is anonymous now."""
    anonymous = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_mib": round(peak), "anonymous_mib": round(int(anonymous.split()[1]) / 1024)}


def read(path: Path) -> dict[str, float]:
    started = time.process_time()
    with open_image(path) as reader:
        pixels = reader.width * reader.height
        while len(reader.read_rows(ROWS)):
            pass
        return {"cpu_s": round(time.process_time() - started, 2), "megapixels": pixels / 1e6, **memory_mib()}


def write(file_format: FileFormat, side: int, folder: Path) -> dict[str, float]:
    tile = np.tile(data.astronaut()[:ROWS], (1, -(-side // 512), 1))[:, :side]
    random = np.random.default_rng(0)
    with ImageCanvas(side, side, 3, 8, folder=folder) as canvas:
        for top in range(0, side, ROWS):
            rows = tile[: min(ROWS, side - top)]
            canvas.append(rows + random.integers(0, 8, rows.shape, dtype=np.uint8))
        started = time.process_time()
        canvas.save(folder / "written", Output(file_format), Metadata())
        cpu_s = round(time.process_time() - started, 2)
    return {"cpu_s": cpu_s, "bytes": (folder / "written").stat().st_size, **memory_mib()}


def small(side: int) -> dict[str, float]:
    pixels = data.astronaut()[:side, :side]
    with ImageCanvas(side, side, 3, 8) as canvas:
        canvas.append(pixels)
        file = canvas.encode(Output("png"), Metadata())

    def encode() -> None:
        with ImageCanvas(side, side, 3, 8) as canvas:
            canvas.append(pixels)
            canvas.encode(Output("png"), Metadata())

    def decode() -> None:
        with open_image(file) as reader:
            reader.read_all()

    def milliseconds(work: Callable[[], None]) -> float:
        times = []
        for _ in range(50):
            started = time.process_time()
            work()
            times.append(1000 * (time.process_time() - started))
        return round(statistics.median(times), 2)

    return {"decode_cpu_ms": milliseconds(decode), "encode_cpu_ms": milliseconds(encode)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "CASE"))
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        what, case = arguments.one
        match what:
            case "make":
                make(case, arguments.side, arguments.folder / case)
            case "read":
                print(json.dumps({what: case, **read(arguments.folder / case)}))
            case "write":
                print(json.dumps({what: case, **write(case, arguments.side, arguments.folder)}))
            case _:
                print(json.dumps({what: case, **small(int(case))}))
        return
    with tempfile.TemporaryDirectory(prefix="drtl-benchmark-") as folder:
        common = [sys.executable, __file__, "--side", str(arguments.side), "--folder", folder, "--one"]
        for case in READ:
            subprocess.run([*common, "make", case], check=True)
            subprocess.run([*common, "read", case], check=True)
        for case in WRITTEN:
            subprocess.run([*common, "write", case], check=True)
        for side in ("256", "512"):
            subprocess.run([*common, "png of side", side], check=True)


if __name__ == "__main__":
    main()
