"""`/v1/datasets/{id}/pairs/{position}/{side}`: an image of a pair as a browser can show it, whatever was uploaded."""

import io
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Response
from PIL import Image, ImageOps

from app.api.deps import ReadSessionDep, ServicesDep
from app.api.images import opened
from app.api.problems import problems
from app.api.schemas import DatasetId
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
    with services.storage.open(blob) as file, opened(file, services.settings.max_pair_pixels) as image:
        shown = rendition(image, max_side)
    headers = {
        "ETag": f'"{blob}-{max_side or "whole"}"',
        "Cache-Control": "private, max-age=31536000, immutable",  # A dataset never changes.
        "X-Content-Type-Options": "nosniff",
    }
    return Response(shown, media_type=PNG, headers=headers)


def rendition(image: Image.Image, max_side: int | None) -> bytes:
    """An opened image as a PNG with 8 bits per channel, at most `max_side` pixels wide and high."""
    if max_side is not None:
        image.draft("RGB", (max_side, max_side))  # A JPEG is then decoded at about the size that is asked for.
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "I" or upright.mode.startswith("I;16"):
        # Pillow's own conversion to 8 bits clips instead of scaling.
        upright = upright.convert("I").point(lambda value: value / 257).convert("L")
    elif upright.mode not in {"L", "RGB", "RGBA"}:
        upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    if max_side is not None:
        upright.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # A profile of CMYK or of sixteen bits says nothing about what it was converted to.
    profile = image.info.get("icc_profile") if upright.mode == image.mode else None
    upright.save(buffer, "PNG", compress_level=1, icc_profile=profile)
    return buffer.getvalue()
