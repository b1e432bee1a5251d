"""`/v1/datasets/{id}/pairs/{position}/{side}`: an image of a pair as a browser can show it, whatever was uploaded."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app.api.blobs import NOT_MODIFIED, SEND_BYTES, not_modified, open_blob
from app.api.deps import Services, ServicesDep
from app.api.owning_response import OwningResponse
from app.api.problems import problems
from app.api.schemas.wire import DatasetId
from app.api.uploads import Spool, UploadedFile
from app.core import repository
from app.core.errors import FileLost, NotFound, Unprocessable

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

Side = Literal["clean", "distorted"]
PNG: Final = "image/png"
IMAGE_OUT: Final[dict[str, Any]] = {
    "description": "The image as a PNG of 8 bits per channel, turned upright",
    "content": {PNG: {"schema": {"type": "string", "format": "binary"}, "example": "…"}},
}


@router.get(
    "/{dataset_id}/pairs/{position}/{side}",
    response_class=StreamingResponse,
    responses={**problems(NotFound, FileLost, Unprocessable), 200: IMAGE_OUT, **NOT_MODIFIED},
)
async def get_pair_image(
    dataset_id: Annotated[DatasetId, Path()],
    position: Annotated[int, Path(ge=0, le=9999, examples=[0], description="The place in the dataset's `pairs`.")],
    side: Annotated[Side, Path(examples=["clean"])],
    request: Request,
    services: ServicesDep,
    max_side: Annotated[
        int | None, Query(ge=16, le=4096, description="Shrink to at most this many pixels a side.", examples=[160])
    ] = None,
) -> Response:
    """One image of a pair, to look at: PNG whatever was uploaded, shrunk on request. The upload stays as it is."""
    blob = await run_in_threadpool(blob_of, dataset_id, position, side, services)
    headers = {
        "ETag": f'"{blob}-{max_side or "whole"}"',
        "Cache-Control": "private, max-age=31536000, immutable",  # A dataset never changes.
        "Vary": "Authorization, Cookie",  # But whose it is depends on the key.
        "X-Content-Type-Options": "nosniff",
    }
    if (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    async with services.examiners.turns:  # Waiting here holds neither a thread nor a connection to the database.
        return await run_in_threadpool(render, blob, max_side, headers, services)


def blob_of(dataset_id: str, position: int, side: Side, services: Services) -> str:
    """Where the image is stored. Raises NotFound."""
    with services.read_sessions() as session:
        pairs = repository.get_dataset(session, dataset_id).pairs
    if position >= len(pairs):
        raise NotFound(f"Dataset {dataset_id} has no pair {position}; it has {len(pairs)}.")
    return pairs[position].clean_blob if side == "clean" else pairs[position].distorted_blob


def render(blob: str, max_side: int | None, headers: dict[str, str], services: Services) -> Response:
    """The image as an examiner sees it. Raises FileLost and Unprocessable."""
    spool = Spool()
    try:
        with open_blob(services.storage, blob) as file:
            shown = services.examiners.render(file, max_side, spool)
    except BaseException:
        spool.close()
        raise
    return OwningResponse(spool, _chunks(shown), 200, {"Content-Length": str(shown.size), **headers}, PNG)


def _chunks(shown: UploadedFile) -> Iterator[bytes]:
    with shown.open() as rendered:
        while chunk := rendered.read(SEND_BYTES):
            yield chunk
