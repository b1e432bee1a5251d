"""`POST /v1/models/{name}/super-resolve`: image in, image out, through the inference worker."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.orm import Session

from app.api.blobs import send_blob
from app.api.deps import ReadSessionDep, Services, ServicesDep, SessionDep
from app.api.images import check_header
from app.api.negotiation import preferred
from app.api.problems import problems
from app.api.schemas import OperationIdPath, OperationOut
from app.api.uploads import Limits, Upload, UploadedFile, media_type_of, receive_form, receive_raw, spooled
from app.core import repository
from app.core.errors import (
    BadImage,
    BadRequest,
    NotAcceptable,
    NotFound,
    NotReady,
    RefusedFile,
    ServiceError,
    TimedOut,
    TooLarge,
    UnsupportedMedia,
)
from app.core.tables import ModelVersion, Operation

router = APIRouter(prefix="/v1", tags=["super-resolution"])

MEDIA_TYPES: Final = {"image/png": "png", "image/jpeg": "jpeg"}
IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/webp", "image/tiff", "image/bmp")
RAW_TYPES: Final = (*IMAGE_TYPES, "image/jpg", "image/x-ms-bmp", "application/octet-stream")
FIELD: Final = "image"
BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}, "example": "…"}
IMAGE_HEADERS: Final[dict[str, Any]] = {
    "X-DRTL-Model": {"description": "`name@version`", "schema": {"type": "string", "example": "scanner@1"}},
    "X-DRTL-Tile": {"description": "Side of the tiles, pixels", "schema": {"type": "integer", "example": 256}},
    "X-DRTL-Precision": {"description": "Arithmetic", "schema": {"type": "string", "example": "bf16"}},
    "Server-Timing": {"description": "Milliseconds", "schema": {"type": "string", "example": "restore;dur=312.5"}},
}
IMAGE_OUT: Final[dict[str, Any]] = {
    "description": "The restored image, by the `Accept` header",
    "headers": IMAGE_HEADERS,
    "content": dict.fromkeys(MEDIA_TYPES, BINARY),
}
IMAGE_IN: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys(IMAGE_TYPES, BINARY),
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                    "required": [FIELD],
                },
                "example": {FIELD: "photo.jpg"},
            },
        },
    }
}
# What the worker may say went wrong, as far as the caller can do something about it.
CALLERS_MISTAKES: Final[dict[str, type[ServiceError]]] = {"bad-image": BadImage, "out-of-memory": TooLarge}

ModelPath = Annotated[
    str,
    Path(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}(@([a-z][a-z0-9._-]{0,62}|[1-9][0-9]{0,8}))?$",
        description="`name`, `name@alias` or `name@version`; without a reference, the version in `production`.",
        examples=["scanner"],
    ),
]


async def receive_image(request: Request, services: ServicesDep) -> AsyncIterator[Upload]:
    """One image: as the body itself, or as the one file of a form."""
    limits = Limits(
        max_files=1,
        max_file_bytes=services.settings.max_image_bytes,
        max_body_bytes=services.settings.max_upload_bytes,
        too_many=lambda: BadRequest("Send one image at a time."),
    )
    with spooled() as spool:
        match media_type_of(request):
            case "multipart/form-data":
                upload = await receive_form(request, spool, limits)
                if not upload.files:
                    raise BadRequest(f"The form has no file named {FIELD}.", pointer=f"/{FIELD}")
                yield upload
            case kind if kind in RAW_TYPES:
                yield await receive_raw(request, spool, limits)
            case other:
                accepted = ", ".join((*IMAGE_TYPES, "multipart/form-data"))
                detail = f"A body of type {other or 'unknown'} is not understood; send {accepted}."
                raise UnsupportedMedia(detail, pointer="Content-Type")


@router.post(
    "/models/{model}/super-resolve",
    response_class=StreamingResponse,
    responses={
        **problems(BadRequest, NotFound, NotAcceptable, TooLarge, UnsupportedMedia, BadImage, TimedOut),
        200: IMAGE_OUT,
        202: {
            "description": "Accepted, on `Prefer: respond-async`; follow the `Location`",
            "model": OperationOut,
        },
    },
    openapi_extra=IMAGE_IN,
)
def super_resolve(
    model: ModelPath,
    upload: Annotated[Upload, Depends(receive_image)],
    services: ServicesDep,
    session: SessionDep,
    accept: Annotated[
        str | None, Header(description="`image/png` (the default) or `image/jpeg`.", examples=["image/png"])
    ] = None,
    prefer: Annotated[
        str | None, Header(description="`respond-async` to be answered at once.", examples=["respond-async"])
    ] = None,
) -> Response:
    """Restore an image with a trained model. The answer is the image; model, tile, precision and time are headers."""
    media_type = preferred(accept, tuple(MEDIA_TYPES))
    version = resolve(session, model)
    session.commit()  # No transaction stays open while the image is checked and stored.
    operation = queue_operation(version, upload.files[0], MEDIA_TYPES[media_type], services, session)
    if prefer is not None and "respond-async" in prefer.lower():
        location = f"/v1/operations/{operation.id}"
        headers = {"Location": location, "Preference-Applied": "respond-async"}
        return JSONResponse(OperationOut.of(operation).model_dump(mode="json"), 202, headers)

    def ended() -> bool:
        with services.read_sessions() as look:
            return repository.get_operation(look, operation.id).state in {"succeeded", "failed"}

    if not services.queue.wait_done(operation.id, ended, services.settings.wait_s):
        raise TimedOut(
            f"The image was not done within {services.settings.wait_s:g} s. The work goes on; "
            f"the result will be at /v1/operations/{operation.id}/result."
        )
    with services.read_sessions() as look:
        return send_result(repository.get_operation(look, operation.id), services)


def resolve(session: Session, model: str) -> ModelVersion:
    name, _, reference = model.partition("@")
    return repository.resolve_model(session, name, reference or None)


def queue_operation(
    version: ModelVersion, file: UploadedFile, output: str, services: Services, session: Session
) -> Operation:
    """Check the image, keep it, commit the row, then send the message."""
    # A model of scale 2 makes four pixels of one, and what it makes is what takes the time.
    max_pixels = services.settings.max_image_pixels // version.card.get("scale", 1) ** 2
    try:
        with file.open() as stream:
            check_header(stream, max_pixels)
    except ServiceError as error:
        raise type(error)(error.detail, pointer=file.name, files=[RefusedFile(file.name, error.detail)]) from error
    with file.open() as stream:
        blob = services.storage.put(stream)
    operation = Operation(
        model_name=version.name, model_version=version.version, input_blob=blob, options={"output": output}
    )
    session.add(operation)
    session.commit()
    services.queue.send_super_resolution(operation.id)
    return operation


@router.get("/operations/{operation_id}", responses=problems(NotFound))
def get_operation(operation_id: OperationIdPath, session: ReadSessionDep) -> OperationOut:
    """How far an accepted image is. It is forgotten, with its result, some time after it was done."""
    return OperationOut.of(repository.get_operation(session, operation_id))


@router.get(
    "/operations/{operation_id}/result",
    response_class=StreamingResponse,
    responses={
        **problems(NotFound, NotReady, TooLarge, BadImage),
        200: {**IMAGE_OUT, "description": "The restored image"},
    },
)
def get_result(operation_id: OperationIdPath, session: ReadSessionDep, services: ServicesDep) -> Response:
    """The restored image; 409 with `Retry-After` until it is done."""
    return send_result(repository.get_operation(session, operation_id), services)


def send_result(operation: Operation, services: Services) -> StreamingResponse:
    """The image of an operation that succeeded; raises what its failure means, or NotReady."""
    if operation.state == "failed":
        kind = CALLERS_MISTAKES.get(operation.error_code or "", ServiceError)
        raise kind(operation.error_message or "The image could not be restored.")
    if operation.state != "succeeded":
        raise NotReady("The image is not done yet.", retry_after_s=1)
    assert operation.output_blob is not None
    facts = operation.result or {}
    headers = {
        "X-DRTL-Model": f"{operation.model_name}@{operation.model_version}",
        "X-DRTL-Tile": str(facts.get("tile", "")),
        "X-DRTL-Precision": str(facts.get("precision", "")),
        "Server-Timing": f"restore;dur={1000 * facts.get('seconds', {}).get('restore', 0.0):.1f}",
    }
    media_type = next(kind for kind, name in MEDIA_TYPES.items() if name == operation.options["output"])
    return send_blob(services.storage, operation.output_blob, media_type, headers)
