"""Bodies that carry the images of a batch, as files of a form or as one zip: described for OpenAPI, and received."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from pydantic import ValidationError

from app.api import examples
from app.api.archives import ARCHIVE_FIELD, ZIP, ZIP_TYPES
from app.api.deps import ServicesDep
from app.api.intake import IMAGE_TYPES
from app.api.openapi import form
from app.api.options import given_once
from app.api.problems import InvalidBody
from app.api.schemas.restoring import BatchIn
from app.api.uploads import Limits, Upload, media_type_of, receive_form, receive_raw, spooled
from app.core.errors import TooLarge, UnsupportedMedia
from app.core.settings import Settings

FIELD: Final = "images"

_OPTIONS: Final[dict[str, Any]] = BatchIn.model_json_schema()["properties"]
BATCH_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": form(
                    {
                        FIELD: {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "The images.",
                        },
                        ARCHIVE_FIELD: {
                            "type": "string",
                            "format": "binary",
                            "description": "Instead of single files: one zip, whose folders the result keeps.",
                        },
                        **_OPTIONS,
                    },
                    anyOf=[{"required": [FIELD]}, {"required": [ARCHIVE_FIELD]}],
                ),
                "encoding": {
                    FIELD: {"contentType": ", ".join(IMAGE_TYPES)},
                    ARCHIVE_FIELD: {"contentType": ZIP},
                },
                "examples": {"files": {"value": {FIELD: ["001.png", "002.jpg"], "model": "scanner"}}},
            },
            ZIP: {
                "schema": {"type": "string", "format": "binary", "description": "A zip of images."},
                "examples": {"zip": {"summary": "curl --data-binary @images.zip", "value": "…"}},
            },
        },
    },
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": schema,
            "description": "As the form field, which it stands in for.",
            "example": {"model": "scanner", **examples.BATCH["options"]}[name],
        }
        for name, schema in _OPTIONS.items()
    ],
}


async def receive_images(request: Request, services: ServicesDep) -> AsyncIterator[Upload]:
    """Many images as the files of a form, or one zip as the body or as a form's file."""
    settings = services.settings
    limits = Limits(
        max_files=settings.max_batch_images,
        max_file_bytes=settings.max_image_bytes,
        max_body_bytes=settings.max_upload_bytes,
        too_many=lambda: too_many(f"There are more than {settings.max_batch_images} images", settings),
        unlimited_fields=frozenset({ARCHIVE_FIELD}),
    )
    with spooled() as spool:
        match media_type_of(request):
            case "multipart/form-data":
                yield await receive_form(request, spool, limits)
            case kind if kind in ZIP_TYPES:
                yield await receive_raw(request, spool, limits.for_archive())
            case other:
                detail = (
                    f"A body of type {other or 'unknown'} is not understood; send multipart/form-data with files named "
                    f"`{FIELD}`, or {ZIP}. With curl: -F {FIELD}=@photo.png, or -H 'Content-Type: {ZIP}'."
                )
                raise UnsupportedMedia(detail, pointer="Content-Type")


ImagesUpload = Annotated[Upload, Depends(receive_images)]


def read_options(upload: Upload, request: Request) -> BatchIn:
    """The options, from the form and from the query. Raises InvalidBody."""
    try:
        return BatchIn.model_validate(given_once(upload.fields, request.query_params, BatchIn.model_fields))
    except ValidationError as error:
        raise InvalidBody(error) from error


def too_many(found: str, settings: Settings) -> TooLarge:
    return TooLarge(f"{found}; at most {settings.max_batch_images} are accepted in one batch.", pointer=f"/{FIELD}")
