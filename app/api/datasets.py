"""`/v1/datasets`: few-shot pairs, uploaded as files or as one zip, checked and kept."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.api import examples
from app.api.archives import ArchiveRules, unpack
from app.api.deps import LimitQuery, ReadSessionDep, Services, ServicesDep, SessionDep
from app.api.intake import IMAGE_TYPES
from app.api.openapi import form
from app.api.options import given_once
from app.api.pairs import ExaminedPair, examine, pair_up, wrong_count
from app.api.problems import InvalidBody, problems
from app.api.quotas import require_room_for_pairs, take_room_for_bytes
from app.api.schemas.datasets import DatasetOptions, DatasetOut, Fix
from app.api.schemas.wire import DatasetId, Page
from app.api.uploads import Limits, Upload, media_type_of, receive_form, receive_raw, receive_text, spooled
from app.core import deletions, repository
from app.core.errors import (
    BadArchive,
    BadImage,
    BadPairs,
    BadRequest,
    Conflict,
    NotFound,
    StorageFull,
    TooLarge,
    Unprocessable,
    UnsupportedMedia,
)
from app.core.settings import Settings
from app.core.tables import Dataset, Pair

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

ARCHIVE_FIELD: Final = "archive"
BODY_TYPES: Final = ("multipart/form-data", "application/zip")
ZIP_TYPES: Final = ("application/zip", "application/x-zip-compressed")
UPLOAD_REFUSALS: Final = (BadRequest, TooLarge, UnsupportedMedia, BadPairs, BadArchive, BadImage)

FILES: Final[dict[str, Any]] = {
    "type": "array",
    "items": {"type": "string", "format": "binary"},
}
PAIR_FIELDS: Final[dict[str, Any]] = {
    "clean": {**FILES, "description": "The clean images."},
    "distorted": {**FILES, "description": "The distorted images, paired by file stem, or else by order."},
    ARCHIVE_FIELD: {
        "type": "string",
        "format": "binary",
        "description": "Instead of single files: one zip with the folders `clean/` and `distorted/`.",
    },
}
EITHER_FILES_OR_ARCHIVE: Final = [{"required": ["clean", "distorted"]}, {"required": [ARCHIVE_FIELD]}]
PAIR_ENCODING: Final[dict[str, Any]] = {
    "clean": {"contentType": ", ".join(IMAGE_TYPES)},
    "distorted": {"contentType": ", ".join(IMAGE_TYPES)},
    ARCHIVE_FIELD: {"contentType": "application/zip"},
}
FIX_FIELD: Final[dict[str, Any]] = {"type": "string", "description": "As the query parameter."}
ZIP_BODY: Final[dict[str, Any]] = {
    "schema": {"type": "string", "format": "binary", "description": "A zip with `clean/` and `distorted/`."},
    "examples": {"zip": {"summary": "curl --data-binary @pairs.zip -H 'Content-Type: application/zip'", "value": "…"}},
}
FORM_FILES_EXAMPLE: Final[dict[str, Any]] = {"clean": ["001.png", "002.png"], "distorted": ["001.jpg", "002.jpg"]}
UPLOAD_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": form({**PAIR_FIELDS, "fix": FIX_FIELD}, anyOf=EITHER_FILES_OR_ARCHIVE),
                "encoding": PAIR_ENCODING,
                "examples": {"files": {"summary": "Files paired by name", "value": FORM_FILES_EXAMPLE}},
            },
            "application/zip": ZIP_BODY,
        },
    },
    "parameters": [
        {
            "name": "fix",
            "in": "query",
            "required": False,
            "schema": {"type": "string"},
            "description": "`align`, `crop`, `match_colour`, `swap`, any of them between commas; also as a form field.",
            "example": "align,match_colour",
        }
    ],
}


def receiving(*, text: bool) -> Callable[[Request, ServicesDep], AsyncIterator[Upload]]:
    """A dependency: the request's body, its files on disk until the endpoint is done, with a turn at the examiners.

    With `text` the body may be JSON that names a dataset, too.
    """
    accepted = " or ".join(BODY_TYPES) + ", or application/json that names a dataset" * text

    async def receive(request: Request, services: ServicesDep) -> AsyncIterator[Upload]:
        settings = services.settings
        limits = Limits(
            max_files=2 * settings.max_pairs,
            max_file_bytes=settings.max_pair_bytes,
            max_body_bytes=settings.max_upload_bytes,
            too_many=lambda: wrong_count(f"There are more than {2 * settings.max_pairs} files", settings),
            unlimited_fields=frozenset({ARCHIVE_FIELD}),
        )
        with spooled() as spool:
            match media_type_of(request):
                case "multipart/form-data":
                    upload = await receive_form(request, spool, limits)
                case "application/zip" | "application/x-zip-compressed":
                    upload = await receive_raw(request, spool, limits.for_archive())
                case "application/json" if text:
                    yield await receive_text(request, spool)
                    return
                case other:
                    detail = f"A body of type {other or 'unknown'} is not understood; send {accepted}."
                    raise UnsupportedMedia(detail, pointer="Content-Type")
            async with services.examiners.turns:
                yield upload

    return receive


PairsUpload = Annotated[Upload, Depends(receiving(text=False), scope="function")]
PairsOrNameUpload = Annotated[Upload, Depends(receiving(text=True), scope="function")]


def examine_upload(upload: Upload, services: Services, fixes: Sequence[Fix]) -> list[ExaminedPair]:
    """Pairs with their reports, mended where `fixes` allow it, or the error that names every file in the way."""
    files = upload.files
    if upload.media_type in ZIP_TYPES or [file.field for file in files] == [ARCHIVE_FIELD]:
        files = unpack(files[0], upload.spool, archive_rules(services.settings))
    return examine(pair_up(files, services.settings), services, upload.spool, fixes)


def read_fixes(upload: Upload, request: Request) -> list[Fix]:
    """The fixes asked for, in the form or in the query. Raises InvalidBody or Unprocessable."""
    try:
        return DatasetOptions.model_validate(given_once(upload.fields, request.query_params)).fix
    except ValidationError as error:
        raise InvalidBody(error) from error


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


@router.post(
    "",
    status_code=201,
    responses=problems(*UPLOAD_REFUSALS, Unprocessable, StorageFull),
    openapi_extra=UPLOAD_BODY,
)
def create_dataset(
    request: Request,
    upload: PairsUpload,
    services: ServicesDep,
    session: SessionDep,
    response: Response,
) -> DatasetOut:
    """Upload few-shot pairs and learn what can be seen of each: alignment, exposure, sharpness, what to do about it.

    Send `clean` and `distorted` files in a form, or one zip. If any file is refused, all are, and each is named. With
    `fix`, as query parameter or form field, pairs that need it are stored mended: see `fixed` in the answer.
    """
    dataset = store_dataset(examine_upload(upload, services, read_fixes(upload, request)), services)
    add_dataset(dataset, services, session)
    session.commit()
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    return DatasetOut.of(dataset)


@router.get(
    "",
    responses={
        **problems(Unprocessable),
        200: {"content": {"application/json": {"example": {"items": [examples.DATASET], "next": None}}}},
    },
)
def list_datasets(
    session: ReadSessionDep,
    limit: LimitQuery = 20,
    after: Annotated[DatasetId | None, Query(description="The `next` of the page before.")] = None,
) -> Page[DatasetOut]:
    """List datasets with their reports, newest first."""
    datasets = repository.list_datasets(session, limit, after)
    return Page(
        items=[DatasetOut.of(dataset) for dataset in datasets],
        next=datasets[-1].id if len(datasets) == limit else None,
    )


@router.get("/{dataset_id}", responses=problems(NotFound))
def get_dataset(dataset_id: Annotated[DatasetId, Path()], session: ReadSessionDep) -> DatasetOut:
    """A dataset with its per-pair report."""
    return DatasetOut.of(repository.get_dataset(session, dataset_id))


@router.delete("/{dataset_id}", status_code=204, responses=problems(NotFound, Conflict, StorageFull))
def delete_dataset(dataset_id: Annotated[DatasetId, Path()], session: SessionDep) -> None:
    """Forget a dataset with its images. Refused while a job names it; its answer says which."""
    deletions.delete_dataset(session, dataset_id)
    session.commit()
