"""Jobs over HTTP: made once, followed, cancelled, drawn."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import networkx as nx
import pytest
from redis import Redis
from sqlalchemy.orm import Session, sessionmaker

from app.api.graph_svg import draw
from app.api.schemas.graph import GraphOut
from app.core import jobs
from app.core.folder_storage import FolderStorage
from app.core.queue import TRAINING_QUEUE
from app.core.settings import Settings
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.graphs import sample_graph
from tests.app.material import pair_files, with_file, zip_of

Counted = Callable[[], dict[str, int]]


def post_job(client: httpx.Client, name: str = "scanner", key: str | None = None, **options: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/v1/jobs", files=pair_files(2), data={"name": name, **options}, headers=headers)


def accepted(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    return job


@pytest.fixture
def both_databases(request: pytest.FixtureRequest, api_settings: Settings) -> Settings:
    """The settings, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return api_settings
    url = request.getfixturevalue("postgres_database")
    return api_settings.model_copy(update={"database_url": url})


on_both_databases = pytest.mark.parametrize("both_databases", ["sqlite", "postgresql"], indirect=True)


# Making jobs


@on_both_databases
def test_a_job_waits_in_the_queue_with_all_its_options(both_databases: Settings, valkey_url: str) -> None:
    with Redis.from_url(valkey_url) as broker, connected(create_app(both_databases)) as client:
        before = broker.llen(TRAINING_QUEUE)
        job = accepted(post_job(client, preset="standard", seed=7, unshuffle=2, finetune_steps=50, new_version="true"))
        assert job["state"] == "queued"
        assert job["options"]["preset"] == "standard"
        assert (job["options"]["seed"], job["options"]["unshuffle"], job["options"]["new_version"]) == (7, 2, True)
        assert broker.llen(TRAINING_QUEUE) == before + 1
        assert client.get(f"/v1/jobs/{job['id']}").json() == job
        listed = {**job, "queue_position": None}
        assert client.get("/v1/jobs", params={"state": "queued"}).json() == {"items": [listed], "next": None}
        assert client.get("/v1/jobs", params={"state": "failed"}).json()["items"] == []


def test_the_distortions_to_learn_from_may_be_chosen(client: httpx.Client) -> None:
    options = accepted(post_job(client, name="default"))["options"]
    assert (options["select"], options["top_k"]) == ("paper", None)
    by_form = accepted(post_job(client, name="form", select="top-k", top_k="5"))["options"]
    assert (by_form["select"], by_form["top_k"]) == ("top-k", 5)
    dataset = client.post("/v1/datasets", files=pair_files(2)).json()["id"]
    body = {"dataset_id": dataset, "name": "json", "select": "top-k", "top_k": 5}
    assert accepted(client.post("/v1/jobs", json=body))["options"] == by_form | {"name": "json"}


def test_a_zip_takes_its_options_from_the_query(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/jobs",
        params={"name": "scanner", "preset": "paper"},
        content=zip_of(pair_files(2)),
        headers={"Content-Type": "application/zip"},
    )
    assert accepted(answer)["options"]["preset"] == "paper"


def test_a_dataset_serves_several_jobs(client: httpx.Client) -> None:
    dataset = client.post("/v1/datasets", files=pair_files(2)).json()["id"]
    for name in ("one", "two"):
        assert accepted(client.post("/v1/jobs", json={"dataset_id": dataset, "name": name}))["dataset_id"] == dataset


@pytest.mark.parametrize("backbone", ["vdsr", "vdsr-small", "dncnn", "rcan", "rdn"])
def test_every_network_may_be_asked_for_at_every_resolution(client: httpx.Client, backbone: str) -> None:
    for unshuffle in (1, 2, 4):
        name = f"{backbone}-{unshuffle}"
        options = accepted(post_job(client, name=name, backbone=backbone, unshuffle=unshuffle))["options"]
        assert (options["backbone"], options["unshuffle"]) == (backbone, unshuffle)


def test_how_gamma_acts_and_how_meta_learning_looks_ahead_may_be_asked_for(client: httpx.Client) -> None:
    chosen: dict[str, Any] = {"scheme": "drtl-maml", "prefer": "likeness", "guidance": "weight"}
    chosen |= {"temperature": 0.1, "top_k": 3, "maml_order": "first", "inner_rate": 0.02, "linear_probe": False}
    options = accepted(post_job(client, **chosen))["options"]
    assert {name: options[name] for name in chosen} == chosen
    assert accepted(post_job(client, name="plain"))["options"].items() >= {"guidance": "sample", "top_k": None}.items()


