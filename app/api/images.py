"""Opens hostile image files: the decoder tells the format, and the header is judged before pixels are decoded."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from PIL import BmpImagePlugin, Image, TiffImagePlugin, UnidentifiedImageError

from app.api.jpeg_scans import find_scans
from app.core.errors import BadImage, ServiceError, TooLarge, UnsupportedMedia

FORMATS: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
# Palettes and sub-byte images count as what they decode to; floating point has no agreed white.
PIXEL_TYPES: Final = {
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I"),
    *("I;16", "I;16L", "I;16B", "I;16N"),
}
MAX_JPEG_SCANS: Final = 100  # A progressive JPEG has about ten; each costs a pass over the whole image.
MAX_HEADER_BYTES: Final = 8 << 20  # Profiles and EXIF included; what is larger hides something.
MAX_PNG_CHUNKS: Final = 500_000  # A gigabyte in the pieces that encoders cut is a quarter of that.
MAX_TIFF_TILE_PIXELS: Final = 1 << 24  # A tile is decoded whole, however small the image is.
MAX_TIFF_PLANES_BYTES: Final = 768 << 20  # Of separate planes a worker holds a strip each, however long it is.
TIFF_DEPTHS: Final = {1, 2, 4, 8, 16}  # Bits; others a worker does not read.
SIGNED: Final = 2  # as a sample format of a TIFF
FLOATING: Final = 3
DNG_VERSION: Final = 50706  # The tag of a camera's raw file, whose first image is often but a small preview.
YCBCR: Final = 6  # as a photometric interpretation of a TIFF
JPEG_COMPRESSIONS: Final = {6, 7}  # of a TIFF
TIFF_COLOURS: Final = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # Channels of each photometric interpretation
ORIENTATION: Final = 0x0112
SIGNATURES: Final = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"BM": "BMP",
    b"%PDF": "PDF",
    b"PK\x03\x04": "zip",
}

TO_CONVERT: Final = (  # Images of formats that are not decoded here: where the signature begins, and the name.
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    *((0, b"P%d%c" % (kind, space), "PNM") for kind in range(1, 7) for space in b"\n\r\t "),
    *((4, b"ftyp" + brand, "AVIF") for brand in (b"avif", b"avis")),
    *((4, b"ftyp" + brand, "HEIC") for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")),
    *((4, b"ftyp" + brand, "HEIF") for brand in (b"mif1", b"msf1")),
    *((0, start, "raw") for start in (b"II*\x00\x10\x00\x00\x00CR", b"FUJIFILMCCD-RAW", b"IIU\x00", b"IIRO")),
)

# The limits are settings, judged below; Pillow's own would warn or raise at another number.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class ImageFacts:
    """What the header says; width and height as they are shown, after the EXIF orientation."""

    format: str
    width: int
    height: int


@contextmanager
def opened(file: BinaryIO, max_pixels: int, *, header_only: bool = False) -> Iterator[Image.Image]:
    """An image whose header has been found acceptable; its pixels are decoded by whatever the caller does next.

    With `header_only` they cannot be: the file ends after what a header may take. Raises UnsupportedMedia, TooLarge or
    BadImage, also for what goes wrong while the caller decodes.
    """
    start = _Start(file)
    try:
        with Image.open(cast("BinaryIO", start) if header_only else file, formats=FORMATS) as image:
            _judge(image, file, max_pixels)
            yield image
    except ServiceError:
        raise
    except Exception as error:  # A hostile file can make a decoder raise anything
        if start.exceeded:  # Which Pillow takes for one of the ways in which a file is broken.
            raise BadImage(f"The header takes more than {MAX_HEADER_BYTES} bytes.") from None
        if isinstance(error, UnidentifiedImageError):
            raise _unidentified(file) from None
        raise BadImage(f"The image is damaged or incomplete ({error}).") from error


def facts(image: Image.Image) -> ImageFacts:
    """The upright size of an opened image, without decoding its pixels."""
    width, height = image.size
    exif = Image.Image.getexif(image)  # PNG's own version would decode the image to look for EXIF behind it.
    if exif.get(ORIENTATION, 1) in {5, 6, 7, 8}:
        width, height = height, width
    name = "JPEG" if image.format == "MPO" else str(image.format)
    return ImageFacts(name, width, height)


def check_header(file: BinaryIO, max_pixels: int) -> ImageFacts:
    """The facts of a header that promises a still image of acceptable size, in a file that is long enough to keep it.

    For images that a worker decodes, and finds damage further down: nothing here costs memory in proportion to the
    file, whatever it is. Raises UnsupportedMedia, TooLarge or BadImage.
    """
    head = file.read(30)
    file.seek(0)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _judge_webp(head, _length(file), max_pixels)
    with opened(file, max_pixels, header_only=True) as image:
        if not _is_whole(image, file):
            raise BadImage(f"The {image.format} is incomplete: it ends before its last pixels.")
        return facts(image)


class _Start(io.RawIOBase):
    """A file of which no more than a header can be read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MAX_HEADER_BYTES
        self.exceeded = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        asked = self._left + 1 if size is None or size < 0 else size
        content = self._file.read(min(asked, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            self.exceeded = True
            raise OSError("the header does not end")
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _judge_webp(head: bytes, length: int, max_pixels: int) -> ImageFacts:
    """By the first chunk (RFC 9649, 2.5 to 2.7): Pillow would read the whole file first."""
    (riff_length,) = struct.unpack("<I", head[4:8])
    if len(head) < 30:
        raise BadImage("The WebP is damaged or incomplete: its header cannot be read.")
    match head[12:16]:
        case b"VP8X":
            if head[20] & 0x02:
                raise BadImage("The WEBP is animated; a still image is needed.")
            width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
        case b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack("<HH", head[26:30]))
        case b"VP8L":
            (bits,) = struct.unpack("<I", head[21:25])
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case _:
            raise BadImage("The WebP is damaged or incomplete: its header cannot be read.")
    _judge_size(width, height, max_pixels)
    if length < riff_length + 8:
        raise BadImage("The WebP is incomplete: it ends before its last pixels.")
    return ImageFacts("WEBP", width, height)


def _is_whole(image: Image.Image, file: BinaryIO) -> bool:
    """Whether the file has as many bytes as its header needs, as far as that can be told without decoding."""
    length = _length(file)
    match image.format:
        case "PNG":
            return _png_ends(file)
        case "TIFF":
            assert isinstance(image, TiffImagePlugin.TiffImageFile)
            tags: Any = image.tag_v2
            places, sizes = (273, 279) if 273 in tags else (324, 325)
            return all(start + size <= length for start, size in zip(tags[places], tags[sizes], strict=False))
        case "BMP":
            assert isinstance(image, BmpImagePlugin.BmpImageFile)
            arguments: Any = image.tile[0].args  # (raw mode, bytes of a row, direction)
            return bool(image.tile[0].offset + arguments[1] * image.height <= length)
        case _:  # Of a JPEG.
            _, ended = find_scans(file)
            return ended


def _png_ends(file: BinaryIO) -> bool:
    """Whether the chunks lead from one to the next and at last to the one that ends the file."""
    position = 8
    for _ in range(MAX_PNG_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return False
        size, name = struct.unpack(">I4s", head)
        position += 12 + size
        if name == b"IEND":
            return True
    raise BadImage(f"The PNG has more than {MAX_PNG_CHUNKS} chunks.")


def _length(file: BinaryIO) -> int:
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    return length


def _judge(image: Image.Image, file: BinaryIO, max_pixels: int) -> None:
    _judge_size(*image.size, max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _judge_tiff_pixels(image.tag_v2)
    if image.mode not in PIXEL_TYPES:
        raise BadImage(f"The pixel type {image.mode} is not supported.")
    match image.format:
        case "TIFF":
            _judge_tiff(image)
        case "BMP":
            if image.info.get("compression", 0) not in {0, 3}:
                raise BadImage("The BMP is run-length encoded; only plain ones are accepted.")
        case "JPEG" | "MPO":  # Phones write MPO: a JPEG that carries previews behind it. The first image counts.
            scans, _ = find_scans(file)
            if scans > MAX_JPEG_SCANS:
                raise BadImage("The JPEG has more scans than any camera or encoder makes.")
        case _:
            if getattr(image, "n_frames", 1) > 1:
                raise BadImage(f"The {image.format} is animated; a still image is needed.")


def _judge_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooLarge(f"The image has {width}×{height} pixels; at most {max_pixels} are accepted.")


def _judge_tiff(image: Image.Image) -> None:
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    tags: Any = image.tag_v2
    tile_pixels = int(tags.get(TiffImagePlugin.TILEWIDTH, 0)) * int(tags.get(TiffImagePlugin.TILELENGTH, 0))
    if tile_pixels > MAX_TIFF_TILE_PIXELS:
        raise TooLarge(f"The TIFF has tiles of {tile_pixels} pixels; at most {MAX_TIFF_TILE_PIXELS} are accepted.")
    held = _held_of_planes(tags, *image.size)
    if held > MAX_TIFF_PLANES_BYTES:
        raise TooLarge(
            f"The TIFF has its colours in separate planes, of which {held} bytes would have to be held at once; "
            f"at most {MAX_TIFF_PLANES_BYTES} are accepted."
        )
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    if photometric == YCBCR and tags.get(TiffImagePlugin.COMPRESSION) not in JPEG_COMPRESSIONS:
        raise BadImage("The TIFF holds YCbCr that is not compressed as JPEG; grey, RGB or CMYK is needed.")
    channels = int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
    beside = channels - TIFF_COLOURS.get(photometric, channels)
    if beside not in {0, 1} or len(tags.get(TiffImagePlugin.EXTRASAMPLES, ())) != beside:
        raise BadImage(
            f"The TIFF has {channels} channels; grey, RGB or CMYK is needed, with one declared channel beside at most."
        )
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
    else:
        raise BadImage("The TIFF has several pages; a single image is needed.")


def _judge_tiff_pixels(tags: Any) -> None:
    if DNG_VERSION in tags:
        raise _to_be_converted("DNG")
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    sample_format = tags.get(TiffImagePlugin.SAMPLEFORMAT, ())
    if FLOATING in sample_format:
        raise BadImage(f"The TIFF has pixels of {bits}-bit floating point; export it with 8 or 16 bits.")
    if SIGNED in sample_format or bits not in TIFF_DEPTHS:
        kind = f"{bits} bits{' with sign' if SIGNED in sample_format else ''}"
        raise BadImage(f"The TIFF has pixels of {kind}; 8 or 16 bits without sign are needed.")


def _judge_strange_tiff(file: BinaryIO) -> None:
    """Raise what can be said of a TIFF that Pillow cannot open, if its tags can be read at least."""
    file.seek(0)
    start = cast("BinaryIO", _Start(file))
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(start.read(8))
        start.seek(tags.next)
        tags.load(start)
        _judge_tiff_pixels(tags)
    except ServiceError:
        raise
    except Exception:  # noqa: BLE001 - a hostile file can make the reader raise anything, and it is refused anyway
        return


def _held_of_planes(tags: Any, width: int, height: int) -> int:
    """The bytes of one strip of every plane, 0 where the colours stand together or in tiles."""
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) != 2 or TiffImagePlugin.TILEWIDTH in tags:
        return 0
    rows = min(int(tags.get(TiffImagePlugin.ROWSPERSTRIP, 0)) or height, height)
    depth_bytes = -(-max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) // 8)
    return int(width * rows * depth_bytes * int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)))


def _unidentified(file: BinaryIO) -> ServiceError:
    """What to say about a file that no accepted decoder knows."""
    file.seek(0)
    head = file.read(16)
    for place, signature, name in TO_CONVERT:
        if head.startswith(signature, place):
            return _to_be_converted(name)
    kind = next((name for signature, name in SIGNATURES.items() if head.startswith(signature)), None)
    if not head:
        return BadImage("The file is empty.")
    if kind == "TIFF":
        try:
            _judge_strange_tiff(file)
        except ServiceError as refusal:
            return refusal
    if kind is not None and kind.upper() in FORMATS:
        return BadImage(f"The {kind} is damaged or incomplete: its header cannot be read.")
    found = f"It is a {kind} file" if kind else "It is not an image"
    return UnsupportedMedia(f"{found}; accepted are {', '.join(FORMATS)}.")


def _to_be_converted(kind: str) -> UnsupportedMedia:
    article = "an" if kind[0] in "AI" else "a"
    return UnsupportedMedia(f"It is {article} {kind} file; convert it to PNG, TIFF or JPEG.")
