"""`POST /v1/models/{model}/super-resolve`: image in, image out, through the inference worker."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.api import idempotency
from app.api.deps import Services, ServicesDep
from app.api.idempotency import IdempotencyKeyHeader
from app.api.images import ImageFacts
from app.api.intake import IMAGE_TYPES, MEDIA_TYPES, offered, resolve, take_in
from app.api.negotiation import AcceptHeader, preferred
from app.api.openapi import form
from app.api.operations import IMAGE_OUT, RESULT_REFUSALS, send_result
from app.api.options import asked_once
from app.api.preferences import Preferences, preferences
from app.api.problems import BACKEND_FAILURES, problems
from app.api.quotas import require_room_for_bytes, take_room_for_bytes
from app.api.schemas.restoring import OperationOut, OutputFormat, RestoreOptions
from app.api.schemas.wire import REFERENCE_PATTERN
from app.api.uploads import Limits, Upload, media_type_of, receive_form, receive_raw, spooled
from app.core import operations, repository
from app.core.database import make_durable
from app.core.errors import (
    BadRequest,
    IdempotencyMismatch,
    NotAcceptable,
    NotFound,
    RequestInFlight,
    StorageFull,
    Unprocessable,
    UnsupportedMedia,
)
from app.core.tables import ENDED, Operation
from app.core.turns import turns

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1", tags=["super-resolution"])

OCTET_STREAM: Final = "application/octet-stream"
RAW_TYPES: Final = (OCTET_STREAM, "binary/octet-stream")  # Beside all that is called an image; the decoder decides.
FIELD: Final = "image"
BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}, "example": "…"}
IMAGE_IN: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys(IMAGE_TYPES, BINARY),
            "multipart/form-data": {
                "schema": form({FIELD: {"type": "string", "format": "binary"}}, required=[FIELD]),
                "encoding": {FIELD: {"contentType": ", ".join(IMAGE_TYPES)}},
                "example": {FIELD: "photo.jpg"},
            },
        },
    }
}

ModelPath = Annotated[
    str,
    Path(
        pattern=REFERENCE_PATTERN,
        description=(
            "`name` for the version in `production`, `name@alias` or `name@version`; or `auto` for the promoted model "
            "whose training distortion is nearest to the image's."
        ),
        examples=["scanner"],
    ),
]


async def receive_image(request: Request, services: ServicesDep) -> AsyncIterator[Upload]:
    """One image: as the body itself, or as the one file of a form."""
    limits = Limits(
        max_files=1,
        max_file_bytes=services.settings.max_image_bytes,
        max_body_bytes=services.settings.max_upload_bytes,
        too_many=lambda: BadRequest("Send one image at a time, or a batch."),
    )
    with spooled() as spool:
        match media_type_of(request):
            case "multipart/form-data":
                upload = await receive_form(request, spool, limits)
                if not upload.files:
                    raise BadRequest(f"The form has no file named {FIELD}.", pointer=f"/{FIELD}")
                for name in upload.fields:
                    raise Unprocessable("The form takes no fields; options go into the query.", pointer=f"/{name}")
                yield upload
            case kind if kind in RAW_TYPES or kind.startswith("image/"):
                yield await receive_raw(request, spool, limits)
            case other:
                accepted = f"{', '.join((*IMAGE_TYPES, OCTET_STREAM))} or multipart/form-data"
                detail = (
                    f"A body of type {other or 'unknown'} is not understood; send {accepted}. "
                    "With curl: -H 'Content-Type: image/png'."
                )
                raise UnsupportedMedia(detail, pointer="Content-Type")


ImageUpload = Annotated[Upload, Depends(receive_image)]


async def watch_client(request: Request, upload: ImageUpload) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the client hangs up before it has been answered. The body is read by then."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watching = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        watching.cancel()


ClientGone = Annotated[asyncio.Event, Depends(watch_client, scope="function")]


@router.post(
    "/models/{model}/super-resolve",
    response_class=StreamingResponse,
    responses={
        **problems(
            *RESULT_REFUSALS,
            BadRequest,
            NotFound,
            NotAcceptable,
            RequestInFlight,
            UnsupportedMedia,
            IdempotencyMismatch,
            Unprocessable,
            StorageFull,
        ),
        200: IMAGE_OUT,
        202: {
            "description": "Accepted, but not done within the wait; follow the `Location`",
            "headers": {
                "Location": {
                    "description": "The operation",
                    "schema": {"type": "string", "example": "/v1/operations/op_0198f2c9d4a0b1c2d3e4f5a6"},
                },
                "Preference-Applied": {
                    "description": "What of `Prefer` was done",
                    "schema": {"type": "string", "example": "respond-async"},
                },
            },
            "model": OperationOut,
        },
    },
    openapi_extra=IMAGE_IN,
)
async def super_resolve(
    request: Request,
    model: ModelPath,
    options: Annotated[RestoreOptions, Query()],
    upload: ImageUpload,
    client_gone: ClientGone,
    services: ServicesDep,
    accept: AcceptHeader = None,
    prefer: Annotated[
        list[str] | None,
        Header(
            description="`respond-async` to be answered at once, `wait=N` to be answered after N seconds at the "
            "latest, whether the image is done or not (RFC 7240).",
            examples=[["respond-async"], ["wait=10"]],
        ),
    ] = None,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Restore an image with a trained model. The answer is the image; how it was made is told by headers.

    What is not done within the wait goes on, and the answer is 202 with the operation's `Location`. A client that hangs
    up while it waits cancels its image, unless it can come back for it with an `Idempotency-Key`. Where the `Accept`
    header leaves the choice of a format, the image's own comes first, then PNG, WebP, JPEG and TIFF in this order.
    """
    asked_once(request.query_params)  # Of an option that is given twice, the framework takes the last.
    wishes = preferences(prefer or [])
    wait_s = longest_wait(wishes, services)
    operation, replayed = await run_in_threadpool(
        accept_image, idempotency_key, model, options, upload, accept, wait_s, services
    )
    if idempotency_key is not None:
        client_gone = asyncio.Event()  # Whoever has gone may come back, and is waited for.
    try:
        if wait_s > 0:
            operation = await ended_or_not(operation.id, wait_s, client_gone, services)
        gone = client_gone.is_set()
        response = await run_in_threadpool(answer, operation, wishes, services, gone=gone, wait_s=wait_s)
    except BACKEND_FAILURES:
        # The image is taken in, and will be restored; a client that was told to try again would have it done twice.
        log.exception("%s is taken in, but how far it is cannot be told", operation.id)
        response = await run_in_threadpool(promise, operation, wait_s, services)
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def longest_wait(wishes: Preferences, services: Services) -> float:
    """How many seconds to wait. What is asked for is done up to the setting, which holds where nothing is asked."""
    if wishes.wait_s is not None:
        return min(wishes.wait_s, services.settings.wait_s)
    return 0.0 if wishes.respond_async else services.settings.wait_s


