"""`/v1/datasets`: few-shot pairs, uploaded as files or as one zip, checked and kept."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.api import examples
from app.api.deps import LimitQuery, ReadSessionDep, ServicesDep, SessionDep
from app.api.pair_intake import add_dataset, examine_upload, store_dataset
from app.api.pair_uploads import UPLOAD_BODY, UPLOAD_REFUSALS, PairsUpload, read_fixes
from app.api.problems import problems
from app.api.schemas.datasets import DatasetOut
from app.api.schemas.wire import DatasetId, Page
from app.core import deletions, repository
from app.core.errors import Conflict, NotFound, StorageFull, Unprocessable

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=201,
    responses=problems(*UPLOAD_REFUSALS, Unprocessable, StorageFull),
    openapi_extra=UPLOAD_BODY,
)
def create_dataset(
    request: Request,
    upload: PairsUpload,
    services: ServicesDep,
    session: SessionDep,
    response: Response,
) -> DatasetOut:
    """Upload few-shot pairs and learn what can be seen of each: alignment, exposure, sharpness, what to do about it.

    Send `clean` and `distorted` files in a form, or one zip. If any file is refused, all are, and each is named. With
    `fix`, as query parameter or form field, pairs that need it are stored mended: see `fixed` in the answer.
    """
    dataset = store_dataset(examine_upload(upload, services, read_fixes(upload, request)), services)
    add_dataset(dataset, services, session)
    session.commit()
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    return DatasetOut.of(dataset)


@router.get(
    "",
    responses={
        **problems(Unprocessable),
        200: {"content": {"application/json": {"example": {"items": [examples.DATASET], "next": None}}}},
    },
)
def list_datasets(
    session: ReadSessionDep,
    limit: LimitQuery = 20,
    after: Annotated[DatasetId | None, Query(description="The `next` of the page before.")] = None,
) -> Page[DatasetOut]:
    """List datasets with their reports, newest first."""
    datasets = repository.list_datasets(session, limit, after)
    return Page(
        items=[DatasetOut.of(dataset) for dataset in datasets],
        next=datasets[-1].id if len(datasets) == limit else None,
    )


@router.get("/{dataset_id}", responses=problems(NotFound))
def get_dataset(dataset_id: Annotated[DatasetId, Path()], session: ReadSessionDep) -> DatasetOut:
    """A dataset with its per-pair report."""
    return DatasetOut.of(repository.get_dataset(session, dataset_id))


@router.delete("/{dataset_id}", status_code=204, responses=problems(NotFound, Conflict, StorageFull))
def delete_dataset(dataset_id: Annotated[DatasetId, Path()], session: SessionDep) -> None:
    """Forget a dataset with its images. Refused while a job names it; its answer says which."""
    deletions.delete_dataset(session, dataset_id)
    session.commit()
