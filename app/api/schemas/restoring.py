"""Images on their way through a model, alone and in batches."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.api import examples
from app.api.schemas.as_stored import AsStored
from app.api.schemas.wire import REFERENCE_PATTERN, JobError, JobState, Reported, Wire, digits_as_number
from app.core.batches import Tally
from app.core.tables import Batch, Operation

OutputFormat = Literal["png", "webp", "jpeg", "tiff"]
ModelReferenceIn = Annotated[
    str,
    Field(
        pattern=REFERENCE_PATTERN,
        description=(
            "`name` for the version in `production`, `name@alias` or `name@version`; or `auto` for the promoted model "
            "whose training distortion is nearest to the image's."
        ),
        examples=["scanner"],
    ),
]


class RestoreOptions(Wire):
    """How to restore an image. Every option has a default."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Arithmetic; `auto` takes the fastest that the device does well."
    )
    outscale: float | None = Field(
        None,
        gt=0,
        le=8,
        allow_inf_nan=False,
        description="Final size, relative to the input's. Without it, the size that the model makes.",
        examples=[2.0],
    )
    ensemble: Annotated[Literal[1, 8], BeforeValidator(digits_as_number)] = Field(
        1, description="8: the mean over the eight flips and rotations of the image; eight times the work."
    )
    explain: bool = Field(False, description="Also map, for every pixel, how far the result can be trusted.")
    metadata: Literal["keep", "strip"] = Field(
        "keep", description="Whether EXIF, XMP and resolution stay. Colour profiles always do."
    )
    quality: int | None = Field(
        None, ge=1, le=100, description="Of JPEG and WebP; the others lose nothing.", examples=[90]
    )


class OperationOptions(RestoreOptions):
    output: OutputFormat = Field("png", description="The format of the restored image.")


class BatchOptions(RestoreOptions):
    output: OutputFormat | None = Field(
        None, description="The format of the restored images. Null: each its own, and PNG for BMP.", examples=["png"]
    )


class BatchIn(BatchOptions):
    """What to do with the images of a batch. Only `model` must be given."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "scanner", "output": "png"}]})

    model: ModelReferenceIn


class RestoreSeconds(Reported):
    decode: float | None = None
    restore: float | None = None
    encode: float | None = None


class RestoreFacts(Reported):
    """How an image was restored."""

    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    depth: int | None = Field(None, description="Bits per channel.")
    tile: int | None = Field(None, description="Side of the tiles, pixels.")
    tiles: int | None = None
    precision: str | None = None
    fallback_tiles: int | None = Field(None, description="Tiles computed again in fp32, for want of range.")
    match: float | None = Field(
        None, description="How close the image's distortion is to what the model was trained on, in 0…1."
    )
    match_word: str | None = Field(None, description="`close`, `near` or `far`.")
    match_note: str | None = Field(None, description="The same in a sentence.")
    seconds: RestoreSeconds | None = None


class OperationOut(BaseModel):
    """One image on its way through a model."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.OPERATION]})

    id: str
    batch: str | None = Field(description="The batch that it is part of.")
    position: int | None = Field(description="Its place in the batch, from 0.")
    name: str | None = Field(description="The name that the file came with in the batch.")
    state: JobState
    progress: float = Field(ge=0, le=1)
    model: str | None = Field(description="`name@version`; null until one is chosen where `auto` was asked for.")
    options: Annotated[dict[str, Any], AsStored(OperationOptions)]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    facts: RestoreFacts | None = Field(description="How it was restored, once it has succeeded.")
    result: str | None = Field(description="Where the image is, once there is one.")
    trust: str | None = Field(description="Where the trust map is, once there is one.")
    error: JobError | None

    @classmethod
    def of(cls, operation: Operation) -> "OperationOut":
        path = f"/v1/operations/{operation.id}"
        named = operation.model_name is not None
        failed = operation.state == "failed"
        return cls.model_validate(
            {
                "id": operation.id,
                "batch": operation.batch_id,
                "position": operation.position,
                "name": operation.file_name,
                "state": operation.state,
                "progress": operation.progress,
                "model": f"{operation.model_name}@{operation.model_version}" if named else None,
                "options": operation.options,
                "created_at": operation.created_at,
                "started_at": operation.started_at,
                "finished_at": operation.finished_at,
                "facts": operation.result,
                "result": f"{path}/result" if operation.output_blob is not None else None,
                "trust": f"{path}/trust" if operation.trust_blob is not None else None,
                "error": JobError(code=operation.error_code, message=operation.error_message) if failed else None,
            }
        )


class Counts(BaseModel):
    """How many images of a batch are in each state."""

    total: int
    queued: int = 0
    running: int = 0
    cancelling: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class BatchOut(BaseModel):
    """Many images sent at once. It has succeeded if any of them has; `counts` says how many have not."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BATCH]})

    id: str
    state: JobState
    progress: float = Field(ge=0, le=1, description="By pixels.")
    counts: Counts
    model: str = Field(description="As it was asked for.")
    options: Annotated[dict[str, Any], AsStored(BatchOptions)]
    created_at: datetime
    finished_at: datetime | None
    result: str = Field(description="Where the zip of the restored images is, once the batch has ended.")

    @classmethod
    def of(cls, batch: Batch, tally: Tally) -> "BatchOut":
        return cls.model_validate(
            {
                "id": batch.id,
                "state": tally.state(batch),
                "progress": tally.progress,
                "counts": {"total": tally.total, **tally.counts},
                "model": batch.model,
                "options": batch.options,
                "created_at": batch.created_at,
                "finished_at": tally.finished_at if tally.ended else None,
                "result": f"/v1/batches/{batch.id}/result",
            }
        )


class BatchWithItems(BatchOut):
    """A batch with a page of its images; where `next` is not null, pass it as `after` to get the following page."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BATCH_WITH_ITEMS]})

    items: list[OperationOut] = Field(description="In the order in which they were sent.")
    next: int | None = None
