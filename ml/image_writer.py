"""Writes image files from rows that come one strip after the other; what exceeds some megabytes waits on disk."""

import io
import struct
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ml.image_metadata import KEEP_EXIF, Metadata, attach
from ml.libvips import pyvips
from ml.outscale import resized

FileFormat = Literal["png", "jpeg", "webp", "tiff"]
Write = Callable[[bytes], int]
MEDIA_TYPES: Final[dict[FileFormat, str]] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "tiff": "image/tiff",
}
LONGEST_SIDE: Final[dict[FileFormat, int]] = {"jpeg": 65_500, "webp": 16_383}  # The others have none that matters.
HELD_BYTES: Final = 16 << 20  # of pixels in memory; more go to a file
JPEG_QUALITY: Final = 95
PNG_FILTER_UP: Final = 0x20  # As fast as none and up to a quarter smaller on photographs; the other filters cost more.
CLASSIC_TIFF_BYTES: Final = 4_000_000_000  # Offsets further on do not fit 32 bits.
INTERPRETATIONS: Final = {(True, 8): "b-w", (True, 16): "grey16", (False, 8): "srgb", (False, 16): "rgb16"}


@dataclass(frozen=True)
class Output:
    """How an image is written.

    `quality`, 1 to 100, is that of JPEG (95 unless said) and of WebP (lossless unless said). `keep_metadata` is about
    EXIF, XMP and IPTC; colour profile and resolution say what the pixels mean and are always kept.
    """

    file_format: FileFormat = "png"
    quality: int | None = None
    keep_metadata: bool = True


