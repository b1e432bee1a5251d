"""The registry over HTTP: versions, aliases, weights."""

import hashlib
import io
from collections.abc import Callable

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.core.folder_storage import FolderStorage
from app.core.queue import HOUSEKEEPING_QUEUE, Queue
from app.core.settings import Settings
from app.core.tables import Dataset, Job, ModelAlias, ModelVersion
from app.main import create_app
from tests.app.conftest import connected, problem

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


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_an_alias_body_that_is_not_sent_as_json_is_refused_with_how_to_send_it(
    client: httpx.Client, register: Register, content_type: str | None
) -> None:
    register()
    headers = {"Content-Type": content_type} if content_type else {}
    answer = client.put("/v1/models/scanner/aliases/beta", content='{"version": 1}', headers=headers)
    document = problem(answer, 422, "unprocessable")
    assert document["errors"] == [{"pointer": "", "detail": "a JSON object is needed, sent as application/json"}]


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


WEIGHTS = b"weights of scanner 1"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-3", 0, 4), ("bytes=8-", 8, 20), ("bytes=-4", 16, 20), ("bytes=19-400", 19, 20), ("bytes=-99", 0, 20)],
)
def test_a_part_of_the_weights_can_be_asked_for(
    client: httpx.Client, register: Register, asked: str, start: int, stop: int
) -> None:
    register()
    answer = client.get("/v1/models/scanner/versions/1/weights", headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == WEIGHTS[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/20"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize(
    "asked",
    ["bytes=20-", "bytes=5-4", "bytes=-0", "bytes=-", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b", f"bytes={9**50}-"],
)
def test_a_range_that_makes_no_sense_gives_the_whole(client: httpx.Client, register: Register, asked: str) -> None:
    register()
    answer = client.get("/v1/models/scanner/versions/1/weights", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, WEIGHTS)


def test_a_download_goes_on_only_where_the_file_is_still_the_same(client: httpx.Client, register: Register) -> None:
    register()
    path = "/v1/models/scanner/versions/1/weights"
    tag = client.get(path).headers["etag"]
    rest = client.get(path, headers={"Range": "bytes=8-", "If-Range": tag})
    assert (rest.status_code, rest.content) == (206, WEIGHTS[8:])
    other = client.get(path, headers={"Range": "bytes=8-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, WEIGHTS)


def test_what_the_client_has_is_not_sent_again(client: httpx.Client, register: Register) -> None:
    register()
    path = "/v1/models/scanner/versions/1/weights"
    tag = client.get(path).headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        answer = client.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("asked", [{}, {"Range": "bytes=2-5"}, {"If-None-Match": "*"}])
def test_the_head_of_a_download_is_that_of_the_download(
    client: httpx.Client, register: Register, asked: dict[str, str]
) -> None:
    register()
    path = "/v1/models/scanner/versions/1/weights"
    whole, head = client.get(path, headers=asked), client.head(path, headers=asked)
    assert head.status_code == whole.status_code
    assert head.content == b""
    named = ("etag", "accept-ranges", "content-length", "content-range", "content-type", "content-disposition")
    assert [head.headers.get(name) for name in named] == [whole.headers.get(name) for name in named]


def lose(api_settings: Settings, key: str) -> None:
    assert api_settings.blob_dir is not None
    FolderStorage(api_settings.blob_dir).delete(key)


def test_weights_that_are_lost_are_not_to_be_asked_for_again(
    client: httpx.Client, register: Register, api_settings: Settings
) -> None:
    register()
    lose(api_settings, hashlib.sha256(WEIGHTS).hexdigest())
    answer = client.get("/v1/models/scanner/versions/1/weights")
    problem(answer, 410, "file-lost")
    assert "retry-after" not in answer.headers


def test_weights_in_a_storage_that_is_away_may_be_asked_for_again(
    client: httpx.Client, register: Register, api_settings: Settings
) -> None:
    """As a folder that is not mounted: nothing in it can be said to be lost."""
    register()
    assert api_settings.blob_dir is not None
    api_settings.blob_dir.rename(api_settings.blob_dir.with_name("elsewhere"))
    answer = client.get("/v1/models/scanner/versions/1/weights")
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "5"
    api_settings.blob_dir.with_name("elsewhere").rename(api_settings.blob_dir)
    assert client.get("/v1/models/scanner/versions/1/weights").content == WEIGHTS


def test_an_onnx_file_that_is_lost_is_ordered_anew(
    register: Register, rows: sessionmaker[Session], api_settings: Settings
) -> None:
    register()
    with rows.begin() as session:
        session.get_one(ModelVersion, ("", "scanner", 1)).onnx_blob = "0" * 64
    with connected(create_app(api_settings.model_copy(update={"wait_s": 0.2}))) as impatient:
        problem(impatient.get("/v1/models/scanner/versions/1/onnx"), 409, "not-ready")
    with rows() as session:
        assert session.get_one(ModelVersion, ("", "scanner", 1)).onnx_blob is None
    with Queue(api_settings.broker_url).redis as broker:
        assert broker.llen(HOUSEKEEPING_QUEUE) >= 1
        broker.delete(HOUSEKEEPING_QUEUE)


def test_an_onnx_file_that_is_not_made_in_time_is_not_ready(api_settings: Settings, register: Register) -> None:
    register()
    with connected(create_app(api_settings.model_copy(update={"wait_s": 0.2}))) as impatient:
        answer = impatient.get("/v1/models/scanner/versions/1/onnx")
        problem(answer, 409, "not-ready")
        assert answer.headers["retry-after"] == "2"
        problem(impatient.get("/v1/models/scanner/versions/2/onnx"), 404, "not-found")
    with Queue(api_settings.broker_url).redis as broker:
        assert broker.llen(HOUSEKEEPING_QUEUE) >= 1
        broker.delete(HOUSEKEEPING_QUEUE)


def test_an_onnx_file_that_is_there_is_sent_at_once(
    client: httpx.Client, register: Register, rows: sessionmaker[Session], api_settings: Settings
) -> None:
    register()
    assert api_settings.blob_dir is not None
    blob = FolderStorage(api_settings.blob_dir).put(io.BytesIO(b"onnx"))
    with rows.begin() as session:
        session.get_one(ModelVersion, ("", "scanner", 1)).onnx_blob = blob
    answer = client.get("/v1/models/scanner/versions/1/onnx", headers={"Range": "bytes=1-2"})
    assert (answer.status_code, answer.content) == (206, b"nn")
    assert answer.headers["etag"] == f'"{blob}"'


def test_why_an_export_failed_is_told_once(
    client: httpx.Client, register: Register, rows: sessionmaker[Session]
) -> None:
    register()
    with rows.begin() as session:
        session.get_one(ModelVersion, ("", "scanner", 1)).onnx_error = "It cannot be exported (reference 12)."
    answer = client.get("/v1/models/scanner/versions/1/onnx")
    assert problem(answer, 500, "internal")["detail"] == "It cannot be exported (reference 12)."
    with rows() as session:
        assert session.get_one(ModelVersion, ("", "scanner", 1)).onnx_error is None
