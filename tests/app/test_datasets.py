"""Uploads that are accepted: how they are paired, what is reported, and that the bytes are kept as they came."""

import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.core.folder_storage import FolderStorage
from app.core.settings import Settings
from app.core.tables import Pair
from tests.app.conftest import problem
from tests.app.material import Files, encoded, noisy, pair_files, pixels, zip_of, zipped

ZIP = {"Content-Type": "application/zip"}


def created(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{document['id']}"
    return document


def codes(pair: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in pair["findings"]]


def shift_of(pair: dict[str, Any]) -> tuple[float, float]:
    return pair["shift_px"]["x"], pair["shift_px"]["y"]


def test_each_pair_is_reported(client: httpx.Client) -> None:
    dataset = created(client.post("/v1/datasets", files=pair_files(3)))
    assert dataset["scale"] == 1
    assert [pair["name"] for pair in dataset["pairs"]] == ["000", "001", "002"]
    first = dataset["pairs"][0]
    assert first["clean"] == {"format": "PNG", "width": 83, "height": 71}
    assert first["distorted"]["format"] == "JPEG"
    assert 20 < first["psnr_db"] < 35
    assert first["verdict"] == "good"
    assert client.get(f"/v1/datasets/{dataset['id']}").json() == dataset
    assert client.get("/v1/datasets").json() == {"items": [dataset], "next": None}


def test_the_uploaded_bytes_are_kept_unchanged(
    client: httpx.Client, rows: sessionmaker[Session], api_settings: Settings
) -> None:
    files = pair_files(2)
    created(client.post("/v1/datasets", files=files))
    assert api_settings.blob_dir is not None
    storage = FolderStorage(api_settings.blob_dir)
    with rows() as session:
        pairs = session.scalars(select(Pair).order_by(Pair.position)).all()
    kept = [blob for pair in pairs for blob in (pair.clean_blob, pair.distorted_blob)]
    for blob, (_, (_, content)) in zip(kept, files, strict=True):
        assert blob == hashlib.sha256(content).hexdigest()
        with storage.open(blob) as file:
            assert file.read() == content


@pytest.mark.parametrize("folder", ["", "my pairs/", "a/b/"])
def test_a_zip_is_paired_like_single_files(client: httpx.Client, folder: str) -> None:
    dataset = created(client.post("/v1/datasets", content=zip_of(pair_files(3), folder), headers=ZIP))
    assert [pair["name"] for pair in dataset["pairs"]] == ["000", "001", "002"]


def test_a_zip_may_come_as_a_form_field(client: httpx.Client) -> None:
    created(client.post("/v1/datasets", files={"archive": ("pairs.zip", zip_of(pair_files(2)))}))


@pytest.mark.parametrize("letter", ["\u202f", "\xa0", "\u2009", "\u3000", "\uf8ff"])
def test_names_may_hold_spaces_of_every_width_and_letters_of_the_makers_own(client: httpx.Client, letter: str) -> None:
    def renamed(name: str) -> str:
        return f"Screenshot 9.41.{name[:3]}{letter}PM{name[3:]}"

    files = [(field, (renamed(name), content)) for field, (name, content) in pair_files(2)]
    in_form = created(client.post("/v1/datasets", files=files))
    in_zip = created(client.post("/v1/datasets", content=zip_of(files), headers=ZIP))
    names = [f"Screenshot 9.41.{number}{letter}PM" for number in ("000", "001")]
    assert [[pair["name"] for pair in dataset["pairs"]] for dataset in (in_form, in_zip)] == [names, names]


def test_what_operating_systems_add_to_a_zip_is_ignored(client: httpx.Client) -> None:
    entries = [(f"{field}/{name}", content) for field, (name, content) in pair_files(2)]
    junk = ["__MACOSX/clean/._000.png", ".DS_Store", "clean/.DS_Store", "clean/Thumbs.db", "distorted/desktop.ini"]
    dataset = created(
        client.post("/v1/datasets", content=zipped([*entries, *((name, b"junk") for name in junk)]), headers=ZIP)
    )
    assert len(dataset["pairs"]) == 2


def test_files_without_common_names_are_paired_by_order(client: httpx.Client) -> None:
    files: Files = []
    for number in range(3):
        clean = pixels(seed=number)
        files.append(("clean[]", (f"before{9 - number}.png", encoded(clean))))
        files.append(("distorted[]", (f"IMG_{number}.png", encoded(noisy(clean, 5)))))
    dataset = created(client.post("/v1/datasets", files=files))
    assert [pair["name"] for pair in dataset["pairs"]] == ["before9", "before8", "before7"]
    assert all(pair["psnr_db"] > 30 for pair in dataset["pairs"])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_larger_clean_images_are_a_scale(client: httpx.Client, scale: int) -> None:
    files: Files = []
    for number in range(2):
        clean = pixels(67 * scale, 71 * scale, seed=number)
        small = Image.fromarray(clean).resize((67, 71), Image.Resampling.BICUBIC)
        files += [("clean", (f"{number}.png", encoded(clean))), ("distorted", (f"{number}.png", encoded(small)))]
    dataset = created(client.post("/v1/datasets", files=files))
    assert dataset["scale"] == scale
    assert all(pair["psnr_db"] > 18 and shift_of(pair) == pytest.approx((0, 0), abs=0.1) for pair in dataset["pairs"])


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "MPO"])
def test_accepted_formats(client: httpx.Client, file_format: str) -> None:
    options = {"save_all": True, "append_images": [Image.fromarray(pixels())]} if file_format == "MPO" else {}
    files = [
        (side, (f"{number}.png", encoded(pixels(seed=number), file_format, **options)))
        for number in range(2)
        for side in ("clean", "distorted")
    ]
    dataset = created(client.post("/v1/datasets", files=files))
    assert dataset["pairs"][0]["clean"]["format"] == ("JPEG" if file_format == "MPO" else file_format)
    assert codes(dataset["pairs"][0]) == ["identical"]
    assert dataset["pairs"][0]["psnr_db"] is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_accepted_pixel_types(client: httpx.Client, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels()).convert("L" if mode == "LA" else mode)
        image = image.convert("LA") if mode == "LA" else image
    files = [(side, (f"{number}.png", encoded(image))) for number in range(2) for side in ("clean", "distorted")]
    created(client.post("/v1/datasets", files=files))


