"""Takes in the images of a batch: one that is unusable fails alone, and all of them together refuse the upload."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy.orm import Session

from app.api.archives import ArchiveRules, files_in
from app.api.batch_uploads import FIELD, too_many
from app.api.deps import Services
from app.api.file_names import is_plain
from app.api.images import ImageFacts
from app.api.intake import offered, resolve, take_in
from app.api.quotas import require_room_for_bytes, take_room_for_bytes
from app.api.schemas.restoring import BatchIn, OutputFormat
from app.api.uploads import Upload, UploadedFile
from app.core.errors import (
    BadArchive,
    BadImage,
    BadRequest,
    RefusedFile,
    ServiceError,
    TooLarge,
    Unprocessable,
    UnsupportedMedia,
)
from app.core.settings import Settings
from app.core.tables import Batch, ModelVersion, Operation, new_id, utc_now
from app.core.turns import turns

LONGEST_NAME: Final = 255
USELESS_FILE: Final = (BadImage, TooLarge, UnsupportedMedia)  # What may be wrong with one file among others.


def add_batch(options: BatchIn, upload: Upload, services: Services, session: Session) -> Batch:
    """Insert the batch and its images. The caller commits. Raises as `make_batch`; OverQuota."""
    batch, images = make_batch(options, upload, services)
    kept = sum(image.stored_bytes for image in images if image.input_blob is not None)
    take_room_for_bytes(session, services.limits, kept)
    session.add(batch)
    session.flush()
    session.add_all(images)
    return batch


def make_batch(options: BatchIn, upload: Upload, services: Services) -> tuple[Batch, list[Operation]]:
    """Judge and keep every image, with no transaction open meanwhile; the rows are the caller's to add.

    Raises where no file is usable.
    """
    with services.read_sessions() as look:
        model = resolve(look, options.model)
    files = files_of(upload, services.settings)
    with services.read_sessions() as look:
        require_room_for_bytes(look, services.limits, sum(file.size for file in files))
    batch = Batch(id=new_id("batch"), model=options.model, options=options.model_dump(exclude={"model"}))
    images: list[Operation] = []
    queued: list[tuple[Operation, int]] = []
    refusals: list[ServiceError] = []

    def choose(image: ImageFacts) -> OutputFormat:
        return options.output or offered(image)[0]

    for position, file in enumerate(files):
        try:
            operation, work = take_in(file, options, choose, model, services, durable=False)
            queued.append((operation, work))
        except USELESS_FILE as refusal:
            operation = failed(refusal, options, model)
            refusals.append(refusal)
        operation.batch_id, operation.position, operation.file_name = batch.id, position, shown_name(file)
        images.append(operation)
    if not queued:
        raise all_refused(refusals)
    for (operation, _), turn in zip(queued, turns(work for _, work in queued), strict=True):
        operation.turn = turn
        # After the last was written: the file system commits all of them with the first, and the rest cost nothing.
        assert operation.input_blob is not None
        services.storage.make_durable(operation.input_blob)
    return batch, images


def files_of(upload: Upload, settings: Settings) -> Sequence[UploadedFile]:
    """The images of the upload, unpacked if need be. Raises BadRequest where there is none."""
    files = files_in(upload, archive_rules(settings))
    if strange := [file.field for file in files if file.field != FIELD]:
        raise Unprocessable(f"Images go into the form field {FIELD!r}, not {strange[0]!r}.", pointer=f"/{strange[0]}")
    if not files:
        raise BadRequest("There is no image in the upload.", pointer=f"/{FIELD}")
    return files


def archive_rules(settings: Settings) -> ArchiveRules:
    return ArchiveRules(
        max_files=settings.max_batch_images,
        max_file_bytes=settings.max_image_bytes,
        max_total_bytes=settings.max_upload_bytes,
        unusable=BadArchive,
        too_many=lambda count: too_many(f"The zip holds {count} files", settings),
        field_of=lambda _: FIELD,
    )


def failed(refusal: ServiceError, options: BatchIn, model: ModelVersion | None) -> Operation:
    """The row of a file that is not kept, since it is of no use."""
    return Operation(
        state="failed",
        finished_at=utc_now(),
        error_code=refusal.code,
        error_message=refusal.detail,
        model_name=None if model is None else model.name,
        model_version=None if model is None else model.version,
        options={**options.model_dump(exclude={"model"}), "output": options.output or "png"},
    )


def all_refused(refusals: Sequence[ServiceError]) -> ServiceError:
    """The error that names every file: of the kind that they share, or else of the general one."""
    kinds = {type(refusal) for refusal in refusals}
    kind = kinds.pop() if len(kinds) == 1 else Unprocessable
    files: list[RefusedFile] = [file for refusal in refusals for file in refusal.files]
    said = f"{files[0].name}: {files[0].reason}" if len(files) == 1 else f"None of the {len(files)} files can be used."
    return kind(said, pointer=files[0].name, files=files)


def shown_name(file: UploadedFile) -> str:
    """The client's name for the file, as far as it can be stored and seen."""
    return "".join(letter if is_plain(letter) else "\N{REPLACEMENT CHARACTER}" for letter in file.name)[-LONGEST_NAME:]