def test_an_unknown_backbone_is_pointed_at_and_nothing_is_stored(client: httpx.Client, stored: Counted) -> None:
    document = problem(post_job(client, backbone="resnet"), 422, "unprocessable")
    assert document["pointer"] == "/backbone"
    assert document["errors"] == [
        {"pointer": "/backbone", "detail": "Input should be 'vdsr', 'vdsr-small', 'dncnn', 'rcan' or 'rdn'"}
    ]
    assert stored() == {}


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"name": "No Spaces"}, "/name"),
        ({"name": "../x"}, "/name"),
        ({"name": ""}, "/name"),
        ({"preset": "best"}, "/preset"),
        ({"seed": "-1"}, "/seed"),
        ({"seed": "1" * 400}, "/seed"),
        ({"unshuffle": "3"}, "/unshuffle"),
        ({"finetune_steps": "0"}, "/finetune_steps"),
        ({"scheme": "reptile"}, "/scheme"),
        ({"guidance": "both"}, "/guidance"),
        ({"prefer": "gamma"}, "/prefer"),
        ({"temperature": "0"}, "/temperature"),
        ({"temperature": "nan"}, "/temperature"),
        ({"top_k": "0"}, "/top_k"),
        ({"maml_order": "third"}, "/maml_order"),
        ({"inner_rate": "-0.1"}, "/inner_rate"),
        ({"linear_probe": "perhaps"}, "/linear_probe"),
        ({"select": "best"}, "/select"),
        ({"persent": "quick"}, "/persent"),
    ],
)
def test_every_invalid_option_is_pointed_at(
    client: httpx.Client, stored: Counted, options: dict[str, str], pointer: str
) -> None:
    answer = client.post("/v1/jobs", files=pair_files(2), data={"name": "scanner", **options})
    assert problem(answer, 422, "unprocessable")["pointer"] == pointer
    assert stored() == {}


def test_two_mistakes_are_told_at_once(client: httpx.Client) -> None:
    errors = problem(post_job(client, backbone="x", preset="y"), 422, "unprocessable")["errors"]
    assert {error["pointer"] for error in errors} == {"/backbone", "/preset"}


@pytest.mark.parametrize("body", [b"{", b"", b"\xff", b'{"name": "x"', b"[" * 10_000])
def test_broken_json_is_a_bad_request(client: httpx.Client, stored: Counted, body: bytes) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 400, "bad-request")
    assert stored() == {}


@pytest.mark.parametrize("body", ["[]", "1", "null", '{"name": "x"}', '{"name": "x", "dataset_id": "\\u0000"}'])
def test_json_of_the_wrong_shape_is_unprocessable(client: httpx.Client, body: str) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 422, "unprocessable")


def test_an_unknown_dataset_is_not_found(client: httpx.Client) -> None:
    problem(client.post("/v1/jobs", json={"dataset_id": "ds_00", "name": "x"}), 404, "not-found")


def test_too_little_unshuffling_for_the_scale_is_refused(client: httpx.Client, stored: Counted) -> None:
    files = pair_files(2, 140, 130)
    for place in (1, 3):
        files = with_file(files, place, pair_files(2, 70, 65)[place][1][1])
    answer = client.post("/v1/jobs", files=files, data={"name": "scanner", "unshuffle": "1"})
    assert problem(answer, 422, "unprocessable")["pointer"] == "/unshuffle"
    assert stored() == {}


def test_a_name_that_is_taken_is_refused_and_stores_nothing(
    client: httpx.Client, rows: sessionmaker[Session], stored: Counted
) -> None:
    job = accepted(post_job(client))
    before = stored()
    problem(post_job(client), 409, "name-taken")
    assert stored() == before
    finish(rows, job["id"], verdict="gain")
    before = stored()
    assert "new_version" in problem(post_job(client), 409, "name-taken")["detail"]
    assert stored() == before
    accepted(post_job(client, new_version="true"))


def test_two_simultaneous_jobs_of_one_name_become_one(client: httpx.Client, stored: Counted) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post_job(client), range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    assert stored()["jobs"] == 1
    assert stored()["datasets"] == 1


# What is not there


