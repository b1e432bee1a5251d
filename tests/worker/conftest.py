"""Rows and blobs for tests that work below HTTP: datasets of real image files, queued jobs."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event
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


@contextmanager
def meanwhile(engine: Engine, table: str, other: Callable[[], None]) -> Iterator[None]:
    """After the block's first UPDATE of the table somebody else does this, at once unless the block holds them up."""
    here = threading.get_ident()
    done: list[Future[None]] = []

    def begin(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(f"UPDATE {table} ") and threading.get_ident() == here and not done:
            done.append(pool.submit(other))
            wait(done, timeout=0.5)

    with ThreadPoolExecutor(1) as pool:
        event.listen(engine, "after_cursor_execute", begin)
        try:
            yield
        finally:
            event.remove(engine, "after_cursor_execute", begin)
    done[0].result()
