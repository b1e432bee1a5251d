"""Bodies that carry few-shot pairs, as files of a form or as one zip: described for OpenAPI, and received."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from pydantic import ValidationError

from app.api.archives import ARCHIVE_FIELD, ZIP, ZIP_TYPES
from app.api.deps import ServicesDep
from app.api.intake import IMAGE_TYPES
from app.api.openapi import form
from app.api.options import given_once
from app.api.pairs import wrong_count
from app.api.problems import InvalidBody
from app.api.schemas.datasets import DatasetOptions, Fix
from app.api.uploads import Limits, Upload, media_type_of, receive_form, receive_raw, receive_text, spooled
from app.core.errors import BadArchive, BadImage, BadPairs, BadRequest, TooLarge, UnsupportedMedia

BODY_TYPES: Final = ("multipart/form-data", ZIP)
UPLOAD_REFUSALS: Final = (BadRequest, TooLarge, UnsupportedMedia, BadPairs, BadArchive, BadImage)

FILES: Final[dict[str, Any]] = {
    "type": "array",
    "items": {"type": "string", "format": "binary"},
}
PAIR_FIELDS: Final[dict[str, Any]] = {
    "clean": {**FILES, "description": "The clean images."},
    "distorted": {**FILES, "description": "The distorted images, paired by file stem, or else by order."},
    ARCHIVE_FIELD: {
        "type": "string",
        "format": "binary",
        "description": "Instead of single files: one zip with the folders `clean/` and `distorted/`.",
    },
}
EITHER_FILES_OR_ARCHIVE: Final = [{"required": ["clean", "distorted"]}, {"required": [ARCHIVE_FIELD]}]
PAIR_ENCODING: Final[dict[str, Any]] = {
    "clean": {"contentType": ", ".join(IMAGE_TYPES)},
    "distorted": {"contentType": ", ".join(IMAGE_TYPES)},
    ARCHIVE_FIELD: {"contentType": ZIP},
}
FIX_FIELD: Final[dict[str, Any]] = {"type": "string", "description": "As the query parameter."}
ZIP_BODY: Final[dict[str, Any]] = {
    "schema": {"type": "string", "format": "binary", "description": "A zip with `clean/` and `distorted/`."},
    "examples": {"zip": {"summary": "curl --data-binary @pairs.zip -H 'Content-Type: application/zip'", "value": "…"}},
}
FORM_FILES_EXAMPLE: Final[dict[str, Any]] = {"clean": ["001.png", "002.png"], "distorted": ["001.jpg", "002.jpg"]}
UPLOAD_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": form({**PAIR_FIELDS, "fix": FIX_FIELD}, anyOf=EITHER_FILES_OR_ARCHIVE),
                "encoding": PAIR_ENCODING,
                "examples": {"files": {"summary": "Files paired by name", "value": FORM_FILES_EXAMPLE}},
            },
            ZIP: ZIP_BODY,
        },
    },
    "parameters": [
        {
            "name": "fix",
            "in": "query",
            "required": False,
            "schema": {"type": "string"},
            "description": "`align`, `crop`, `match_colour`, `swap`, any of them between commas; also as a form field.",
            "example": "align,match_colour",
        }
    ],
}


def receiving(*, text: bool) -> Callable[[Request, ServicesDep], AsyncIterator[Upload]]:
    """A dependency: the request's body, its files on disk until the endpoint is done, with a turn at the examiners.

    With `text` the body may be JSON that names a dataset, too.
    """
    accepted = " or ".join(BODY_TYPES) + ", or application/json that names a dataset" * text

    async def receive(request: Request, services: ServicesDep) -> AsyncIterator[Upload]:
        settings = services.settings
        limits = Limits(
            max_files=2 * settings.max_pairs,
            max_file_bytes=settings.max_pair_bytes,
            max_body_bytes=settings.max_upload_bytes,
            too_many=lambda: wrong_count(f"There are more than {2 * settings.max_pairs} files", settings),
            unlimited_fields=frozenset({ARCHIVE_FIELD}),
        )
        with spooled() as spool:
            match media_type_of(request):
                case "multipart/form-data":
                    upload = await receive_form(request, spool, limits)
                case kind if kind in ZIP_TYPES:
                    upload = await receive_raw(request, spool, limits.for_archive())
                case "application/json" if text:
                    yield await receive_text(request, spool)
                    return
                case other:
                    detail = f"A body of type {other or 'unknown'} is not understood; send {accepted}."
                    raise UnsupportedMedia(detail, pointer="Content-Type")
            async with services.examiners.turns:
                yield upload

    return receive


PairsUpload = Annotated[Upload, Depends(receiving(text=False), scope="function")]
PairsOrNameUpload = Annotated[Upload, Depends(receiving(text=True), scope="function")]


def read_fixes(upload: Upload, request: Request) -> list[Fix]:
    """The fixes asked for, in the form or in the query. Raises InvalidBody or Unprocessable."""
    try:
        return DatasetOptions.model_validate(
            given_once(upload.fields, request.query_params, DatasetOptions.model_fields)
        ).fix
    except ValidationError as error:
        raise InvalidBody(error) from error
