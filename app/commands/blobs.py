"""`drtl blobs copy`: moves images and weights from one storage to another, such as from a folder into a bucket."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from app.commands.output import console, print_json
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.storages import open_storage
from app.failures import CommandFailed

Place = Annotated[str, typer.Argument(help="A folder, or s3://bucket/prefix with AWS_* variables for where it is.")]


def copy(
    source: Place,
    target: Place,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Copy all blobs that are not there yet, and check each against its name. Nothing is removed.

    Exits with 1 where a blob of the source is damaged; the others are copied all the same.
    """
    if not source.startswith("s3://") and not Path(source).is_dir():
        raise CommandFailed(f"{source} is no folder", "name the folder that DRTL_BLOB_DIR names, or s3://bucket/prefix")
    try:
        copied, damaged = copy_missing(opened(source), opened(target))
    except OSError as error:
        raise CommandFailed(
            f"not all was copied: {error}", "run the command again: it goes on where it stopped"
        ) from error
    if as_json:
        print_json({"copied": copied, "damaged": damaged})
    else:
        console.print(f"{copied:,} blobs copied", highlight=False)
    if damaged:
        raise CommandFailed(f"damaged in {source}, and left out: {', '.join(damaged)}")


def opened(place: str) -> Storage:
    if not place.startswith("s3://"):
        return open_storage(Settings(blob_dir=Path(place), blob_url=""))
    try:
        return open_storage(Settings(blob_url=place))
    except ValidationError as error:
        raise CommandFailed(f"{place} names no bucket", "write s3://bucket or s3://bucket/prefix") from error


def copy_missing(source: Storage, target: Storage) -> tuple[int, list[str]]:
    """Copy every blob that the target lacks. Returns how many, and which are not what their names say."""
    there = {file.key for file in target.inventory()}
    copied, damaged = 0, []
    for file in source.inventory():
        if file.key is None or file.key in there:
            continue
        there.add(file.key)
        try:
            with source.open(file.key) as stream:
                stored = target.put(stream)
        except FileNotFoundError:
            continue  # It has been removed meanwhile.
        if stored == file.key:
            copied += 1
            continue
        damaged.append(file.key)
        if stored not in there:
            target.delete(stored)
    return copied, damaged
