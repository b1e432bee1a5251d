"""The pages at `/` and `/docs`: static files, under a policy that lets them load and run nothing from elsewhere."""

import io
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from os import PathLike, stat_result
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

STATIC: Final = Path(__file__).resolve().parents[1] / "web" / "static"
REFERENCE: Final = STATIC.with_name("reference")
DEMO_SEED: Final = 0

ALLOWED: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",  # Thumbnails of files that are still the visitor's own are blobs.
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS: Final = {
    "Content-Security-Policy": "; ".join(f"{what} {whence}" for what, whence in ALLOWED.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # The files of one release belong together, so each is asked for again; an unchanged one costs a 304.
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


class PageFiles(StaticFiles):
    """Static files with an entity tag each, and with the headers of the page."""

    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


files: Final = PageFiles(directory=STATIC)
reference_files: Final = PageFiles(directory=REFERENCE)


def install(app: FastAPI) -> None:
    """Serve the page at `/`, the interface's at `/docs`, and what they are made of below `/web` and `/reference`."""
    app.include_router(router)
    app.mount("/web", files)
    app.mount("/reference", reference_files)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    return await files.get_response("index.html", request.scope)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def reference(request: Request) -> Response:
    """Every call, to read and to try; FastAPI's own page would run scripts of another host."""
    return await reference_files.get_response("index.html", request.scope)


@router.get("/demo/pairs.zip")
def demo_pairs() -> Response:
    """Pairs of the virtual camera, for visitors who have none at hand; the page uploads them as their own."""
    return Response(demo().pairs, media_type="application/zip")


@router.get("/demo/photo.png")
def demo_photo() -> Response:
    """A photograph of the virtual camera that is in none of the pairs."""
    return Response(demo().photo, media_type="image/png")


@dataclass(frozen=True)
class Demo:
    """What the virtual camera made: a zip with `clean/` and `distorted/`, and one more distorted photograph."""

    pairs: bytes
    photo: bytes


@cache
def demo() -> Demo:
    """Made at the first request, which takes seconds, and kept: some five megabytes."""
    from app import virtual_camera  # Brings scipy, which the service does not need otherwise.

    with tempfile.TemporaryDirectory(prefix="drtl-demo-") as folder:
        made = virtual_camera.demo_pairs(Path(folder), DEMO_SEED)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as pairs:
            for side in ("clean", "distorted"):
                for file in sorted((made.folder / side).iterdir()):
                    pairs.write(file, f"{side}/{file.name}")
        return Demo(archive.getvalue(), made.unseen_distorted.read_bytes())
