"""`client.datasets`: pairs that were uploaded, and what the service saw of them."""

from typing import Final

from drtl_client.documents import Dataset
from drtl_client.flow import Flow, OnUpload, Request, Stream, fetch, send
from drtl_client.methods import AsyncResource, Resource, async_iterating, awaiting, blocking, iterating
from drtl_client.options import Option, fields_of
from drtl_client.pages import paged
from drtl_client.pairs import PairsInput, as_parts
from drtl_client.paths import segment

ANSWERING_UPLOAD_S: Final = 180.0  # Every image is decoded and measured before the answer.


def _path(dataset: Dataset | str) -> str:
    return f"/v1/datasets/{segment('dataset', dataset if isinstance(dataset, str) else dataset.id)}"


def create(pairs: PairsInput, *, on_upload: OnUpload | None = None, **options: Option) -> Flow[Dataset]:
    """Upload pairs without training on them: a folder, a zip, or a list of (clean, distorted) images.

    The dataset comes with a report on every pair. `options` are the service's, by its names. Raises BadFolder, BadPairs
    and other problems.
    """
    request = Request(
        "POST",
        "/v1/datasets",
        form=fields_of(options),
        parts=as_parts(pairs),
        repeatable=False,
        read_timeout_s=ANSWERING_UPLOAD_S,
        on_upload=on_upload,
    )
    return Dataset.of((yield from fetch(request)))


def get(dataset: Dataset | str) -> Flow[Dataset]:
    """The dataset with its report."""
    return Dataset.of((yield from fetch(Request("GET", _path(dataset)))))


def list_datasets(*, limit: int | None = None) -> Stream[Dataset]:
    """Datasets, the newest first, page by page as they are asked for: at most `limit`, or all."""
    yield from paged("/v1/datasets", Dataset.of, {}, limit)


def delete(dataset: Dataset | str) -> Flow[None]:
    """Forget it with its images. Raises Conflict while a job names it."""
    yield from send(Request("DELETE", _path(dataset), repeatable=False))


class Datasets(Resource):
    """Uploaded pairs."""

    create = blocking(create)
    get = blocking(get)
    list = iterating(list_datasets)
    delete = blocking(delete)


class AsyncDatasets(AsyncResource):
    """Uploaded pairs."""

    create = awaiting(create)
    get = awaiting(get)
    list = async_iterating(list_datasets)
    delete = awaiting(delete)
