"""`/v1/operations`: single images on their way through a model, followed, cancelled and fetched."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.api import examples
from app.api.blobs import NOT_MODIFIED, send_blob
from app.api.deps import LimitQuery, ReadSessionDep, Services, ServicesDep, SessionDep
from app.api.intake import MEDIA_TYPES
from app.api.problems import problems
from app.api.schemas.restoring import OperationOut
from app.api.schemas.wire import JobState, OperationIdPath, Page
from app.core import operations, repository
from app.core.errors import (
    BadImage,
    Conflict,
    FileLost,
    ModelDeleted,
    NotFound,
    NotReady,
    ServiceError,
    StorageFull,
    TooLarge,
    Unprocessable,
    UnsupportedMedia,
)
from app.core.tables import Operation

router = APIRouter(prefix="/v1/operations", tags=["super-resolution"])

BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}, "example": "…"}
IMAGE_OUT: Final[dict[str, Any]] = {
    "description": "The restored image",
    "headers": {
        "Content-Location": {
            "description": "Where it can be fetched again for a while",
            "schema": {"type": "string", "example": examples.OPERATION["result"]},
        },
        "X-DRTL-Model": {"description": "`name@version`", "schema": {"type": "string", "example": "scanner@1"}},
        "X-DRTL-Tile": {"description": "Side of the tiles, pixels", "schema": {"type": "integer", "example": 256}},
        "X-DRTL-Precision": {"description": "Arithmetic", "schema": {"type": "string", "example": "bf16"}},
        "X-DRTL-Precision-Fallback": {
            "description": "How many tiles were computed again in fp32; absent where none was",
            "schema": {"type": "integer", "example": 1},
        },
        "X-DRTL-Match": {
            "description": "How close the image's distortion is to the model's, in 0…1; absent where unknown",
            "schema": {"type": "number", "example": 0.93},
        },
        "X-DRTL-Match-Word": {
            "description": "What that means: `close`, `near`, or `far`: then do not rely on the result",
            "schema": {"type": "string", "example": "close"},
        },
        "Server-Timing": {
            "description": "Milliseconds in the queue and in each step of the work",
            "schema": {"type": "string", "example": "queue;dur=3.1, decode;dur=12.0, restore;dur=341.0"},
        },
        "Link": {
            "description": "Where the trust map is, if one was asked for",
            "schema": {
                "type": "string",
                "example": '</v1/operations/op_0198f2c9d4a0b1c2d3e4f5a6/trust>; rel="describedby"; type="image/png"',
            },
        },
    },
    "content": dict.fromkeys(MEDIA_TYPES.values(), BINARY),
}
# What the worker, or the look at a batch's file, may say went wrong, as far as the caller can do something about it.
CALLERS_MISTAKES: Final[dict[str, type[ServiceError]]] = {
    "bad-image": BadImage,
    "file-lost": FileLost,
    "model-deleted": ModelDeleted,
    "out-of-memory": TooLarge,
    "too-large": TooLarge,
    "unsupported-media": UnsupportedMedia,
}
RESULT_REFUSALS: Final = (Conflict, BadImage, FileLost, ModelDeleted, TooLarge, UnsupportedMedia)


@router.get(
    "",
    responses={
        **problems(Unprocessable),
        200: {"content": {"application/json": {"example": {"items": [examples.OPERATION], "next": None}}}},
    },
)
def list_operations(
    session: ReadSessionDep,
    limit: LimitQuery = 20,
    after: Annotated[
        str | None, Query(pattern=r"^op_[0-9a-f]{1,36}$", description="The `next` of the page before.")
    ] = None,
    state: Annotated[JobState | None, Query(description="Only images in this state.", examples=["running"])] = None,
) -> Page[OperationOut]:
    """List images, newest first, those of batches among them; or only those in one state."""
    found = repository.list_operations(session, limit, after, state)
    following = found[-1].id if len(found) == limit else None
    return Page(items=[OperationOut.of(operation) for operation in found], next=following)


@router.get("/{operation_id}", responses=problems(NotFound))
def get_operation(operation_id: OperationIdPath, session: ReadSessionDep) -> OperationOut:
    """How far an accepted image is. It is forgotten, with its result, some time after it was done."""
    return OperationOut.of(repository.get_operation(session, operation_id))


@router.head("/{operation_id}/result", include_in_schema=False)
@router.get(
    "/{operation_id}/result",
    response_class=StreamingResponse,
    responses={**problems(NotFound, NotReady, *RESULT_REFUSALS), 200: IMAGE_OUT, **NOT_MODIFIED},
)
def get_result(
    operation_id: OperationIdPath, request: Request, session: ReadSessionDep, services: ServicesDep
) -> Response:
    """The restored image; 409 with `Retry-After` until it is done."""
    operation = repository.get_operation(session, operation_id)
    return send_result(operation, services, request)


@router.head("/{operation_id}/trust", include_in_schema=False)
@router.get(
    "/{operation_id}/trust",
    response_class=StreamingResponse,
    responses={
        **problems(NotFound, NotReady, *RESULT_REFUSALS),
        200: {"description": "The trust map", "content": {"image/png": BINARY}},
        **NOT_MODIFIED,
    },
)
def get_trust(
    operation_id: OperationIdPath, request: Request, session: ReadSessionDep, services: ServicesDep
) -> Response:
    """The trust map of an image that was sent with `explain=true`: the brighter a pixel, the less it is to be trusted.

    It is grey, on a fixed scale: black where the eight flips and rotations of the image are restored alike, white from
    a standard deviation of 8 levels of 255 on.
    """
    operation = repository.get_operation(session, operation_id)
    if not operation.options.get("explain"):
        raise NotFound("This image has no trust map; send it with explain=true to get one.")
    require_success(operation)
    if operation.trust_blob is None:
        raise NotFound("The model could make no trust map of this image.")
    return send_blob(services.storage, operation.trust_blob, MEDIA_TYPES["png"], {}, request)


@router.post("/{operation_id}/cancel", status_code=202, responses=problems(NotFound, StorageFull))
def cancel_operation(operation_id: OperationIdPath, session: SessionDep, services: ServicesDep) -> OperationOut:
    """Ask an image to stop. A waiting one stops at once, a running one within seconds, an ended one stays as it is."""
    operation = repository.get_operation(session, operation_id)
    operations.request_cancel(session, operation_id)
    session.commit()
    services.queue.notify_done(operation_id)  # Somebody may be waiting for it.
    session.refresh(operation)
    return OperationOut.of(operation)


def require_success(operation: Operation) -> None:
    """Raise what the failure of an operation means, Conflict for a cancelled one, NotReady for an unfinished one."""
    match operation.state:
        case "succeeded":
            return
        case "failed":
            kind = CALLERS_MISTAKES.get(operation.error_code or "", ServiceError)
            raise kind(operation.error_message or "The image could not be restored.")
        case "cancelled":
            raise Conflict("The image was cancelled.")
        case _:
            raise NotReady("The image is not done yet.", retry_after_s=1)


def send_result(operation: Operation, services: Services, request: Request | None = None) -> Response:
    """The image of an operation that succeeded; raises as `require_success` does. `request` is as of `send_blob`."""
    require_success(operation)
    assert operation.output_blob is not None
    media_type = MEDIA_TYPES[operation.options["output"]]
    return send_blob(services.storage, operation.output_blob, media_type, facts_as_headers(operation), request)


def facts_as_headers(operation: Operation) -> dict[str, str]:
    """How the image was restored."""
    facts = operation.result or {}
    path = f"/v1/operations/{operation.id}"
    headers = {
        "Content-Location": f"{path}/result",
        "X-DRTL-Model": f"{operation.model_name}@{operation.model_version}",
        "X-DRTL-Tile": str(facts.get("tile", "")),
        "X-DRTL-Precision": str(facts.get("precision", "")),
        "Server-Timing": ", ".join(f"{step};dur={1000 * seconds:.1f}" for step, seconds in timings(operation).items()),
    }
    if facts.get("fallback_tiles"):
        headers["X-DRTL-Precision-Fallback"] = str(facts["fallback_tiles"])
    if facts.get("match") is not None:
        headers["X-DRTL-Match"] = f"{facts['match']:.3f}"
    if facts.get("match_word") is not None:
        headers["X-DRTL-Match-Word"] = facts["match_word"]
    if operation.trust_blob is not None:
        headers["Link"] = f'<{path}/trust>; rel="describedby"; type="{MEDIA_TYPES["png"]}"'
    return headers


def timings(operation: Operation) -> dict[str, float]:
    """Seconds in the queue, by the clocks of two hosts, and in each step of the worker."""
    queued: dict[str, float] = {}
    if operation.started_at is not None:
        queued["queue"] = max(0.0, (operation.started_at - operation.created_at).total_seconds())
    return {**queued, **(operation.result or {}).get("seconds", {})}
