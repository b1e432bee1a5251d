"""Makes a dataset of an upload's pairs: they are unpacked, examined, mended if asked for, and kept."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from app.api.archives import ArchiveRules, files_in
from app.api.deps import Services
from app.api.pairs import ExaminedPair, examine, pair_up
from app.api.quotas import require_room_for_pairs, take_room_for_bytes
from app.api.schemas.datasets import Fix
from app.api.uploads import Upload
from app.core.errors import BadArchive, BadPairs
from app.core.settings import Settings
from app.core.tables import Dataset, Pair


def examine_upload(upload: Upload, services: Services, fixes: Sequence[Fix]) -> list[ExaminedPair]:
    """Pairs with their reports, mended where `fixes` allow it, or the error that names every file in the way."""
    files = files_in(upload, archive_rules(services.settings))
    return examine(pair_up(files, services.settings), services, upload.spool, fixes)


def archive_rules(settings: Settings) -> ArchiveRules:
    accepted = f"at most {settings.max_pairs} pairs are accepted."
    return ArchiveRules(
        max_files=2 * settings.max_pairs,
        max_file_bytes=settings.max_pair_bytes,
        max_total_bytes=settings.max_upload_bytes,
        unusable=BadArchive,
        too_many=lambda count: BadPairs(f"The zip holds {count} files; {accepted}", cause="count"),
        field_of=side_of,
        misplaced="The file is in neither clean/ nor distorted/.",
    )


def side_of(path: PurePosixPath) -> str | None:
    """The form field of a file in a zip: the folder that it is in."""
    folder = path.parent.name.lower()
    return folder if folder in {"clean", "distorted"} else None


def store_dataset(pairs: list[ExaminedPair], services: Services) -> Dataset:
    """Put the pairs, as uploaded or mended, into the storage, and make the row that names them: see `add_dataset`.

    Raises OverQuota before anything is kept.
    """
    size = sum(file.size for pair in pairs for file in (pair.files.clean, pair.files.distorted))
    with services.read_sessions() as session:
        require_room_for_pairs(session, services.limits, len(pairs), size)
    rows = []
    for position, pair in enumerate(pairs):
        with pair.files.clean.open() as clean, pair.files.distorted.open() as distorted:
            blobs = services.storage.put(clean), services.storage.put(distorted)
        rows.append(
            Pair(
                position=position,
                name=pair.files.name,
                clean_blob=blobs[0],
                distorted_blob=blobs[1],
                report=pair.report,
            )
        )
    return Dataset(scale=pairs[0].scale, stored_bytes=size, pairs=rows)


def add_dataset(dataset: Dataset, services: Services, session: Session) -> None:
    """Add the row if there still is room for its files: others may have been stored meanwhile. The caller commits.

    Raises OverQuota.
    """
    take_room_for_bytes(session, services.limits, dataset.stored_bytes)
    session.add(dataset)
