"""Options that nobody offers or that are given twice, in the query: refused by name wherever there are options."""

from collections.abc import Callable

import httpx
import pytest

from app.main import create_app
from tests.app.conftest import problem
from tests.app.material import encoded, pair_files, pixels, zip_of, zipped

ZIP = {"Content-Type": "application/zip"}
CALLS = [
    (
        method.upper(),
        path,
        {parameter["name"] for parameter in call.get("parameters", ()) if parameter["in"] == "query"},
    )
    for path, calls in create_app().openapi()["paths"].items()
    for method, call in calls.items()
    if path.startswith("/v1/")
]
# What takes its options from a form, too, judges them when it has the form.
WITH_FORM = {("POST", "/v1/jobs"), ("POST", "/v1/datasets"), ("POST", "/v1/batches")}
PAIRS = zip_of(pair_files(2))
IMAGES = zipped([("a.png", encoded(pixels()))])


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/jobs?name=a&presett=standard", PAIRS, "presett"),
        ("/v1/jobs?name=a&preset=&presett=", PAIRS, "presett"),
        ("/v1/batches?model=x&outputt=", IMAGES, "outputt"),
        ("/v1/datasets?fixes=align", PAIRS, "fixes"),
        ("/v1/datasets?fix=align&name=a", PAIRS, "name"),
        ("/v1/batches?model=x&outputt=png", IMAGES, "outputt"),
    ],
)
def test_beside_a_zip(
    client: httpx.Client, stored: Callable[[], dict[str, int]], path: str, body: bytes, name: str
) -> None:
    document = problem(client.post(path, content=body, headers=ZIP), 422, "unprocessable")
    assert document["pointer"] == f"/{name}"
    assert stored() == {}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/datasets"])
def test_beside_a_form(client: httpx.Client, stored: Callable[[], dict[str, int]], path: str) -> None:
    fields = {"name": "a"} if path == "/v1/jobs" else {}
    answer = client.post(path, files=pair_files(2), data=fields, params={"fixx": "align"})
    assert problem(answer, 422, "unprocessable")["pointer"] == "/fixx"
    assert stored() == {}


@pytest.mark.parametrize("name", ["presett", "preset", "dataset_id", "allow_rejectss"])
def test_beside_json_where_even_known_ones_belong_into_the_body(client: httpx.Client, name: str) -> None:
    dataset = client.post("/v1/datasets", files=pair_files(2)).json()["id"]
    answer = client.post("/v1/jobs", json={"dataset_id": dataset, "name": "a"}, params={name: "paper"})
    assert problem(answer, 422, "unprocessable")["pointer"] == name
    assert client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/jobs?name=a&preset=paper&preset=quick", PAIRS, "preset"),
        ("/v1/datasets?fix=align&fix=crop", PAIRS, "fix"),
        ("/v1/batches?model=x&output=png&output=png", IMAGES, "output"),
    ],
)
def test_given_twice_in_the_query(
    client: httpx.Client, stored: Callable[[], dict[str, int]], path: str, body: bytes, name: str
) -> None:
    document = problem(client.post(path, content=body, headers=ZIP), 422, "unprocessable")
    assert (document["pointer"], document["detail"]) == (name, "The option is given twice in the query.")
    assert stored() == {}


def test_given_once_and_left_empty_once(client: httpx.Client) -> None:
    answer = client.post("/v1/datasets?fix=&fix=align", content=PAIRS, headers=ZIP)
    assert answer.status_code == 201, answer.text


def test_given_in_the_query_and_otherwise_in_the_form(client: httpx.Client) -> None:
    answer = client.post("/v1/datasets?fix=crop", files=pair_files(2), data={"fix": "align"})
    assert "twice" in problem(answer, 422, "unprocessable")["detail"]


def test_given_twice_beside_an_image(client: httpx.Client, stored: Callable[[], dict[str, int]]) -> None:
    path = "/v1/models/scanner/super-resolve?ensemble=8&ensemble=1"
    answer = client.post(path, content=encoded(pixels()), headers={"Content-Type": "image/png"})
    assert problem(answer, 422, "unprocessable")["pointer"] == "ensemble"
    assert stored() == {}


@pytest.mark.parametrize(("method", "path"), [call[:2] for call in CALLS if call[:2] not in WITH_FORM])
def test_of_a_call_that_has_no_such_option(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path.replace("{", "").replace("}", ""), params={"stat": "running", "x": ""})
    document = problem(answer, 422, "unprocessable")
    assert [part["pointer"] for part in document["errors"]] == ["stat", "x"]
    assert "stat: there is no such option" in document["detail"]


@pytest.mark.parametrize(("method", "path", "known"), [call for call in CALLS if call[2] and call[:2] not in WITH_FORM])
def test_every_documented_option_is_known(client: httpx.Client, method: str, path: str, known: set[str]) -> None:
    query = dict.fromkeys(known, "1") | {"nonsense": "1"}
    answer = client.request(method, path.replace("{", "").replace("}", ""), params=query)
    assert [part["pointer"] for part in problem(answer, 422, "unprocessable")["errors"]] == ["nonsense"]


def test_monitors_may_ask_as_they_like(client: httpx.Client) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/problems/not-found"):
        assert client.get(path, params={"at": "noon"}).status_code == 200


def test_a_head_request_is_asked_the_same_way(client: httpx.Client) -> None:
    assert client.head("/v1/models/scanner/versions/1/weights", params={"at": "noon"}).status_code == 422