class ImageCanvas(AbstractContextManager["ImageCanvas"]):
    """A finished image that grows from the top and then becomes a file.

    Channels are grey, grey and alpha, RGB, or RGB and alpha, 8 or 16 bit, as `ImageReader` gives them. To be closed, or
    used in a `with`: its spool file, in `folder`, goes with it.
    """

    def __init__(
        self, width: int, height: int, channels: int, depth: Literal[8, 16], *, folder: Path | None = None
    ) -> None:
        if width < 1 or height < 1 or channels not in {1, 2, 3, 4}:
            raise ValueError(f"canvas: {width}×{height} pixels of {channels} channels are no image")
        self.width, self.height, self.channels, self.depth = width, height, channels, depth
        self._dtype = np.dtype(np.uint8 if depth == 8 else np.uint16)
        self._rows = 0
        self._held = bytearray()
        self._file: IO[bytes] | None = None
        if width * height * channels * self._dtype.itemsize > HELD_BYTES:
            self._file = tempfile.NamedTemporaryFile(prefix="drtl-canvas-", dir=folder)  # noqa: SIM115 - see close

    def append(self, rows: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
        """Add the next rows, (rows, width, channels) in the canvas's depth. Raises ValueError for what does not fit."""
        if rows.dtype != self._dtype or rows.shape[1:] != (self.width, self.channels):
            raise ValueError(f"rows: {rows.dtype} of shape {rows.shape} do not fit the canvas")
        if self._rows + len(rows) > self.height:
            raise ValueError(f"rows: {self._rows + len(rows)} are more than the canvas's {self.height}")
        content = np.ascontiguousarray(rows).data.cast("B")
        if self._file is None:
            self._held += content
        else:
            self._file.write(content)
        self._rows += len(rows)

    def save(
        self,
        path: Path,
        output: Output,
        metadata: Metadata,
        *,
        size: tuple[int, int] | None = None,
        check: Callable[[], None] | None = None,
        is_light: bool = True,
    ) -> None:
        """Write the finished image to a file.

        PNG and TIFF keep the depth, JPEG and WebP round 16 bits to 8; JPEG lays alpha on white. `size`, as (width,
        height), is that of a final resize; values that are no light are averaged as they are. `check` is called from
        time to time and may raise to stop, which leaves a file that is not whole.

        Raises ValueError where the format cannot hold the image.
        """
        with path.open("w+b") as file:
            self._write(file, output, metadata, size, check, is_light=is_light)

    def encode(self, output: Output, metadata: Metadata, *, size: tuple[int, int] | None = None) -> bytes:
        """The finished image as a file in memory, for small ones; otherwise as `save`."""
        file = io.BytesIO()
        self._write(file, output, metadata, size, None)
        return file.getvalue()

    def close(self) -> None:
        self._held = bytearray()
        if self._file is not None:
            self._file.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pixels(self) -> pyvips.Image:
        if self._rows != self.height:
            raise ValueError(f"canvas: {self._rows} of {self.height} rows are there")
        kind = "uchar" if self.depth == 8 else "ushort"
        if self._file is None:
            image = pyvips.Image.new_from_memory(self._held, self.width, self.height, self.channels, kind)
        else:
            self._file.flush()
            image = pyvips.Image.rawload(self._file.name, self.width, self.height, self.channels, format=kind)
        return image.copy(interpretation=INTERPRETATIONS[self.channels < 3, self.depth])

    def _write(
        self,
        file: io.BufferedIOBase,
        output: Output,
        metadata: Metadata,
        size: tuple[int, int] | None,
        check: Callable[[], None] | None,
        *,
        is_light: bool = True,
    ) -> None:
        width, height = size or (self.width, self.height)
        longest = LONGEST_SIDE.get(output.file_format)
        if longest is not None and max(width, height) > longest:
            name = output.file_format.upper()
            raise ValueError(f"{name}: no side may be longer than {longest} pixels; the image has {width}×{height}")
        image = resized(self._pixels(), width, height, is_light=is_light)
        if output.file_format in {"jpeg", "webp"}:
            image = _eight_bits(image)
        if output.file_format == "jpeg" and image.bands in {2, 4}:
            image = image.flatten(background=255)
        image, keep = attach(image, metadata, keep=output.keep_metadata)
        write: Write = file.write
        if output.file_format == "jpeg" and metadata.dots_per_mm is not None and not keep & KEEP_EXIF:
            write = _after_jfif(file.write, metadata.dots_per_mm)
        target = _Target(write)
        if output.file_format == "tiff":
            target.vips.on_read(file.read)
            target.vips.on_seek(file.seek)
        if check is not None:
            target.stop_when_raised(check, image)
        with target:
            _encode(image, target.vips, output, keep)


def _eight_bits(image: pyvips.Image) -> pyvips.Image:
    if image.format == "uchar":
        return image
    interpretation = INTERPRETATIONS[image.bands < 3, 8]
    return (image / 257).rint().cast("uchar").copy(interpretation=interpretation)  # 65535 / 255 = 257


def _encode(image: pyvips.Image, target: pyvips.Target, output: Output, keep: int) -> None:
    match output.file_format:
        case "png":
            image.pngsave_target(target, keep=keep, compression=1, filter=PNG_FILTER_UP)
        case "jpeg":
            quality = JPEG_QUALITY if output.quality is None else output.quality
            image.jpegsave_target(target, keep=keep, Q=quality, subsample_mode="off")
        case "webp" if output.quality is None:
            image.webpsave_target(target, keep=keep, lossless=True, exact=True, effort=1)
        case "webp":
            image.webpsave_target(target, keep=keep, Q=output.quality)
        case "tiff":
            pixel_bytes = image.width * image.height * image.bands * (1 if image.format == "uchar" else 2)
            big = pixel_bytes > CLASSIC_TIFF_BYTES
            image.tiffsave_target(
                target, keep=keep, compression="deflate", predictor="horizontal", level=1, bigtiff=big
            )


class _Target:
    """Where libvips writes to. An exception of Python's cannot cross its C code, and is raised at the end instead."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._raised: BaseException | None = None
        self.vips = pyvips.TargetCustom()
        self.vips.on_write(self._guarded_write)

    def stop_when_raised(self, check: Callable[[], None], image: pyvips.Image) -> None:
        """Call `check` while the image is computed, and give up when it raises."""

        def look(running: pyvips.Image, _: object) -> None:
            try:
                if self._raised is None:
                    check()
            except BaseException as error:  # noqa: BLE001 - raised again in __exit__
                self._raised = error
                running.set_kill(True)

        image.set_progress(True)
        image.signal_connect("eval", look)

    def _guarded_write(self, chunk: Any) -> int:  # libvips' own memory, as a buffer of cffi
        try:
            self._write(bytes(chunk))
        except BaseException as error:  # noqa: BLE001 - raised again in __exit__; as of a full disk
            self._raised = error
            return -1
        return len(chunk)

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._raised is not None:
            raise self._raised from None
        if isinstance(error, pyvips.Error):
            raise ValueError(f"image: it cannot be written ({error})") from error  # noqa: TRY004 - no matter of type


def _after_jfif(write: Write, dots_per_mm: tuple[float, float]) -> Write:
    """A `write` that gives the JPEG a JFIF header, which libvips leaves out of one without EXIF, for its resolution."""
    across, down = (min(65535, max(1, round(dots * 25.4))) for dots in dots_per_mm)
    start = struct.pack(">2sHH5sHBHHBB", b"\xff\xd8", 0xFFE0, 16, b"JFIF\0", 0x0102, 1, across, down, 0, 0)

    def write_after(chunk: bytes) -> int:
        nonlocal start
        if start:  # The first chunk begins with the mark that `start` begins with as well.
            start, chunk = b"", start + chunk[2:]
        return write(chunk)

    return write_after
