"""`/v1/batches`: many images through one model, as one upload and one zip of results."""

from collections.abc import Iterator
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.api import examples, idempotency
from app.api.archives import ZIP
from app.api.batch_intake import add_batch
from app.api.batch_uploads import BATCH_BODY, ImagesUpload, read_options
from app.api.deps import LimitQuery, ReadSessionDep, Services, ServicesDep, SessionDep
from app.api.idempotency import IdempotencyKeyHeader
from app.api.problems import problems
from app.api.result_names import result_names
from app.api.schemas.restoring import BatchOut, BatchWithItems, OperationOut
from app.api.schemas.wire import LARGEST_INTEGER, BatchIdPath, Page
from app.api.zip_stream import stream_zip
from app.core import batches, operations, repository
from app.core.errors import (
    BadArchive,
    BadImage,
    BadRequest,
    Conflict,
    IdempotencyMismatch,
    NotFound,
    NotReady,
    RequestInFlight,
    StorageFull,
    TooLarge,
    Unprocessable,
    UnsupportedMedia,
)
from app.core.tables import ENDED, Operation

router = APIRouter(prefix="/v1/batches", tags=["super-resolution"])


@router.post(
    "",
    status_code=202,
    responses=problems(
        BadRequest,
        NotFound,
        RequestInFlight,
        TooLarge,
        UnsupportedMedia,
        BadArchive,
        BadImage,
        IdempotencyMismatch,
        Unprocessable,
        StorageFull,
    ),
    openapi_extra=BATCH_BODY,
)
def create_batch(
    request: Request,
    upload: ImagesUpload,
    services: ServicesDep,
    session: SessionDep,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> BatchOut:
    """Restore many images with one model. Follow the batch at the `Location` header, and fetch the results as a zip.

    Send the images as files of a form, or one zip, with the options as form fields or as query parameters. A file that
    is no usable image fails alone, and the batch says why; only an upload without any usable image is refused.
    """
    options = read_options(upload, request)
    batch, replayed = idempotency.once(
        session,
        idempotency_key,
        idempotency.fingerprint(options, upload.files),
        services.settings.idempotency_in_flight_s,
        repository.get_batch,
        lambda: add_batch(options, upload, services, session),
    )
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    else:
        services.queue.send_super_resolution(batch.id)  # One for all; the reconciler wakes further workers.
    response.headers["Location"] = f"/v1/batches/{batch.id}"
    return BatchOut.of(batch, batches.tallies(session, [batch.id])[batch.id])


@router.get(
    "",
    responses={
        **problems(Unprocessable),
        200: {"content": {"application/json": {"example": {"items": [examples.BATCH], "next": None}}}},
    },
)
def list_batches(
    session: ReadSessionDep,
    limit: LimitQuery = 20,
    after: Annotated[
        str | None, Query(pattern=r"^batch_[0-9a-f]{1,34}$", description="The `next` of the page before.")
    ] = None,
) -> Page[BatchOut]:
    """List batches, newest first, without their images."""
    found = repository.list_batches(session, limit, after)
    tallies = batches.tallies(session, [batch.id for batch in found])
    following = found[-1].id if len(found) == limit else None
    return Page(items=[BatchOut.of(batch, tallies[batch.id]) for batch in found], next=following)


@router.get("/{batch_id}", responses=problems(NotFound, Unprocessable))
def get_batch(
    batch_id: BatchIdPath,
    session: ReadSessionDep,
    limit: LimitQuery = 100,
    after: Annotated[
        int, Query(ge=-1, le=LARGEST_INTEGER, description="Only images behind this position.", examples=[99])
    ] = -1,
) -> BatchWithItems:
    """How far a batch is, and how each of its images is. It is forgotten some time after its last image was done."""
    batch = repository.get_batch(session, batch_id)
    whole = BatchOut.of(batch, batches.tallies(session, [batch_id])[batch_id])
    page = repository.batch_operations(session, batch_id, after, limit)
    following = page[-1].position if len(page) == limit else None
    items = [OperationOut.of(operation) for operation in page]
    return BatchWithItems(**whole.model_dump(), items=items, next=following)


@router.post("/{batch_id}/cancel", status_code=202, responses=problems(NotFound, StorageFull))
def cancel_batch(batch_id: BatchIdPath, session: SessionDep) -> BatchOut:
    """Ask a batch to stop. What waits stops at once, what runs within seconds; what is done stays, also in the zip."""
    batch = repository.get_batch(session, batch_id)
    operations.request_cancel_batch(session, batch_id)
    session.commit()
    session.refresh(batch)
    return BatchOut.of(batch, batches.tallies(session, [batch_id])[batch_id])


@router.get(
    "/{batch_id}/result",
    response_class=StreamingResponse,
    responses={
        **problems(NotFound, NotReady, Conflict, Unprocessable),
        200: {
            "description": "A zip of the restored images, under the names they came with",
            "content": {ZIP: {"schema": {"type": "string", "format": "binary"}, "example": "…"}},
        },
    },
)
def get_batch_result(
    batch_id: BatchIdPath,
    session: ReadSessionDep,
    services: ServicesDep,
    partial: Annotated[bool, Query(description="Do not wait for the rest: what is done so far.")] = False,
) -> StreamingResponse:
    """All restored images of a batch as one zip; 409 with `Retry-After` until the batch has ended.

    Folders of an uploaded zip are kept, and names end as the new format's do.
    """
    repository.get_batch(session, batch_id)
    images = repository.batch_operations(session, batch_id)
    ended = all(image.state in ENDED for image in images)  # By these rows: others are read a moment later.
    done = [(name, image) for name, image in zip(result_names(images), images, strict=True) if image.output_blob]
    if not ended and not (partial and done):
        raise NotReady("The batch is not done yet." if not partial else "No image is done yet.", retry_after_s=2)
    if not done:
        raise Conflict("None of the batch's images was restored.")
    headers = {"Content-Disposition": f'attachment; filename="{batch_id}.zip"'}
    return StreamingResponse(stream_zip(opened(done, services)), media_type=ZIP, headers=headers)


def opened(images: list[tuple[str, Operation]], services: Services) -> Iterator[tuple[str, BinaryIO]]:
    """One file after the other, opened when its turn comes."""
    for name, image in images:
        assert image.output_blob is not None
        yield name, services.storage.open(image.output_blob)
