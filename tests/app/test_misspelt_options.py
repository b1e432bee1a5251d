"""Options that nobody offers or that are given twice, in the query: refused by name wherever there are options."""

from collections.abc import Callable

import httpx
import pytest

from tests.app.conftest import problem
from tests.app.material import encoded, pair_files, pixels, zip_of, zipped

ZIP = {"Content-Type": "application/zip"}
PAIRS = zip_of(pair_files(2))
IMAGES = zipped([("a.png", encoded(pixels()))])


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/jobs?name=a&presett=standard", PAIRS, "presett"),
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
