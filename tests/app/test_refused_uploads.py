"""Bad and hostile uploads: each is a problem document that names the file, and leaves nothing behind."""

import io
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from app.api.body_limit import UPLOADS
from app.api.images import opened
from app.core.errors import TooLarge
from app.core.settings import Settings
from app.main import create_app
from tests.app.conftest import connected, problem
from tests.app.material import (
    Files,
    animation,
    encoded,
    pair_files,
    pixels,
    png_bomb,
    with_file,
    zip_of,
    zipped,
)

Counted = Callable[[], dict[str, int]]
ZIP = {"Content-Type": "application/zip"}
INVISIBLE = ["\x7f", "\x85", "\xad", "\u200b", "\u200d", "\u202e", "\u2028", "\u2029", "\u2066", "\ufeff"]


@pytest.fixture(params=["/v1/datasets", "/v1/jobs"])
def send(request: pytest.FixtureRequest, client: httpx.Client) -> Callable[..., httpx.Response]:
    """Uploads files to either of the two doors."""

    def post(files: Files) -> httpx.Response:
        return client.post(request.param, files=files, data={"name": "scanner"} if "jobs" in request.param else {})

    return post


@pytest.fixture(autouse=True)
def nothing_is_stored(stored: Counted) -> Iterator[None]:
    yield
    assert stored() == {}


def refused(answer: httpx.Response, status: int, code: str, *names: str) -> list[str]:
    """The reasons given for exactly these files."""
    files = problem(answer, status, code)["files"]
    assert [file["name"] for file in files] == list(names)
    return [file["reason"] for file in files]


def test_every_unpaired_file_is_named(send: Callable[..., httpx.Response]) -> None:
    files = [*pair_files(3), ("clean", ("alone.png", encoded(pixels()))), ("distorted", ("odd.png", encoded(pixels())))]
    reasons = refused(send(files), 422, "bad-pairs", "distorted/odd.png", "clean/alone.png")
    assert reasons == ["It has no clean partner.", "It has no distorted partner."]


def test_unequal_counts_without_a_common_name_are_refused(send: Callable[..., httpx.Response]) -> None:
    files: Files = [("clean", (f"c{i}.png", encoded(pixels()))) for i in range(3)]
    files += [("distorted", (f"d{i}.png", encoded(pixels()))) for i in range(2)]
    assert "3 clean and 2 distorted" in problem(send(files), 422, "bad-pairs")["detail"]


def test_sizes_that_differ_are_refused(send: Callable[..., httpx.Response]) -> None:
    files = with_file(pair_files(3), 3, encoded(pixels(84, 71)))
    (reason,) = refused(send(files), 422, "bad-pairs", "distorted/001.jpg")
    assert "83×71" in reason
    assert "84×71" in reason


@pytest.mark.parametrize("size", [(249, 142), (100, 100), (166, 143), (415, 355)])
def test_sizes_that_are_no_common_integer_scale_are_refused(
    send: Callable[..., httpx.Response], size: tuple[int, int]
) -> None:
    files = with_file(pair_files(3), 2, encoded(pixels(*size)))
    refused(send(files), 422, "bad-pairs", "distorted/001.jpg")


def test_a_distorted_image_larger_than_the_clean_one_is_refused(send: Callable[..., httpx.Response]) -> None:
    refused(send(with_file(pair_files(3), 3, encoded(pixels(166, 142)))), 422, "bad-pairs", "distorted/001.jpg")


def test_pairs_of_different_scales_are_refused(send: Callable[..., httpx.Response]) -> None:
    files = with_file(pair_files(3), 2, encoded(pixels(166, 142)))
    (reason,) = refused(send(files), 422, "bad-pairs", "distorted/001.jpg")
    assert reason == "Its scale is 2, that of most others 1."


def test_images_with_a_short_side_are_refused(send: Callable[..., httpx.Response]) -> None:
    refused(
        send(pair_files(2, 120, 63)),
        422,
        "bad-pairs",
        "clean/000.png",
        "distorted/000.jpg",
        "clean/001.png",
        "distorted/001.jpg",
    )


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pairs_are_refused(client: httpx.Client, count: int) -> None:
    answer = client.post("/v1/jobs", files=[*pair_files(count), ("name", (None, b"scanner"))])
    said = "There is 1 pair;" if count == 1 else "There are 0 pairs;"
    assert said in problem(answer, 422, "bad-pairs")["detail"]


