"""Images of all kinds through the running service and its real worker."""

import io
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import pyvips
from PIL import Image, ImageCms

from tests.registered import model_file, register
from tests.servers import RunningService, eventually

PATH = "/v1/models/restoring/super-resolve"
STOPS_WITHIN_S = 2.0


@pytest.fixture(scope="module", autouse=True)
def _models(service: RunningService) -> None:
    register(service, "restoring", model_file())
    register(service, "enlarger", model_file(scale=2), scale=2)


def pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, channels), np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]


def png(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array.squeeze()).save(file, "png", **options)
    return file.getvalue()


def restore(
    service: RunningService, image: bytes, path: str = PATH, accept: str = "image/png", **options: str | float
) -> httpx.Response:
    headers = {"Content-Type": "application/octet-stream", "Accept": accept}
    return service.http.post(path, content=image, headers=headers, params=options, timeout=120)


def opened(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def submitted(service: RunningService, image: bytes) -> str:
    headers = {"Content-Type": "image/png", "Prefer": "respond-async"}
    answer = service.http.post(PATH, content=image, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def state_of(service: RunningService, location: str) -> dict[str, Any]:
    return dict(service.http.get(location).json())


def until_cancelled(service: RunningService, location: str) -> None:
    eventually(lambda: state_of(service, location)["state"] == "cancelled", timeout_s=20, what="its end")


@pytest.fixture(scope="module")
def large() -> bytes:
    """More than a minute of work."""
    return png(pixels(5000, 4500), compress_level=1)


# ---- kinds of images


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_the_answer_has_the_format_asked_for(service: RunningService, kind: str) -> None:
    image = opened(restore(service, png(pixels(37, 31)), accept=f"image/{kind}"))
    assert (image.format, image.size) == (kind.upper(), (31, 37))


def test_sixteen_bits_come_back_as_sixteen_bits(service: RunningService) -> None:
    deep = np.random.default_rng(3).integers(0, 300, (37, 31, 3), dtype=np.uint16)  # Dark; 8 bits would lose it.
    image = pyvips.Image.new_from_array(deep).copy(interpretation="rgb16")
    answer = restore(service, image.pngsave_buffer())
    assert answer.status_code == 200, answer.text
    back = pyvips.Image.new_from_buffer(answer.content, "")
    assert (back.format, back.width, back.height, back.bands) == ("ushort", 31, 37, 3)
    assert np.abs(back.numpy().astype(int) - deep).max() < 6000
    assert len(np.unique(back.numpy())) > 256


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_stays_grey_and_alpha_stays_alpha(service: RunningService, channels: int) -> None:
    image = opened(restore(service, png(pixels(37, 31, channels))))
    assert image.mode == {1: "L", 4: "RGBA"}[channels]


def test_profile_orientation_and_resolution_are_respected(service: RunningService) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(pixels(40, 24)).save(file, "jpeg", exif=exif, icc_profile=profile, dpi=(300, 300))
    image = opened(restore(service, file.getvalue()))
    assert image.size == (40, 24)  # Turned upright.
    assert image.info["icc_profile"] == profile
    assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert image.getexif().get(0x0112, 1) == 1


def test_an_enlarging_model_enlarges_and_outscale_has_the_last_word(service: RunningService) -> None:
    path = "/v1/models/enlarger/super-resolve"
    assert opened(restore(service, png(pixels(20, 30)), path)).size == (60, 40)
    assert opened(restore(service, png(pixels(20, 30)), path, outscale=1.5)).size == (45, 30)


def test_headers_say_how_it_was_made(service: RunningService) -> None:
    answer = restore(service, png(pixels(37, 31)), precision="bf16")
    assert answer.headers["x-drtl-model"] == "restoring@1"
    assert answer.headers["x-drtl-precision"] == "bf16"
    timing = answer.headers["server-timing"]
    assert all(f"{stage};dur=" in timing for stage in ("decode", "restore", "encode"))


def test_an_explained_answer_links_to_its_trust_map(service: RunningService) -> None:
    answer = restore(service, png(pixels(37, 31)), explain=True, ensemble=8)
    link = answer.links["describedby"]["url"]
    trust = opened(service.http.get(link))
    assert (trust.mode, trust.size) == ("L", (31, 37))
    assert np.asarray(trust).max() > 0


# ---- damage


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_a_truncated_image_is_the_senders_mistake(service: RunningService, kind: str, share: float) -> None:
    file = io.BytesIO()
    Image.fromarray(pixels(90, 110)).save(file, kind)
    answer = restore(service, file.getvalue()[: int(share * file.tell())])
    assert answer.status_code in {415, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_flipped_bits_end_in_an_image_or_a_problem_and_never_harm_the_worker(service: RunningService) -> None:
    pid = service.announced()["processes"]["worker-inference"]
    random = np.random.default_rng(7)
    for kind in ("png", "jpeg", "webp", "tiff"):
        file = io.BytesIO()
        Image.fromarray(pixels(40, 50)).save(file, kind)
        for _ in range(12):
            broken = bytearray(file.getvalue())
            for position in random.integers(0, len(broken), 3):
                broken[position] ^= 1 << int(random.integers(8))
            answer = restore(service, bytes(broken))
            assert answer.status_code in {200, 413, 415, 422}, (kind, answer.text)
    assert service.announced()["processes"]["worker-inference"] == pid


# ---- long work


def test_a_cancelled_image_frees_the_worker_within_two_seconds(service: RunningService, large: bytes) -> None:
    location = submitted(service, large)
    eventually(lambda: state_of(service, location)["progress"] > 0.01, timeout_s=60, what="progress")
    assert service.http.post(f"{location}/cancel").status_code == 202
    asked = time.monotonic()
    eventually(lambda: state_of(service, location)["state"] == "cancelled", timeout_s=20, what="its end")
    assert time.monotonic() - asked < STOPS_WITHIN_S
    worker = psutil.Process(service.announced()["processes"]["worker-inference"])
    time.sleep(0.5)
    worker.cpu_percent()
    time.sleep(1.0)
    assert worker.cpu_percent() < 50  # Nothing goes on burning.


def test_a_small_image_does_not_wait_for_large_ones(service: RunningService, large: bytes) -> None:
    locations = [submitted(service, large) for _ in range(3)]
    try:
        eventually(lambda: state_of(service, locations[0])["progress"] > 0.01, timeout_s=60, what="progress")
        started = time.monotonic()
        assert restore(service, png(pixels(64, 64))).status_code == 200
        # One tile of 384×384 on one core takes about a second; the rest of the three images, minutes.
        assert time.monotonic() - started < 6
        assert state_of(service, locations[0])["state"] == "running"
    finally:
        for location in locations:
            service.http.post(f"{location}/cancel")
        for location in locations:
            until_cancelled(service, location)


def test_many_clients_at_once_are_all_served(service: RunningService) -> None:
    image = png(pixels(64, 48))
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: restore(service, image), range(64)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) <= 2  # Batches of other sizes may round otherwise.


def test_a_batch_comes_back_as_a_zip_of_the_same_names(service: RunningService) -> None:
    files = [("images", (f"{name}.png", png(pixels(37, 31, seed=seed)))) for seed, name in enumerate("abc")]
    files.append(("images", ("broken.png", png(pixels(90, 90))[:700])))
    answer = service.http.post("/v1/batches", files=files, data={"model": "restoring"})
    assert answer.status_code == 202, answer.text
    location = answer.headers["location"]
    batch = eventually(
        lambda: found if (found := service.http.get(location).json())["finished_at"] else None,
        timeout_s=60,
        what="the batch",
    )
    assert batch["counts"]["succeeded"] == 3
    assert batch["counts"]["failed"] == 1
    with zipfile.ZipFile(io.BytesIO(service.http.get(f"{location}/result").content)) as result:
        assert sorted(result.namelist()) == ["a.png", "b.png", "c.png"]
        assert Image.open(io.BytesIO(result.read("a.png"))).size == (31, 37)


# ---- the nearest model


def test_auto_takes_the_model_whose_training_images_the_image_is_most_like(service: RunningService) -> None:
    from ml.images import decode, to_uint8
    from ml.match import fingerprint

    random = np.random.default_rng(5)

    def smooth(seed: int) -> np.ndarray:
        small = Image.fromarray(pixels(40, 40, seed=seed))
        return np.asarray(small.resize((200, 200), Image.Resampling.BICUBIC))

    def noisy(seed: int) -> np.ndarray:
        return (smooth(seed) + random.normal(0, 25, (200, 200, 3))).clip(0, 255).astype(np.uint8)

    for name, make in (("smooth", smooth), ("noisy", noisy)):
        reference = fingerprint([to_uint8(decode(png(make(seed))).pixels) for seed in range(6)])
        assert reference is not None
        card = {"match": asdict(reference)}
        register(service, name, model_file(**card), **card)
    path = "/v1/models/auto/super-resolve"
    for name, make in (("smooth", smooth), ("noisy", noisy)):
        answer = restore(service, png(make(99)), path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-drtl-model"] == f"{name}@1"
        assert 0 <= float(answer.headers["x-drtl-match"]) <= 1
        assert answer.headers["x-drtl-match-word"] == "close"
