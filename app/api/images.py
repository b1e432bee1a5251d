"""Opens hostile image files: the decoder tells the format, and the header is judged before pixels are decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from app.core.errors import BadImage, ServiceError, TooLarge, UnsupportedMedia

PHOTO_FORMATS: Final = ("PNG", "JPEG")
PAIR_FORMATS: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
# Palettes and sub-byte images count as what they decode to; floating point has no agreed white.
PIXEL_TYPES: Final = {
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I"),
    *("I;16", "I;16L", "I;16B", "I;16N"),
}
MAX_JPEG_SCANS: Final = 100  # A progressive JPEG has about ten; each costs a pass over the whole image.
MAX_TIFF_TILE_PIXELS: Final = 1 << 24  # A tile is decoded whole, however small the image is.
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

# The limit is `max_image_pixels`, judged below; Pillow's own would warn or raise at another number.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class ImageFacts:
    """What the header says; width and height as they are shown, after the EXIF orientation."""

    format: str
    width: int
    height: int


@contextmanager
def opened(file: BinaryIO, formats: tuple[str, ...], max_pixels: int) -> Iterator[Image.Image]:
    """An image whose header has been found acceptable; its pixels are decoded by whatever the caller does next.

    Raises UnsupportedMedia, TooLarge or BadImage, also for what goes wrong while the caller decodes.
    """
    try:
        with Image.open(file, formats=formats) as image:
            _judge(image, file, max_pixels)
            yield image
    except ServiceError:
        raise
    except UnidentifiedImageError:
        raise _unidentified(file, formats) from None
    except Exception as error:  # A hostile file can make a decoder raise anything
        raise BadImage(f"The image is damaged or incomplete ({error}).") from error


def facts(image: Image.Image) -> ImageFacts:
    """The upright size of an opened image, without decoding its pixels."""
    width, height = image.size
    exif = Image.Image.getexif(image)  # PNG's own version would decode the image to look for EXIF behind it.
    if exif.get(ORIENTATION, 1) in {5, 6, 7, 8}:
        width, height = height, width
    name = "JPEG" if image.format == "MPO" else str(image.format)
    return ImageFacts(name, width, height)


def check_whole(image: Image.Image) -> None:
    """Raise unless the file holds the whole image, at much less cost than decoding it. The image is used up."""
    if image.format == "PNG":
        image.verify()  # All chunks with their checksums.
    else:
        image.draft("L", (image.width // 8, image.height // 8))
        image.load()


def _judge(image: Image.Image, file: BinaryIO, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise TooLarge(f"The image has {width}×{height} pixels; at most {max_pixels} are accepted.")
    if image.mode not in PIXEL_TYPES:
        raise BadImage(f"The pixel type {image.mode} is not supported.")
    match image.format:
        case "TIFF":
            _judge_tiff(image)
        case "BMP":
            if image.info.get("compression", 0) not in {0, 3}:
                raise BadImage("The BMP is run-length encoded; only plain ones are accepted.")
        case "JPEG" | "MPO":  # Phones write MPO: a JPEG that carries previews behind it. The first image counts.
            if _count(file, b"\xff\xda") > MAX_JPEG_SCANS:
                raise BadImage("The JPEG has more scans than any camera or encoder makes.")
        case _:
            if getattr(image, "n_frames", 1) > 1:
                raise BadImage(f"The {image.format} is animated; a still image is needed.")


def _judge_tiff(image: Image.Image) -> None:
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    tags: Any = image.tag_v2
    tile_pixels = int(tags.get(TiffImagePlugin.TILEWIDTH, 0)) * int(tags.get(TiffImagePlugin.TILELENGTH, 0))
    if tile_pixels > MAX_TIFF_TILE_PIXELS:
        raise TooLarge(f"The TIFF has tiles of {tile_pixels} pixels; at most {MAX_TIFF_TILE_PIXELS} are accepted.")
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
    else:
        raise BadImage("The TIFF has several pages; a single image is needed.")


def _count(file: BinaryIO, marker: bytes) -> int:
    position = file.tell()
    file.seek(0)
    total, tail = 0, b""
    while chunk := file.read(1 << 20):
        total += (tail + chunk).count(marker)
        tail = chunk[-1:]
    file.seek(position)
    return total


def _unidentified(file: BinaryIO, formats: tuple[str, ...]) -> ServiceError:
    """What to say about a file that no accepted decoder knows."""
    file.seek(0)
    head = file.read(16)
    kind = next((name for signature, name in SIGNATURES.items() if head.startswith(signature)), None)
    if not head:
        return BadImage("The file is empty.")
    if kind is not None and kind.upper() in formats:
        return BadImage(f"The {kind} is damaged or incomplete: its header cannot be read.")
    found = f"It is a {kind} file" if kind else "It is not an image"
    return UnsupportedMedia(f"{found}; accepted are {', '.join(formats)}.")
