"""The registry over HTTP: versions, aliases, weights."""

import hashlib
import io
from collections.abc import Callable

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core.settings import Settings
from app.core.storage import FolderStorage
from app.core.tables import Dataset, Job, ModelAlias, ModelVersion
from tests.app.conftest import problem

Register = Callable[..., None]


@pytest.fixture
def register(rows: sessionmaker[Session], api_settings: Settings) -> Register:
    """Registers versions of a model as finished jobs would."""
    assert api_settings.blob_dir is not None
    storage = FolderStorage(api_settings.blob_dir)

    def make(name: str = "scanner", versions: int = 1, production: int | None = 1, scale: int = 1) -> None:
        with rows.begin() as session:
            dataset = Dataset(scale=1, pairs=[])
            session.add(dataset)
            session.flush()
            for version in range(1, versions + 1):
                job = Job(name=name, dataset_id=dataset.id, options={}, state="succeeded")
                session.add(job)
                session.flush()
                blob = storage.put(io.BytesIO(f"weights of {name} {version}".encode()))
                card = {"backbone": "vdsr", "scale": scale, "gamma": {"blur": 0.5}}
                session.add(ModelVersion(name=name, version=version, job_id=job.id, weights_blob=blob, card=card))
            if production is not None:
                session.add(ModelAlias(name=name, alias="production", version=production))

    return make


def test_a_model_lists_versions_and_aliases(client: httpx.Client, register: Register) -> None:
    register(versions=3, production=2)
    model = client.get("/v1/models/scanner").json()
    assert model["versions"] == [3, 2, 1]
    assert model["aliases"] == {"production": 2}
    version = client.get("/v1/models/scanner/versions/2").json()
    assert version["aliases"] == ["production"]
    assert version["card"]["gamma"] == {"blur": 0.5}


def test_models_are_paged_by_name(client: httpx.Client, register: Register) -> None:
    for name in ("b", "a", "c"):
        register(name)
    page = client.get("/v1/models", params={"limit": 2}).json()
    assert [model["name"] for model in page["items"]] == ["a", "b"]
    rest = client.get("/v1/models", params={"limit": 2, "after": page["next"]}).json()
    assert [model["name"] for model in rest["items"]] == ["c"]


def test_an_alias_moves(client: httpx.Client, register: Register) -> None:
    register(versions=2)
    for alias, version in (("production", 2), ("beta", 1), ("beta", 2)):
        answer = client.put(f"/v1/models/scanner/aliases/{alias}", json={"version": version})
        assert answer.status_code == 200
        assert answer.json() == {"name": "scanner", "alias": alias, "version": version}
    assert client.get("/v1/models/scanner").json()["aliases"] == {"beta": 2, "production": 2}


def test_an_alias_cannot_point_at_what_does_not_exist(client: httpx.Client, register: Register) -> None:
    register()
    problem(client.put("/v1/models/scanner/aliases/beta", json={"version": 9}), 404, "not-found")
    problem(client.put("/v1/models/other/aliases/beta", json={"version": 1}), 404, "not-found")
    problem(client.put("/v1/models/scanner/aliases/12", json={"version": 1}), 404, "not-found")
    assert client.get("/v1/models/scanner").json()["aliases"] == {"production": 1}


@pytest.mark.parametrize("body", ['{"version": 0}', '{"version": "x"}', "{}", "[]", '{"version": 1, "more": 2}'])
def test_a_wrong_alias_body_is_unprocessable(client: httpx.Client, register: Register, body: str) -> None:
    register()
    answer = client.put("/v1/models/scanner/aliases/beta", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 422, "unprocessable")


def test_a_broken_alias_body_is_a_bad_request(client: httpx.Client) -> None:
    answer = client.put("/v1/models/x/aliases/beta", content="{", headers={"Content-Type": "application/json"})
    problem(answer, 400, "bad-request")


def test_weights_are_downloaded_whole(client: httpx.Client, register: Register) -> None:
    register()
    answer = client.get("/v1/models/scanner/versions/1/weights")
    assert answer.content == b"weights of scanner 1"
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert answer.headers["content-length"] == str(len(answer.content))
    assert "scanner-v1.safetensors" in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    "path", ["/other", "/scanner/versions/2", "/scanner/versions/99999999999999", "/scanner/versions/x", "/%00"]
)
def test_unknown_models_and_versions_are_not_found(client: httpx.Client, register: Register, path: str) -> None:
    register()
    problem(client.get(f"/v1/models{path}"), 404, "not-found")
