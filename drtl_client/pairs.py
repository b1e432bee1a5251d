"""Few-shot pairs, as folders on disk or as images in memory."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from drtl_client.documents import Dataset
from drtl_client.errors import BadFolder, NoFolder
from drtl_client.flow import Part
from drtl_client.images import ImageInput, as_part

PairsInput: TypeAlias = str | os.PathLike[str] | Dataset | Sequence["PairPaths | tuple[ImageInput, ImageInput]"]
SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
# Images of formats that the service does not read.
PHOTOGRAPHS: Final = {".heic", ".heif", ".avif", ".jxl", ".gif", ".psd", ".exr"}
RAW: Final = {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
DATASET_ID: Final = re.compile(r"ds_[0-9a-f]{1,36}")


@dataclass(frozen=True)
class PairPaths:
    """The two files of a pair on this machine."""

    name: str
    clean: Path
    distorted: Path


def pairs_in(folder: str | os.PathLike[str]) -> list[PairPaths]:
    """The pairs in folder/clean and folder/distorted, by name: equal file stems, or else equal order.

    Hidden files, such as macOS lays beside others (._001.png), are none of them. `Clean` and `DISTORTED` will do, too.
    Raises NoFolder, or BadFolder that says what is missing, of which name there are two, or what cannot be read.
    """
    if not Path(folder).is_dir():
        raise NoFolder(f"{folder} is not a folder" if Path(folder).exists() else f"there is no folder {folder}")
    files: dict[str, dict[str, Path]] = {}
    for kind in ("clean", "distorted"):
        inside = _side(Path(folder), kind)
        seen = sorted(path for path in inside.iterdir() if not path.name.startswith("."))
        images, foreign = (
            [path for path in seen if path.suffix.lower() in kinds] for kinds in (SUFFIXES, PHOTOGRAPHS | RAW)
        )
        stems = {path.stem for path in images}
        if alone := [path.name for path in foreign if path.stem not in stems]:  # Not beside a converted one.
            raise BadFolder(
                f"{inside}: {_few(alone)}: not a format that the service reads; convert to PNG, TIFF or JPEG"
            )
        if not images:
            raise BadFolder(f"{inside} has no images (PNG, JPEG, WebP, TIFF or BMP)")
        files[kind] = {path.stem: path for path in images}
        if twice := [path.stem for path in images if files[kind][path.stem] != path]:
            raise BadFolder(f"{inside}: more than one image is named {_few(twice)}")
    clean, distorted = files["clean"], files["distorted"]
    if clean.keys() == distorted.keys():
        return [PairPaths(stem, path, distorted[stem]) for stem, path in clean.items()]
    if len(clean) != len(distorted) or clean.keys() & distorted.keys():
        raise BadFolder(f"{folder}: without a partner: {_few(sorted(clean.keys() ^ distorted.keys()))}")
    in_order = zip(clean.items(), distorted.values(), strict=True)
    return [PairPaths(stem, path, other) for (stem, path), other in in_order]


def _side(folder: Path, kind: str) -> Path:
    """The folder named so, or else the only one that is but for capitals. Raises BadFolder."""
    if (exact := folder / kind).is_dir():
        return exact
    alike = sorted(path for path in folder.iterdir() if path.name.lower() == kind and path.is_dir())
    if len(alike) > 1:
        raise BadFolder(f"{folder} has {' and '.join(path.name for path in alike)}; name one of them {kind}")
    if not alike:
        raise BadFolder(f"{folder} has no folder named {kind}")
    return alike[0]


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}"


def dataset_id(pairs: PairsInput) -> str | None:
    """The id, where the pairs are a dataset that was uploaded before."""
    if isinstance(pairs, Dataset):
        return pairs.id
    return pairs if isinstance(pairs, str) and DATASET_ID.fullmatch(pairs) else None


def as_parts(pairs: PairsInput) -> tuple[Part, ...]:
    """The pairs as files of a form. A zip is sent as it is; files of a pair get a common name, whatever theirs were.

    Raises BadFolder.
    """
    if isinstance(pairs, str | os.PathLike):
        path = Path(pairs)
        if path.suffix.lower() == ".zip":
            return (Part("archive", path.name, path),)
        pairs = pairs_in(path)
    assert not isinstance(pairs, Dataset)
    images = [(pair.clean, pair.distorted) if isinstance(pair, PairPaths) else _two(pair) for pair in pairs]
    parts = []
    for name, pair in zip(_names([clean for clean, _ in images]), images, strict=True):
        for kind, image in zip(("clean", "distorted"), pair, strict=True):
            part = as_part(kind, image)
            parts.append(Part(kind, f"{name}{Path(part.name).suffix}", part.content))
    return tuple(parts)


def _two(pair: Any) -> tuple[ImageInput, ImageInput]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise BadFolder("a pair is a tuple of a clean and a distorted image")
    return pair[0], pair[1]


def _names(clean: Sequence[ImageInput]) -> list[str]:
    """What the service will call the pairs: the clean files' stems where those tell them apart, or else numbers."""
    stems = [Path(image).stem for image in clean if isinstance(image, str | os.PathLike)]
    if len(set(stems)) == len(clean):
        return stems
    return [f"{number:03}" for number in range(1, len(clean) + 1)]


def model_name(pairs: PairsInput) -> str:
    """A model name made of the folder's, in the letters that the service allows."""
    if not isinstance(pairs, str | os.PathLike):
        return "my-device"
    name = Path(pairs).resolve().name.lower().removesuffix(".zip")
    return re.sub(r"[^a-z0-9._-]+", "-", name).strip("-._")[:60] or "my-device"