def test_sixteen_bits_are_scaled_and_not_clipped(client: httpx.Client) -> None:
    grey = pixels()[..., 0]
    deep = encoded(Image.fromarray(grey.astype(np.uint16) * 257))
    files = [("clean", ("0.png", deep)), ("distorted", ("0.png", encoded(grey)))]
    files += [("clean", ("1.png", deep)), ("distorted", ("1.png", encoded(noisy(grey))))]
    dataset = created(client.post("/v1/datasets", files=files))
    assert [pair["verdict"] for pair in dataset["pairs"]] == ["reject", "good"]
    assert codes(dataset["pairs"][0]) == ["identical"]


def test_the_exif_orientation_counts(client: httpx.Client) -> None:
    clean = pixels(96, 70)
    lying = Image.fromarray(np.rot90(clean))  # Stored turned by 90°, with a note to turn it back.
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(lying, "PNG", exif=exif.tobytes())
    files = [("clean", (f"{n}.png", encoded(clean))) for n in range(2)]
    files += [("distorted", (f"{n}.png", turned)) for n in range(2)]
    dataset = created(client.post("/v1/datasets", files=files))
    assert dataset["pairs"][0]["distorted"]["width"] == 96
    assert codes(dataset["pairs"][0]) == ["identical"]


def test_a_shifted_pair_and_an_unlike_pair_are_told(client: httpx.Client) -> None:
    scene = pixels(140, 120)
    files: Files = [
        ("clean", ("moved.png", encoded(scene[10:110, 10:130]))),
        ("distorted", ("moved.png", encoded(noisy(scene)[5:105, 13:133]))),
        ("clean", ("other.png", encoded(pixels(90, 80, seed=3)))),
        ("distorted", ("other.png", encoded(255 - pixels(90, 80, seed=3)))),
    ]
    moved, other = created(client.post("/v1/datasets", files=files))["pairs"]
    assert (moved["verdict"], codes(moved)) == ("fixable", ["shifted"])
    assert shift_of(moved) == pytest.approx((-3, 5), abs=0.1)
    assert (other["verdict"], codes(other)) == ("reject", ["unrelated"])


def test_an_unknown_dataset_is_not_found(client: httpx.Client) -> None:
    problem(client.get("/v1/datasets/ds_0123"), 404, "not-found")
    problem(client.get("/v1/datasets/%00"), 404, "not-found")


def test_lists_are_paged(client: httpx.Client, stored: Callable[[], dict[str, int]]) -> None:
    made = [created(client.post("/v1/datasets", files=pair_files(2)))["id"] for _ in range(3)]
    page = client.get("/v1/datasets", params={"limit": 2}).json()
    rest = client.get("/v1/datasets", params={"limit": 2, "after": page["next"]}).json()
    assert [item["id"] for item in page["items"] + rest["items"]] == made[::-1]
    assert rest["next"] is None
    assert stored()["files"] == 4  # Equal images are kept once.
