"""Images of pairs as a browser can show them."""

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import httpx
import numpy as np
import pytest
from PIL import Image

from app.api.examiners import MOST_REQUESTS, Examiners
from app.api.uploads import Spool, UploadedFile
from app.core.folder_storage import FolderStorage
from app.core.settings import Settings
from tests.app.material import encoded, noisy, pair_files, pixels
from tests.servers import eventually

Problem = Callable[[httpx.Response, int, str], dict[str, Any]]


def upload(client: httpx.Client, clean: bytes, distorted: bytes, suffix: str = "png") -> str:
    """A dataset whose first pair has these files; returns the path of its images."""
    files = [*pair_files(2), ("clean", (f"zz.{suffix}", clean)), ("distorted", (f"zz.{suffix}", distorted))]
    answer = client.post("/v1/datasets", files=files)
    assert answer.status_code == 201, answer.text
    return f"/v1/datasets/{answer.json()['id']}/pairs/2"


def shown(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP", "WEBP"])
def test_a_lossless_upload_of_any_format_is_shown_pixel_by_pixel(client: httpx.Client, file_format: str) -> None:
    image = pixels()
    options = {"lossless": True} if file_format == "WEBP" else {}
    path = upload(client, encoded(image, file_format, **options), encoded(noisy(image)), file_format.lower())
    assert np.array_equal(np.asarray(shown(client.get(f"{path}/clean"))), image)
    assert np.array_equal(np.asarray(shown(client.get(f"{path}/distorted"))), noisy(image))


def test_sixteen_bits_are_scaled_and_not_clipped(client: httpx.Client) -> None:
    deep = np.linspace(0, 65535, 83 * 71).reshape(71, 83).astype(np.uint16)
    path = upload(client, encoded(deep, "TIFF"), encoded((deep // 2).astype(np.uint16), "TIFF"), "tif")
    seen = np.asarray(shown(client.get(f"{path}/clean")).convert("L")).astype(int)
    assert np.abs(seen - deep / 257).max() <= 1


def test_an_image_is_turned_upright_and_shrunk_to_the_longest_side(client: httpx.Client) -> None:
    image = Image.fromarray(pixels(83, 71))
    turned = image.getexif()
    turned[0x0112] = 6
    path = upload(client, encoded(image, "JPEG", exif=turned), encoded(image, "JPEG", exif=turned), "jpg")
    assert shown(client.get(f"{path}/clean")).size == (71, 83)
    assert shown(client.get(f"{path}/clean", params={"max_side": 40})).size == (34, 40)
    assert shown(client.get(f"{path}/clean", params={"max_side": 400})).size == (71, 83)  # Never enlarged.


def test_an_image_may_be_kept_for_good_under_a_tag_of_its_size(client: httpx.Client) -> None:
    path = upload(client, encoded(pixels()), encoded(noisy(pixels())))
    whole, small = client.get(f"{path}/clean"), client.get(f"{path}/clean", params={"max_side": 20})
    assert "immutable" in whole.headers["cache-control"]
    assert whole.headers["etag"] != small.headers["etag"]


def test_an_image_that_the_client_has_is_not_even_opened(
    client: httpx.Client, api_settings: Settings, problem: Problem
) -> None:
    path = upload(client, encoded(pixels()), encoded(noisy(pixels())))
    whole, small = client.get(f"{path}/clean"), client.get(f"{path}/clean", params={"max_side": 20})
    smaller = {"If-None-Match": small.headers["etag"]}
    assert client.get(f"{path}/clean", headers=smaller).content == whole.content
    assert api_settings.blob_dir is not None
    FolderStorage(api_settings.blob_dir).delete(whole.headers["etag"].strip('"').partition("-")[0])
    for known in (whole.headers["etag"], f'"other", W/{whole.headers["etag"]}', "*"):
        answer = client.get(f"{path}/clean", headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        named = ("etag", "cache-control", "vary")
        assert [answer.headers[name] for name in named] == [whole.headers[name] for name in named]
    missing = f"{path.rpartition('/')[0]}/3/clean"
    problem(client.get(missing, headers={"If-None-Match": "*"}), 404, "not-found")
    # A storage that works and does not have it has lost it: no use in trying again.
    problem(client.get(f"{path}/clean"), 410, "file-lost")


def test_whoever_waits_for_an_examiner_holds_no_connection_and_who_has_the_image_does_not_wait(
    client: httpx.Client, api_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = upload(client, encoded(pixels()), encoded(noisy(pixels())))
    tag = client.get(f"{path}/clean").headers["etag"]
    examining, done = threading.Event(), threading.Event()
    render = Examiners.render

    def slow(self: Examiners, file: BinaryIO, max_side: int | None, spool: Spool) -> UploadedFile:
        examining.set()
        assert done.wait(20)
        return render(self, file, max_side, spool)

    monkeypatch.setattr(Examiners, "render", slow)
    monkeypatch.setattr("app.api.pair_images.open_blob", lambda storage, key: counted(storage.open(key)))
    opened: list[BinaryIO] = []

    def counted(file: BinaryIO) -> BinaryIO:
        opened.append(file)
        return file

    with ThreadPoolExecutor(MOST_REQUESTS + 2) as pool:
        waiting = [pool.submit(client.get, f"{path}/distorted") for _ in range(MOST_REQUESTS + 2)]
        assert examining.wait(20)
        eventually(lambda: len(opened) == MOST_REQUESTS)
        # More of them than there are connections, and yet there is one for everybody else.
        assert client.get("/v1/jobs", timeout=5).status_code == 200
        assert client.get(f"{path}/clean", headers={"If-None-Match": tag}, timeout=5).status_code == 304
        done.set()
        assert {answer.result().status_code for answer in waiting} == {200}


def test_what_is_not_there_is_a_problem(client: httpx.Client, problem: Problem) -> None:
    path = upload(client, encoded(pixels()), encoded(noisy(pixels()))).rpartition("/")[0]
    assert "it has 3" in problem(client.get(f"{path}/3/clean"), 404, "not-found")["detail"]
    problem(client.get(f"{path}/0/blurred"), 404, "not-found")
    problem(client.get("/v1/datasets/ds_00/pairs/0/clean"), 404, "not-found")
    problem(client.get(f"{path}/0/clean", params={"max_side": 5}), 422, "unprocessable")
