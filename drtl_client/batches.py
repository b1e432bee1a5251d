"""`client.batches`: many images through one model."""

import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

from drtl_client.documents import Batch
from drtl_client.downloads import saved
from drtl_client.errors import WaitedTooLong
from drtl_client.flow import Flow, OnUpload, Part, Request, Sleep, Stream, fetch
from drtl_client.images import ImageInput, as_part
from drtl_client.methods import AsyncResource, Resource, async_iterating, awaiting, blocking, iterating
from drtl_client.options import Option, fields_of
from drtl_client.pages import paged
from drtl_client.paths import segment

BatchRef: TypeAlias = Batch | str
LOOK_EVERY_S: Final = 0.5
ANSWERING_UPLOAD_S: Final = 180.0


def _path(batch: BatchRef, rest: str = "") -> str:
    return f"/v1/batches/{segment('batch', batch if isinstance(batch, str) else batch.id)}{rest}"


def create(
    images: str | os.PathLike[str] | Sequence[ImageInput],
    *,
    model: str,
    idempotency_key: str | None = None,
    on_upload: OnUpload | None = None,
    **options: Option,
) -> Flow[Batch]:
    """Upload images, or one zip of images, to be restored by `name`, `name@alias` or `name@version`.

    `options` are as for super_resolve. The request carries an Idempotency-Key, so that it makes one batch however often
    it has to be sent. A file that is no usable image fails alone.
    """
    if isinstance(images, str | os.PathLike):
        parts: tuple[Part, ...] = (as_part("archive", images),)
    else:
        parts = tuple(as_part("images", image, f"{number:04}") for number, image in enumerate(images, start=1))
    request = Request(
        "POST",
        "/v1/batches",
        headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
        form=fields_of({"model": model, **options}),
        parts=parts,
        read_timeout_s=ANSWERING_UPLOAD_S,
        on_upload=on_upload,
    )
    return Batch.of((yield from fetch(request)))


def list_batches(*, limit: int | None = None) -> Stream[Batch]:
    """Batches, the newest first, page by page as they are asked for: at most `limit`, or all."""
    yield from paged("/v1/batches", Batch.of, {}, limit)


def get(batch: BatchRef) -> Flow[Batch]:
    """How far the batch is."""
    return Batch.of((yield from fetch(Request("GET", _path(batch)))))


def wait(batch: BatchRef, *, timeout_s: float | None = None) -> Flow[Batch]:
    """The batch once it has ended, however it has. Raises WaitedTooLong."""
    began = time.monotonic()
    while not (found := (yield from get(batch))).ended:
        if timeout_s is not None and time.monotonic() - began > timeout_s:
            raise WaitedTooLong(f"the batch is not done within {timeout_s:g} s")
        yield Sleep(LOOK_EVERY_S)
    return found


def download(batch: BatchRef, path: str | os.PathLike[str]) -> Flow[Path]:
    """The restored images as one zip, written to the path, or into it where it is a folder."""
    name = f"{batch if isinstance(batch, str) else batch.id}.zip"
    return (yield from saved(Request("GET", _path(batch, "/result")), path, name=name))


def cancel(batch: BatchRef) -> Flow[Batch]:
    """Ask it to stop; asking twice is the same."""
    return Batch.of((yield from fetch(Request("POST", _path(batch, "/cancel")))))


class Batches(Resource):
    """Many images through one model."""

    create = blocking(create)
    get = blocking(get)
    list = iterating(list_batches)
    wait = blocking(wait)
    download = blocking(download)
    cancel = blocking(cancel)


class AsyncBatches(AsyncResource):
    """Many images through one model."""

    create = awaiting(create)
    get = awaiting(get)
    list = async_iterating(list_batches)
    wait = awaiting(wait)
    download = awaiting(download)
    cancel = awaiting(cancel)