def test_refused_pairs_say_by_a_word_what_it_is_about_them(client: httpx.Client) -> None:
    good, same = pair_files(2), encoded(pixels(seed=9))
    without_partner: Files = [*good, ("clean", ("alone.png", same))]
    other_scale = with_file(pair_files(3), 2, encoded(pixels(166, 142)))
    broken = with_file(with_file(pair_files(2), 0, b"text"), 3, encoded(pixels())[:900])
    equal: Files = [(side, (f"{i}.png", same)) for i in range(2) for side in ("clean", "distorted")]
    for files, cause in (
        (without_partner, "names"),
        (pair_files(1), "count"),
        (with_file(pair_files(2), 3, encoded(pixels(100, 100))), "sizes"),
        (pair_files(2, 120, 63), "sizes"),
        (other_scale, "sizes"),
        (broken, "files"),
        (equal, "rejected"),
    ):
        answer = client.post("/v1/jobs", files=files, data={"name": "scanner"})
        assert problem(answer, 422, "bad-pairs")["cause"] == cause, answer.text
    in_zip = zip_of(pair_files(101, 8, 8))
    answer = client.post("/v1/datasets", content=in_zip, headers={"Content-Type": "application/zip"})
    assert problem(answer, 422, "bad-pairs")["cause"] == "count"
    answer = client.post("/v1/datasets", files=with_file(pair_files(2), 3, b"text"))
    assert "cause" not in problem(answer, 415, "unsupported-media")


def test_500_pairs_are_refused(send: Callable[..., httpx.Response]) -> None:
    one = encoded(pixels(64, 64))
    files: Files = [(side, (f"{i}.png", one)) for i in range(500) for side in ("clean", "distorted")]
    assert "between 2 and 100" in problem(send(files), 422, "bad-pairs")["detail"]


def test_of_equal_names_on_both_sides_the_refused_one_is_told(send: Callable[..., httpx.Response]) -> None:
    files: Files = [(side, (f"{i}.png", encoded(pixels()))) for i in range(3) for side in ("clean", "distorted")]
    refused(send(with_file(files, 3, b"text")), 415, "unsupported-media", "distorted/1.png")


def test_a_text_file_named_png_is_refused(send: Callable[..., httpx.Response]) -> None:
    (reason,) = refused(send(with_file(pair_files(3), 2, b"not an image\n")), 415, "unsupported-media", "clean/001.png")
    assert reason == "It is not an image; accepted are PNG, JPEG, WEBP, TIFF, BMP."


@pytest.mark.parametrize("share", [0.9, 0.5, 0.02])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_a_truncated_image_is_refused(client: httpx.Client, file_format: str, share: float) -> None:
    whole = encoded(pixels(), file_format)
    answer = client.post("/v1/datasets", files=with_file(pair_files(3), 2, whole[: int(len(whole) * share)]))
    refused(answer, 422, "bad-image", "clean/001.png")


def test_an_empty_file_is_refused(send: Callable[..., httpx.Response]) -> None:
    assert refused(send(with_file(pair_files(3), 2, b"")), 422, "bad-image", "clean/001.png") == ["The file is empty."]


def test_an_animated_gif_is_refused(send: Callable[..., httpx.Response]) -> None:
    (reason,) = refused(send(with_file(pair_files(3), 2, animation("GIF"))), 415, "unsupported-media", "clean/001.png")
    assert "GIF" in reason


@pytest.mark.parametrize(("file_format", "word"), [("PNG", "animated"), ("WEBP", "animated"), ("TIFF", "pages")])
def test_animations_and_several_pages_are_refused(client: httpx.Client, file_format: str, word: str) -> None:
    answer = client.post("/v1/datasets", files=with_file(pair_files(3), 2, animation(file_format)))
    (reason,) = refused(answer, 422, "bad-image", "clean/001.png")
    assert word in reason


def test_a_50000_by_50000_bomb_is_refused_at_once(send: Callable[..., httpx.Response]) -> None:
    files = with_file(pair_files(3), 2, png_bomb())
    start = time.monotonic()
    (reason,) = refused(send(files), 413, "too-large", "clean/001.png")
    assert time.monotonic() - start < 2
    assert "50000×50000" in reason


def test_a_tiff_with_huge_tiles_is_refused() -> None:
    tags = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 277: 1, 322: 60_000, 323: 60_000}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    entries += struct.pack("<HHII", 324, 4, 1, 8) + struct.pack("<HHII", 325, 4, 1, 64)
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags) + 2) + entries + struct.pack("<I", 0)
    with pytest.raises(TooLarge, match="tiles"), opened(io.BytesIO(tiff), 10**6):
        pass


