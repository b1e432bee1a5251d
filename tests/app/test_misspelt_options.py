"""Options that nobody offers, in the query: refused by name wherever uploads take options, and never ignored."""

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