@pytest.mark.parametrize("job_id", ["job_00", "nonsense", "%00", "job_" + "f" * 200])
@pytest.mark.parametrize("path", ["", "/graph", "/events"])
def test_an_unknown_job_is_not_found(client: httpx.Client, job_id: str, path: str) -> None:
    problem(client.get(f"/v1/jobs/{job_id}{path}"), 404, "not-found")


def test_an_unknown_job_cannot_be_cancelled(client: httpx.Client) -> None:
    problem(client.post("/v1/jobs/job_00/cancel"), 404, "not-found")


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=201", "after=%00", "state=odd"])
def test_invalid_queries_are_pointed_at(client: httpx.Client, query: str) -> None:
    assert problem(client.get(f"/v1/jobs?{query}"), 422, "unprocessable")["pointer"] == query.partition("=")[0]


# Cancelling


def test_cancelling_a_waiting_job_ends_it_and_is_idempotent(client: httpx.Client) -> None:
    job = accepted(post_job(client))
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{job['id']}/cancel")
        assert answer.status_code == 202
        assert answer.json()["state"] == "cancelled"


def test_cancelling_a_running_job_asks_its_worker(client: httpx.Client, rows: sessionmaker[Session]) -> None:
    job = accepted(post_job(client))
    with rows.begin() as session:
        lease = jobs.claim_next(session, "task", 60)
    assert lease is not None
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelling"
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelling"
    with rows.begin() as session:
        jobs.confirm_cancelled(session, lease)
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"


# The graph


def finish(rows: sessionmaker[Session], job_id: str, verdict: str) -> None:
    """Play the worker's part, from the claim to the registered model."""
    with rows.begin() as session:
        lease = jobs.claim_next(session, "task", 60)
        assert lease is not None
        assert lease.job_id == job_id
        jobs.report_progress(session, lease, "embedding", 0.1, 20.0, step=1)
        jobs.save_graph(session, lease, sample_graph())
        quality = {"psnr": 26.0, "ssim": 0.8}
        metrics = {
            "protocol": "pairs",
            "held_out": ["001"],
            "input": quality,
            "baseline": {**quality, "steps": 5},
            "result": {**quality, "steps": 5},
            "chosen": "scratch",
            "gain_db": 0.0,
            "a later field": 1,
        }
        jobs.succeed(
            session,
            lease,
            metrics=metrics,
            verdict=verdict,
            explanation="So it is.",
            weights_blob="0" * 64,
            card={"backbone": "vdsr"},
        )


def test_a_graph_asked_for_too_early_is_not_ready(client: httpx.Client) -> None:
    job = accepted(post_job(client))
    answer = client.get(f"/v1/jobs/{job['id']}/graph")
    problem(answer, 409, "not-ready")
    assert int(answer.headers["retry-after"]) > 0
    client.post(f"/v1/jobs/{job['id']}/cancel")
    answer = client.get(f"/v1/jobs/{job['id']}/graph")
    problem(answer, 409, "conflict")
    assert "retry-after" not in answer.headers  # It will never be.