def test_a_jpeg_with_absurdly_many_scans_is_refused(client: httpx.Client) -> None:
    whole = encoded(pixels(), "JPEG", progressive=True)
    scan = whole.index(b"\xff\xda")
    many = whole[:-2] + whole[scan:-2] * 60 + whole[-2:]
    answer = client.post("/v1/datasets", files=with_file(pair_files(3), 3, many))
    (reason,) = refused(answer, 422, "bad-image", "distorted/001.jpg")
    assert "scans" in reason


def test_floating_point_pixels_are_refused(client: httpx.Client) -> None:
    image = encoded(Image.fromarray(pixels()[..., 0].astype("float32")), "TIFF")
    (reason,) = refused(
        client.post("/v1/datasets", files=with_file(pair_files(3), 2, image)), 422, "bad-image", "clean/001.png"
    )
    assert reason == "The TIFF has pixels of 32-bit floating point; export it with 8 or 16 bits."


def test_32_bit_pixels_are_refused(client: httpx.Client) -> None:
    image = encoded(pixels()[..., 0].astype("int32"), "TIFF")
    answer = client.post("/v1/datasets", files=with_file(pair_files(3), 2, image, "001.tif"))
    (reason,) = refused(answer, 422, "bad-image", "clean/001.tif")
    assert reason == "The TIFF has pixels of 32 bits with sign; 8 or 16 bits without sign are needed."


def test_all_bad_files_are_named_at_once_and_mixed_reasons_are_bad_pairs(send: Callable[..., httpx.Response]) -> None:
    files = with_file(with_file(pair_files(4), 2, b"text"), 5, encoded(pixels())[:300])
    reasons = refused(send(files), 422, "bad-pairs", "clean/001.png", "distorted/002.jpg")
    assert "not an image" in reasons[0]
    assert "damaged or incomplete" in reasons[1]


def test_duplicate_stems_are_refused(send: Callable[..., httpx.Response]) -> None:
    files = [*pair_files(2), ("clean", ("000.jpg", encoded(pixels(), "JPEG")))]
    reasons = refused(send(files), 422, "bad-pairs", "clean/000.png", "clean/000.jpg")
    assert reasons[0] == "2 clean files have the name '000'."


def test_a_file_of_an_unknown_field_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/datasets", files=[*pair_files(2), ("depth", ("0.png", encoded(pixels())))])
    refused(answer, 422, "bad-pairs", "0.png")


def test_an_unprintable_name_is_refused(client: httpx.Client) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="clean"; filename="a\x00b.png"\r\n\r\nx\r\n'
        b'--b\r\nContent-Disposition: form-data; name="distorted"; filename="a\x00b.png"\r\n\r\nx\r\n--b--\r\n'
    )
    answer = client.post("/v1/datasets", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert len(problem(answer, 422, "bad-pairs")["files"]) == 2


@pytest.mark.parametrize("letter", ["\r", "\n"])
def test_a_name_with_the_end_of_a_line_is_refused_though_clients_write_it_otherwise(
    client: httpx.Client, letter: str
) -> None:
    name = f"00{letter}0.png"
    files = with_file(pair_files(2), 0, encoded(pixels()), name)
    refused(client.post("/v1/datasets", files=files), 422, "bad-pairs", f"clean/{name}")


@pytest.mark.parametrize("letter", INVISIBLE)
def test_a_name_that_does_not_show_all_that_is_in_it_is_refused(client: httpx.Client, letter: str) -> None:
    name = f"00{letter}0.png"
    files = with_file(pair_files(2), 0, encoded(pixels()), name)
    refused(client.post("/v1/datasets", files=files), 422, "bad-pairs", f"clean/{name}")
    refused(client.post("/v1/datasets", content=zip_of(files), headers=ZIP), 422, "bad-archive", f"clean/{name}")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data; boundary=b"),
        (b"--b\r\nContent-Disposition: form-data", "multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="clean"; filename="a"\r\n\r\nhalf',
            "multipart/form-data; boundary=b",
        ),
        (b"no boundary at all", "multipart/form-data; boundary=b"),
        (b"--b--\r\n", "multipart/form-data"),
        (b"", "application/zip"),
        (b"--b\r\nX: y\r\n\r\nz\r\n--b--\r\n", "multipart/form-data; boundary=b"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/jobs"])
def test_empty_and_broken_bodies_are_bad_requests(
    client: httpx.Client, path: str, body: bytes, content_type: str
) -> None:
    problem(client.post(path, content=body, headers={"Content-Type": content_type}), 400, "bad-request")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "image/png", None])
