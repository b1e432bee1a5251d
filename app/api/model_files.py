"""`/v1/models/{name}/versions/{version}/…`: a trained model as a file, to be run elsewhere."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.api.blobs import NOT_MODIFIED, send_file
from app.api.deps import ReadSessionDep, Services, ServicesDep
from app.api.models import VersionPath
from app.api.problems import problems
from app.api.schemas.wire import ModelNamePath
from app.core import repository
from app.core.errors import FileLost, NotFound, NotReady, ServiceError

router = APIRouter(prefix="/v1/models/{name}/versions/{version}", tags=["models"])

ONNX_WAIT_S: Final = 15.0  # A few seconds is what making one takes; beyond that, clients come back.
RETRY_S: Final = 2
MEDIA_TYPE: Final = "application/octet-stream"  # Neither format has a registered type.
BINARY: Final = {"schema": {"type": "string", "format": "binary"}, "example": "…"}


def file_answers(description: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {"description": description, "content": {MEDIA_TYPE: BINARY}},
        206: {"description": "The part that `Range` asked for", "content": {MEDIA_TYPE: BINARY}},
        **NOT_MODIFIED,
    }


SAFETENSORS: Final = file_answers("A safetensors file with the model card in its metadata")
ONNX: Final = file_answers("An ONNX file with the model card in its metadata")


@router.head("/weights", include_in_schema=False)
@router.get(
    "/weights",
    response_class=StreamingResponse,
    responses={**problems(NotFound, FileLost), **SAFETENSORS},
)
def get_weights(
    name: ModelNamePath, version: VersionPath, request: Request, session: ReadSessionDep, services: ServicesDep
) -> Response:
    """The weights as safetensors, with the model card inside; the entity tag is the file's SHA-256."""
    model = repository.get_model_version(session, name, version)
    headers = file_headers(f"{name}-v{version}.safetensors")
    return send_file(request, services.storage, model.weights_blob, MEDIA_TYPE, headers)


@router.head("/onnx", include_in_schema=False)
@router.get(
    "/onnx",
    response_class=StreamingResponse,
    responses={**problems(NotFound, NotReady, FileLost), **ONNX},
)
async def get_onnx(name: ModelNamePath, version: VersionPath, request: Request, services: ServicesDep) -> Response:
    """The model as ONNX: float32 RGB in [0, 1], batch × 3 × height × width, any size in; the restored image out.

    It is made when somebody first asks for it, which takes seconds; where it takes longer than this call waits, the
    answer is 409 with `Retry-After`. The entity tag is the file's SHA-256.
    """
    blob = await run_in_threadpool(onnx_blob, name, version, services) or await make_onnx(name, version, services)
    headers = file_headers(f"{name}-v{version}.onnx")
    try:
        return await run_in_threadpool(send_file, request, services.storage, blob, MEDIA_TYPE, headers)
    except FileLost:  # It can be made again.
        await run_in_threadpool(forget_onnx, name, version, blob, services)
        blob = await make_onnx(name, version, services)
        return await run_in_threadpool(send_file, request, services.storage, blob, MEDIA_TYPE, headers)


def forget_onnx(name: str, version: int, blob: str, services: Services) -> None:
    """As if nobody had asked for the file yet."""
    with services.sessions.begin() as session:
        repository.forget_onnx(session, name, version, blob)


def onnx_blob(name: str, version: int, services: Services) -> str | None:
    """The blob of the file, None where there is none. Raises what an attempt failed for; the next may try anew."""
    with services.read_sessions() as session:
        model = repository.get_model_version(session, name, version)
    if model.onnx_error is None:
        return model.onnx_blob
    with services.sessions.begin() as session:
        repository.note_onnx_export(session, name, version)
    raise ServiceError(model.onnx_error)


async def make_onnx(name: str, version: int, services: Services) -> str:
    """Have a worker make the file, and wait for it. Raises NotReady where that takes too long."""
    reference = await run_in_threadpool(order_onnx, name, version, services)

    def ended() -> bool:
        with services.read_sessions() as session:
            model = repository.get_model_version(session, name, version)
        return model.onnx_blob is not None or model.onnx_error is not None

    await services.waiters.until(reference, ended, min(ONNX_WAIT_S, services.settings.wait_s))
    blob = await run_in_threadpool(onnx_blob, name, version, services)
    if blob is None:
        raise NotReady(f"The ONNX file of {name}@{version} is being made.", retry_after_s=RETRY_S)
    return blob


def order_onnx(name: str, version: int, services: Services) -> str:
    """Send a worker the order; returns the reference under which it will tell of the end."""
    with services.read_sessions() as session:
        owner = repository.get_model_version(session, name, version).owner
    reference = f"{name}@{version}/{owner}" if owner else f"{name}@{version}"
    services.queue.send_onnx_export(reference)
    return reference


def file_headers(file_name: str) -> dict[str, str]:
    return {
        "Content-Disposition": f'attachment; filename="{file_name}"',
        # A version never changes, but once it and its job are deleted, its number may be another's.
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization, Cookie",  # But whose it is depends on the key.
    }