def accept_image(
    key: str | None,
    model: str,
    options: RestoreOptions,
    upload: Upload,
    accept: list[str] | None,
    wait_s: float,
    services: Services,
) -> tuple[Operation, bool]:
    """Keep the image and have it restored, or what an equal request with this key had accepted; and whether it is that.

    Raises what is wrong with the image or with what is asked for, RequestInFlight and IdempotencyMismatch.
    """
    # Whoever waits without a key would be lost in a power cut: only a 202 and a key are promises that need a disk.
    promised = wait_s == 0 or key is not None

    def add() -> Operation:
        operation = keep_image(model, options, upload, accept, services, durable=promised)
        add_operation(session, operation, services)
        return operation

    with (services.sessions if promised else services.passing_sessions)() as session:
        operation, replayed = idempotency.once(
            session,
            key,
            idempotency.fingerprint(options, upload.files, model, accept or ["*/*"]),
            services.settings.idempotency_in_flight_s,
            repository.get_operation,
            add,
        )
    if not replayed:
        services.queue.send_super_resolution(operation.id)
    return operation, replayed


def keep_image(
    model: str,
    options: RestoreOptions,
    upload: Upload,
    accept: list[str] | None,
    services: Services,
    *,
    durable: bool,
) -> Operation:
    """Judge the image and keep its file; the row is the caller's to add, with no transaction open meanwhile."""
    with services.read_sessions() as look:
        version = resolve(look, model)
        require_room_for_bytes(look, services.limits, upload.files[0].size)

    def by_accept(image: ImageFacts) -> OutputFormat:
        offers = {MEDIA_TYPES[output]: output for output in offered(image)}
        return offers[preferred(accept, tuple(offers))]

    operation, work = take_in(upload.files[0], options, by_accept, version, services, durable=durable)
    (operation.turn,) = turns([work])
    return operation


def add_operation(session: Session, operation: Operation, services: Services) -> None:
    """Add the row if there still is room for its file. Raises OverQuota."""
    take_room_for_bytes(session, services.limits, operation.stored_bytes)
    session.add(operation)


async def ended_or_not(operation_id: str, wait_s: float, client_gone: asyncio.Event, services: Services) -> Operation:
    """The operation once it has ended, or as it is when the wait is over or the client has gone."""
    operation: Operation

    def ended() -> bool:
        nonlocal operation
        with services.read_sessions() as look:
            operation = repository.get_operation(look, operation_id)
        return operation.state in ENDED or client_gone.is_set()

    async def wake_when_gone() -> None:
        await client_gone.wait()
        services.waiters.wake(operation_id)

    waking = asyncio.create_task(wake_when_gone())
    try:
        await services.waiters.until(operation_id, ended, wait_s)
    finally:
        waking.cancel()
    return operation


def promise(operation: Operation, wait_s: float, services: Services) -> JSONResponse:
    """Say where the image will be, once it would outlast a power cut: what was to be waited for need not until now."""
    if wait_s > 0 and operation.input_blob is not None:
        with suppress(FileNotFoundError):  # It is done with, since the row was read.
            services.storage.make_durable(operation.input_blob)
        with services.read_sessions() as session:
            make_durable(session)
    document = OperationOut.of(operation).model_dump(mode="json")
    return JSONResponse(document, 202, {"Location": f"/v1/operations/{operation.id}"})


def answer(operation: Operation, wishes: Preferences, services: Services, *, gone: bool, wait_s: float) -> Response:
    """The image if it is done, otherwise where it will be. A client that has hung up has cancelled it.

    Who does not wait is told where it is, even of one that an equal request has had restored before.
    """
    applied = [f"wait={wait_s:g}"] if wishes.wait_s is not None else []
    if operation.state in ENDED and wait_s > 0:
        answer: Response = send_result(operation, services)
    else:
        if gone:
            with services.sessions.begin() as session:
                operations.request_cancel(session, operation.id)
        answer = promise(operation, 0 if gone else wait_s, services)
        applied = ["respond-async"] * wishes.respond_async + applied
    if applied:
        answer.headers["Preference-Applied"] = ", ".join(applied)
    return answer