def test_other_kinds_of_body_are_unsupported(client: httpx.Client, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    document = problem(client.post("/v1/datasets", content=b"x", headers=headers), 415, "unsupported-media")
    assert "JSON" not in document["title"] + document["detail"].upper()
    document = problem(client.post("/v1/jobs", content=b"x", headers=headers), 415, "unsupported-media")
    assert "application/json" in document["detail"]
    assert "file" not in document["title"]


# Zips


@pytest.mark.parametrize(
    "name", ["../clean/evil.png", "clean/../../evil.png", "/clean/evil.png", "clean\\evil.png", "C:/clean/evil.png"]
)
def test_names_that_leave_the_archive_are_refused(client: httpx.Client, name: str) -> None:
    entries = [(f"{field}/{file}", content) for field, (file, content) in pair_files(2)]
    answer = client.post("/v1/datasets", content=zipped([*entries, (name, encoded(pixels()))]), headers=ZIP)
    (reason,) = refused(answer, 422, "bad-archive", name)
    assert "plain relative path" in reason


def test_a_symbolic_link_is_refused(client: httpx.Client) -> None:
    buffer = io.BytesIO(zip_of(pair_files(2)))
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo("clean/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    answer = client.post("/v1/datasets", content=buffer.getvalue(), headers=ZIP)
    assert refused(answer, 422, "bad-archive", "clean/link.png") == ["The entry is a symbolic link."]


def test_a_zip_bomb_is_refused_by_its_ratio(client: httpx.Client) -> None:
    entries = [(f"{side}/{i}.png", bytes(30 << 20)) for i in range(2) for side in ("clean", "distorted")]
    start = time.monotonic()
    body = zipped(entries)
    made = time.monotonic()
    answer = client.post("/v1/datasets", content=body, headers=ZIP)
    assert time.monotonic() - made < 2 + (made - start)
    assert all("-fold" in file["reason"] for file in problem(answer, 422, "bad-archive")["files"])


def test_a_zip_that_lies_about_its_sizes_is_refused(client: httpx.Client) -> None:
    """The directory declares ten bytes for an entry that inflates to many; no more than declared is inflated."""
    honest = zip_of(pair_files(2))
    with zipfile.ZipFile(io.BytesIO(honest)) as archive:
        size = archive.infolist()[0].file_size
    at = honest.index(b"PK\x01\x02")
    assert honest[at + 24 : at + 28] == struct.pack("<I", size)
    lying = honest[: at + 24] + struct.pack("<I", 10) + honest[at + 28 :]
    assert "damaged" in problem(client.post("/v1/datasets", content=lying, headers=ZIP), 422, "bad-archive")["detail"]


def test_a_zip_with_too_many_entries_is_refused(client: httpx.Client) -> None:
    entries = [(f"clean/{i}.png", b"") for i in range(201)]
    answer = client.post("/v1/datasets", content=zipped(entries), headers=ZIP)
    assert "201 files" in problem(answer, 422, "bad-pairs")["detail"]


def test_a_zip_with_a_huge_directory_is_not_read(client: httpx.Client) -> None:
    entries = [(f"__MACOSX/{i:0200}", b"") for i in range(6000)]
    body = zipped(entries, zipfile.ZIP_STORED)
    assert (
        "too many entries"
        in problem(client.post("/v1/datasets", content=body, headers=ZIP), 422, "bad-archive")["detail"]
    )


def test_an_entry_that_unpacks_too_large_is_refused(api_settings: Settings) -> None:
    small = api_settings.model_copy(update={"max_pair_bytes": 20_000})
    files = with_file(pair_files(2), 0, encoded(pixels(400, 400)))
    with connected(create_app(small)) as client:
        answer = client.post("/v1/datasets", content=zip_of(files), headers=ZIP)
    refused(answer, 413, "too-large", "clean/000.png")


def test_a_zip_that_unpacks_too_large_in_all_is_refused(api_settings: Settings) -> None:
    body = zipped([(f"clean/{i}.txt", b"ab" * 30_000) for i in range(10)])
    small = api_settings.model_copy(update={"max_upload_bytes": 300_000})
    with connected(create_app(small)) as client:
        assert "unpacks" in problem(client.post("/v1/datasets", content=body, headers=ZIP), 413, "too-large")["detail"]


@pytest.mark.parametrize(
    "body",
    [b"PK\x03\x04 and nothing", zip_of(pair_files(2))[:-30], zip_of(pair_files(2))[:2000], zip_of(pair_files(2))[500:]],
)
def test_a_damaged_zip_is_refused(client: httpx.Client, body: bytes) -> None:
    problem(client.post("/v1/datasets", content=body, headers=ZIP), 422, "bad-archive")


def test_encrypted_and_otherwise_compressed_entries_are_refused(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("clean/a.png", b"x")
    (reason,) = refused(
        client.post("/v1/datasets", content=buffer.getvalue(), headers=ZIP), 422, "bad-archive", "clean/a.png"
    )
    assert "deflate" in reason
    locked = bytearray(zip_of(pair_files(1)))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    answer = client.post("/v1/datasets", content=bytes(locked), headers=ZIP)
    assert refused(answer, 422, "bad-archive", "clean/000.png") == ["The entry is encrypted."]


def test_files_outside_the_two_folders_are_refused(client: httpx.Client) -> None:
    entries = [(f"{field}/{name}", content) for field, (name, content) in pair_files(2)]
    answer = client.post("/v1/datasets", content=zipped([*entries, ("notes.txt", b"hello")]), headers=ZIP)
    refused(answer, 422, "bad-archive", "notes.txt")


# Sizes of bodies


@pytest.fixture
def small_app(api_settings: Settings) -> FastAPI:
    limits = {"max_upload_bytes": 3 << 20, "max_pair_bytes": 1 << 20, "upload_stall_s": 0.5}
    return create_app(api_settings.model_copy(update=limits))


def test_a_huge_body_with_a_declared_length_is_refused_before_it_is_read(small_app: FastAPI) -> None:
    with connected(small_app) as client:
        answer = client.post("/v1/datasets", content=b"x" * (4 << 20), headers=ZIP)
    assert "3145728 bytes" in problem(answer, 413, "too-large")["detail"]
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/jobs?name=scanner", "/v1/models/scanner/super-resolve"])
def test_a_huge_body_of_unknown_length_is_refused_while_it_streams(small_app: FastAPI, path: str) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 64 << 20:
            sent += 1 << 16
            yield b"x" * (1 << 16)

    kind = "image/png" if "models" in path else "application/zip"
    with connected(small_app) as client:
        answer = client.post(path, content=endless(), headers={"Content-Type": kind})
    problem(answer, 413, "too-large")
    assert sent < 48 << 20  # What the sockets' buffers held, not the whole.


def test_a_single_file_that_is_too_large_is_refused_by_name(small_app: FastAPI) -> None:
    with connected(small_app) as client:
        answer = client.post("/v1/datasets", files=with_file(pair_files(2), 1, bytes(2 << 20)))
    refused(answer, 413, "too-large", "distorted/000.jpg")


def test_an_upload_that_stalls_is_given_up(small_app: FastAPI) -> None:
    def stalling() -> Iterator[bytes]:
        yield b"PK"
        time.sleep(3)
        yield b"more"

    with connected(small_app) as client:
        answer = client.post("/v1/datasets", content=stalling(), headers=ZIP)
    problem(answer, 408, "request-timeout")


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(client: httpx.Client) -> None:
    def breaking() -> Iterator[bytes]:
        yield zip_of(pair_files(2))[:3000]
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        client.post("/v1/datasets", content=breaking(), headers=ZIP)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/webhooks", "/v1/webhooks/wh_1/secret"])
def test_long_json_is_refused(client: httpx.Client, path: str) -> None:
    answer = client.post(path, content=b"[" * (2 << 20), headers={"Content-Type": "application/json"})
    problem(answer, 413, "too-large")


@pytest.mark.parametrize("length", [2, 2 << 20])
def test_json_makes_no_dataset_however_long(client: httpx.Client, length: int) -> None:
    answer = client.post("/v1/datasets", content=b"[" * length, headers={"Content-Type": "application/json"})
    detail = problem(answer, 415, "unsupported-media")["detail"]
    assert detail.endswith("send multipart/form-data or application/zip.")


def test_a_long_body_of_a_put_is_refused(client: httpx.Client) -> None:
    body: dict[str, Any] = {"version": 1, "more": "x" * (2 << 20)}
    problem(client.put("/v1/models/scanner/aliases/beta", json=body), 413, "too-large")


def test_only_what_takes_images_takes_long_bodies(client: httpx.Client) -> None:
    """Bodies are read before keys are, wherever a call takes JSON alone."""
    for path, calls in client.get("/openapi.json").json()["paths"].items():
        for method, call in calls.items():
            kinds = set(call.get("requestBody", {}).get("content", {}))
            takes_images = bool(kinds - {"application/json"})
            assert takes_images == (method == "post" and UPLOADS.fullmatch(path) is not None), (method, path, kinds)