def test_the_graph_is_there_while_the_job_runs_and_networkx_loads_it(
    client: httpx.Client, rows: sessionmaker[Session]
) -> None:
    job = accepted(post_job(client))
    with rows.begin() as session:
        lease = jobs.claim_next(session, "task", 60)
        assert lease is not None
        jobs.save_graph(session, lease, sample_graph())
    answer = client.get(f"/v1/jobs/{job['id']}/graph")
    assert answer.headers["vary"] == "Accept"
    document = answer.json()
    GraphOut.model_validate(document)
    for key in ("edges", "links"):
        loaded = nx.node_link_graph(document, edges=key)
        assert set(loaded.nodes) == {node["id"] for node in document["nodes"]}
        assert loaded.number_of_edges() == 28
        assert loaded["mild"]["target"]["cosine"] == 0.86
    assert nx.node_link_graph(document).graph["ranking"][0] == "mild"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/svg+xml", "image/svg+xml"),
        ("text/html, image/svg+xml;q=0.9, */*;q=0.1", "image/svg+xml"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("image/svg+xml;q=0.2, application/json;q=0.5", "application/json"),
    ],
)
def test_accept_chooses_between_data_and_drawing(
    client: httpx.Client, rows: sessionmaker[Session], accept: str, kind: str
) -> None:
    job = accepted(post_job(client))
    finish(rows, job["id"], "gain")
    answer = client.get(f"/v1/jobs/{job['id']}/graph", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(kind)
    for unwanted in ("text/html", "application/json;q=0, image/svg+xml;q=0"):
        answer = client.get(f"/v1/jobs/{job['id']}/graph", headers={"Accept": unwanted})
        problem(answer, 406, "not-acceptable")


def test_the_drawing_is_well_formed_and_shows_every_distortion() -> None:
    drawing = ET.fromstring(draw(sample_graph(), "a & b <script>"))  # noqa: S314 - our own
    texts = [element.text or "" for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    for name in ("target", "mild", "aniso_bicubic", "0.86", "−0.07", "± 0.03"):
        assert name in texts, name
    assert "Relation graph · a & b <script>" in texts
    assert not list(drawing.iter("{http://www.w3.org/2000/svg}script"))
    assert b"prefers-color-scheme: dark" in draw(sample_graph(), "x")


@pytest.mark.parametrize("count", [1, 2, 14])
def test_any_number_of_distortions_is_drawn_inside_the_canvas(count: int) -> None:
    graph = sample_graph()
    template = graph["nodes"][0]
    names = [f"distortion_{number}" for number in range(count)]
    graph["nodes"] = [{**template, "id": name, "gamma": 1 - 2 * i / 14} for i, name in enumerate(names)]
    graph["graph"]["ranking"] = names
    graph["links"] = [{"source": name, "target": "target", "cosine": 0.5} for name in names]
    drawing = ET.fromstring(draw(graph, "many"))  # noqa: S314 - our own
    width, height = float(drawing.get("width", 0)), float(drawing.get("height", 0))
    for element in drawing.iter("{http://www.w3.org/2000/svg}rect"):
        if (x := element.get("x")) is not None:
            assert 0 <= float(x) <= width - float(element.get("width", 0))
            assert 0 <= float(element.get("y", -1)) <= height - float(element.get("height", 0))


def test_a_finished_job_names_its_model_and_metrics(client: httpx.Client, rows: sessionmaker[Session]) -> None:
    job = accepted(post_job(client))
    finish(rows, job["id"], "no_gain")
    done = client.get(f"/v1/jobs/{job['id']}").json()
    assert done["state"] == "succeeded"
    assert done["model"] == {"name": "scanner", "version": 1, "reference": "scanner@1"}
    assert done["metrics"]["a later field"] == 1
    assert done["verdict"] == "no_gain"


def test_a_failed_job_says_why(client: httpx.Client, rows: sessionmaker[Session]) -> None:
    job = accepted(post_job(client))
    with rows.begin() as session:
        lease = jobs.claim_next(session, "task", 60)
        assert lease is not None
        jobs.fail(session, lease, "bad-input", "The pairs are too small.")
    assert client.get(f"/v1/jobs/{job['id']}").json()["error"] == {
        "code": "bad-input",
        "message": "The pairs are too small.",
    }


# Events


def server_sent(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def test_events_are_paged(client: httpx.Client, rows: sessionmaker[Session]) -> None:
    job = accepted(post_job(client))
    finish(rows, job["id"], "gain")
    path = f"/v1/jobs/{job['id']}/events"
    everything = client.get(path).json()
    assert [event["kind"] for event in everything["items"]] == ["started", "progress", "graph", "succeeded"]
    assert everything["next"] is None
    page = client.get(path, params={"limit": 3}).json()
    rest = client.get(path, params={"limit": 3, "after": page["next"]}).json()
    assert page["items"] + rest["items"] == everything["items"]


def test_a_stream_follows_the_job_to_its_end_and_is_resumed_without_loss(
    client: httpx.Client, rows: sessionmaker[Session]
) -> None:
    job = accepted(post_job(client))
    path, headers = f"/v1/jobs/{job['id']}/events", {"Accept": "text/event-stream"}
    later = threading.Timer(0.4, finish, (rows, job["id"], "gain"))
    later.start()
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen = list(server_sent(answer.iter_lines()))
    later.join()
    assert [event["event"] for event in seen] == ["started", "progress", "graph", "succeeded"]
    assert json.loads(seen[1]["data"])["payload"]["phase"] == "embedding"

    with client.stream("GET", path, headers={**headers, "Last-Event-ID": seen[1]["id"]}) as answer:
        assert list(server_sent(answer.iter_lines())) == seen[2:]
    # A browser reconnects after the end; 204 tells it to stop.
    assert client.get(path, headers={**headers, "Last-Event-ID": seen[-1]["id"]}).status_code == 204


def test_a_stream_of_more_than_a_page_is_whole(client: httpx.Client, rows: sessionmaker[Session]) -> None:
    job = accepted(post_job(client))
    with rows.begin() as session:
        for number in range(450):
            jobs.record(session, job["id"], "progress", number=number)
    client.post(f"/v1/jobs/{job['id']}/cancel")
    with client.stream("GET", f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"}) as answer:
        assert len(list(server_sent(answer.iter_lines()))) == 451


def test_a_last_event_id_that_is_no_number_is_refused(client: httpx.Client) -> None:
    job = accepted(post_job(client))
    answer = client.get(
        f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "soon"}
    )
    assert problem(answer, 422, "unprocessable")["pointer"] == "last-event-id"


def test_events_are_asked_for_by_numbers_of_any_size(client: httpx.Client) -> None:
    path = f"/v1/jobs/{post_job(client).json()['id']}/events"
    assert client.get(path, params={"after": 2**31}).json()["items"] == []
    assert client.get(path, headers={"Last-Event-ID": str(2**63 - 1)}).status_code == 200
    problem(client.get(path, params={"after": 2**63}), 422, "unprocessable")


# The preview


def test_the_preview_is_served_once_there_is_one(
    client: httpx.Client, rows: sessionmaker[Session], api_settings: Settings
) -> None:
    job_id = client.post("/v1/jobs", files=pair_files(2), data={"name": "seen"}).json()["id"]
    path = f"/v1/jobs/{job_id}/preview"
    early = client.get(path)
    problem(early, 409, "not-ready")
    assert early.headers["retry-after"] == "2"

    assert api_settings.blob_dir is not None
    storage = FolderStorage(api_settings.blob_dir)
    with rows.begin() as session:
        lease = jobs.claim_next(session, "task", 60.0)
    assert lease is not None

    def shown(text: bytes) -> str:
        blob = storage.put(io.BytesIO(text))
        with rows.begin() as session:
            jobs.save_preview(session, lease, blob, psnr_db=30.0, improved=True)
        answer = client.get(path)
        assert (answer.status_code, answer.content) == (200, text)
        assert answer.headers["content-type"] == "image/png"
        return blob

    shown(b"first")
    blob = shown(b"second")
    told = [event for event in client.get(f"/v1/jobs/{job_id}/events").json()["items"] if event["kind"] == "preview"]
    assert len({event["payload"]["url"] for event in told}) == 2
    assert client.get(told[-1]["payload"]["url"]).content == b"second"
    storage.delete(blob)
    problem(client.get(path), 409, "not-ready")  # Between a blob and the next.


def test_the_preview_that_a_client_has_is_not_sent_again_but_the_next_is(
    client: httpx.Client, rows: sessionmaker[Session], api_settings: Settings
) -> None:
    job_id = client.post("/v1/jobs", files=pair_files(2), data={"name": "seen"}).json()["id"]
    path = f"/v1/jobs/{job_id}/preview"
    problem(client.get(path, headers={"If-None-Match": "*"}), 409, "not-ready")
    assert api_settings.blob_dir is not None
    storage = FolderStorage(api_settings.blob_dir)
    with rows.begin() as session:
        lease = jobs.claim_next(session, "task", 60.0)
    assert lease is not None
    tag = '"none"'
    for text in (b"first", b"second"):
        with rows.begin() as session:
            jobs.save_preview(session, lease, storage.put(io.BytesIO(text)), psnr_db=30.0, improved=True)
        new = client.get(path, headers={"If-None-Match": tag})
        assert (new.status_code, new.content) == (200, text)
        tag = new.headers["etag"]
        same = client.get(path, headers={"If-None-Match": tag})
        assert (same.status_code, same.content, same.headers["cache-control"]) == (304, b"", "no-cache")


def test_a_job_that_ended_without_a_preview_says_so(client: httpx.Client) -> None:
    job_id = client.post("/v1/jobs", files=pair_files(2), data={"name": "unseen"}).json()["id"]
    client.post(f"/v1/jobs/{job_id}/cancel")
    for what, name in (("preview", "preview"), ("graph", "relation graph")):
        detail = problem(client.get(f"/v1/jobs/{job_id}/{what}"), 409, "conflict")["detail"]
        assert detail == f"The job was cancelled before it had a {name}."


def test_a_reserved_name_is_refused_in_the_service_s_own_words(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", files=pair_files(2), data={"name": "auto"})
    detail = problem(answer, 422, "unprocessable")["detail"]
    assert "'auto' is reserved" in detail
    assert "Value error" not in detail
