"""Both storages: a folder, and a bucket of a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.settings import Settings
from app.core.storages import open_storage
from tests.app.storage.places import Place
from tests.s3_server import BUCKET, S3Server


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A prefix of the test's own in the bucket."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    return Place(open_storage(Settings(data_dir=tmp_path, blob_url=url)), s3.bucket / tmp_path.name, url)


@pytest.fixture
def folder(tmp_path: Path) -> Place:
    return Place(open_storage(Settings(data_dir=tmp_path)), tmp_path / "blobs", "")


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found
