"""What Schemathesis sends where the document says image or zip: real ones."""

from typing import Any

import schemathesis
from hypothesis import strategies as st

from tests.app.material import encoded, noisy, pair_files, pixels, zip_of

PIXELS = [pixels(width, height, seed=seed) for seed, (width, height) in enumerate([(83, 71), (64, 64), (1, 1)])]

for media_type, file_format in (
    ("image/png", "PNG"),
    ("image/jpeg", "JPEG"),
    ("image/webp", "WEBP"),
    ("image/tiff", "TIFF"),
    ("image/bmp", "BMP"),
):
    files = [encoded(picture, file_format) for picture in [*PIXELS, noisy(PIXELS[0])]]
    schemathesis.openapi.media_type(media_type, st.sampled_from(files))
zips = [zip_of(pair_files(2)), zip_of(pair_files(1)), b"PK"]
schemathesis.openapi.media_type("application/zip", st.sampled_from(zips))


@schemathesis.hook
def before_load_schema(_context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Leave out examples of files, which are words for people; the files above are sent instead."""
    for item in raw_schema["paths"].values():
        for operation in item.values():
            for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
                if media_type not in {"application/json", "multipart/form-data"}:
                    media.pop("example", None)
                    media.pop("examples", None)
