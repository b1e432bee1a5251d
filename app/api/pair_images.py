"""`/v1/datasets/{id}/pairs/{position}/{side}`: an image of a pair as a browser can show it, whatever was uploaded."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Response

from app.api.deps import ReadSessionDep, ServicesDep
from app.api.problems import problems
from app.api.schemas.wire import DatasetId
from app.api.uploads import spooled
from app.core import repository
from app.core.errors import NotFound, Unprocessable

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

PNG: Final = "image/png"
IMAGE_OUT: Final[dict[str, Any]] = {
    "description": "The image as a PNG of 8 bits per channel, turned upright",
    "content": {PNG: {"schema": {"type": "string", "format": "binary"}, "example": "…"}},
}


@router.get(
    "/{dataset_id}/pairs/{position}/{side}",
    response_class=Response,
    responses={**problems(NotFound, Unprocessable), 200: IMAGE_OUT},
)
def get_pair_image(
    dataset_id: Annotated[DatasetId, Path()],
    position: Annotated[int, Path(ge=0, le=9999, examples=[0], description="The place in the dataset's `pairs`.")],
    side: Annotated[Literal["clean", "distorted"], Path(examples=["clean"])],
    session: ReadSessionDep,
    services: ServicesDep,
    max_side: Annotated[
        int | None, Query(ge=16, le=4096, description="Shrink to at most this many pixels a side.", examples=[160])
    ] = None,
) -> Response:
    """One image of a pair, to look at: PNG whatever was uploaded, shrunk on request. The upload stays as it is."""
    pairs = repository.get_dataset(session, dataset_id).pairs
    if position >= len(pairs):
        raise NotFound(f"Dataset {dataset_id} has no pair {position}; it has {len(pairs)}.")
    blob = pairs[position].clean_blob if side == "clean" else pairs[position].distorted_blob
    with services.storage.open(blob) as file, spooled() as spool:
        shown = services.examiners.render(file, max_side, spool)
        with shown.open() as rendered:
            content = rendered.read()
    headers = {
        "ETag": f'"{blob}-{max_side or "whole"}"',
        "Cache-Control": "private, max-age=31536000, immutable",  # A dataset never changes.
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, media_type=PNG, headers=headers)
