"""Rows and blobs for tests that work below HTTP: datasets of real image files, queued jobs."""

import io
from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core.folder_storage import FolderStorage
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.tables import Dataset, Job, Pair
from tests.images import image_pairs

MakeJob = Callable[..., str]


@pytest.fixture
def storage(service_settings: Settings) -> Storage:
    assert service_settings.blob_dir is not None
    return FolderStorage(service_settings.blob_dir)


@pytest.fixture
def make_dataset(database: sessionmaker[Session], storage: Storage) -> Callable[..., str]:
    """Stores pairs as an upload would; returns the dataset's id."""

    def make(count: int = 2) -> str:
        pairs = [
            Pair(
                position=position,
                name=name,
                clean_blob=storage.put(io.BytesIO(clean)),
                distorted_blob=storage.put(io.BytesIO(distorted)),
                report={},
            )
            for position, (name, clean, distorted) in enumerate(image_pairs(count))
        ]
        dataset = Dataset(scale=1, pairs=pairs)
        with database.begin() as session:
            session.add(dataset)
        return dataset.id

    return make


@pytest.fixture
def make_job(database: sessionmaker[Session], make_dataset: Callable[..., str]) -> MakeJob:
    """Queues a job, with its own dataset unless told otherwise; returns its id."""
    made = 0

    def make(dataset_id: str | None = None, **options: object) -> str:
        nonlocal made
        made += 1
        job = Job(name=f"model-{made}", dataset_id=dataset_id or make_dataset(), options=options)
        with database.begin() as session:
            session.add(job)
        return job.id

    return make
