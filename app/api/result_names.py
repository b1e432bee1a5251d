"""Names files in a zip of results after the files that were sent: safe to unpack anywhere, and each only once."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from app.api.schemas.restoring import OutputFormat
from app.core.tables import Operation

SUFFIXES: Final[dict[OutputFormat, str]] = {"png": ".png", "webp": ".webp", "jpeg": ".jpg", "tiff": ".tif"}
IMAGE_SUFFIXES: Final = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}  # What else follows a dot stays.
FORBIDDEN: Final = str.maketrans(dict.fromkeys([*'<>:"|?*', *map(chr, range(32))], "_"))  # In file names on Windows.
RESERVED: Final = {"con", "prn", "aux", "nul", *(f"{device}{n}" for device in ("com", "lpt") for n in range(1, 10))}


def result_names(images: Sequence[Operation]) -> list[str]:
    """A name for each image of a batch; the same for the whole batch and for a part of it.

    Two files that would share a name, also where upper and lower case are one, are told apart by numbers.
    """
    taken: set[str] = set()
    names = []
    for image in images:
        path = safe_path(image.file_name or "")
        suffix = SUFFIXES[image.options["output"]]
        name, number = f"{path}{suffix}", 1
        while name.casefold() in taken:
            number += 1
            name = f"{path}-{number}{suffix}"
        taken.add(name.casefold())
        names.append(name)
    return names


def safe_path(sent: str) -> str:
    """The sent path without its image suffix, and without what would lead out of the folder it is unpacked in."""
    steps = [safe_part(part) for part in sent.replace("\\", "/").split("/")]
    parts = [step for step in steps if step.strip(". ")]
    path = PurePosixPath(*parts) if parts else PurePosixPath("image")
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path)


def safe_part(part: str) -> str:
    """One step of a path, as every file system takes it."""
    plain = part.translate(FORBIDDEN).strip().rstrip(".")
    return f"_{plain}" if plain.partition(".")[0].lower() in RESERVED else plain
