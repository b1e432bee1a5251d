"""Batches and followed operations against the real service."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.main import create_app
from drtl_client import Client, errors
from tests.images import image_pairs
from tests.servers import RunningService

pytestmark = pytest.mark.skipif(
    "/v1/batches" not in create_app().openapi()["paths"], reason="this service has no batches"
)


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[Client]:
    """A client of a service that has the model `batched`."""
    with Client(service.url) as client:
        pairs = [(clean, distorted) for _, clean, distorted in image_pairs(4)]
        client.jobs.wait(
            client.jobs.create(pairs, name="batched", scheme="baseline", unshuffle=4, finetune_steps=2), timeout_s=90
        )
        yield client


def photo(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (31, 37, 3), np.uint8)
    return Image.fromarray(pixels)


def names_in(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as zipped:
        for name in zipped.namelist():
            if name.endswith(".png"):
                assert Image.open(io.BytesIO(zipped.read(name))).size == (37, 31)
        return [name for name in zipped.namelist() if name.endswith(".png")]


def test_many_images_go_through_a_model_at_once(client: Client, tmp_path: Path) -> None:
    photo(1).save(tmp_path / "holiday.png")
    batch = client.batches.create([tmp_path / "holiday.png", photo(2), np.asarray(photo(3))], model="batched@1")
    ended = client.batches.wait(batch, timeout_s=90)
    assert ended.state == "succeeded"
    assert ended.counts["succeeded"] == ended.counts["total"] == 3
    assert len(names_in(client.batches.download(ended, tmp_path / "restored.zip"))) == 3
    assert any("holiday" in name for name in names_in(tmp_path / "restored.zip"))
    assert next(found.id for found in client.batches.list()) == batch.id
    parts = [operation for operation in client.operations.list() if operation.batch == batch.id]
    assert {operation.state for operation in parts} == {"succeeded"}


def test_a_zip_of_images_is_a_batch_and_the_same_key_makes_no_other(client: Client, tmp_path: Path) -> None:
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for seed in range(3):
            photo(seed).save(tmp_path / f"{seed}.png")
            zipped.write(tmp_path / f"{seed}.png", f"trip/{seed}.png")
    made = [client.batches.create(archive, model="batched@1", idempotency_key="trip") for _ in range(2)]
    assert made[0].id == made[1].id
    assert client.batches.cancel(made[0]).id == made[0].id
    assert client.batches.wait(made[0], timeout_s=60).ended


def test_a_batch_of_nothing_usable_is_refused(client: Client) -> None:
    with pytest.raises(errors.Problem):
        client.batches.create([b"no image"], model="batched@1")


def test_options_reach_the_service_and_unknown_ones_are_refused(client: Client) -> None:
    operation = client.models["batched@1"].submit(photo(1), outscale=2)
    assert operation.raw["options"]["outscale"] == 2
    with pytest.raises(errors.Unprocessable, match="colour"):
        client.models["batched@1"].super_resolve(photo(1), colour="blue")


def test_an_image_can_be_cancelled(client: Client) -> None:
    operation = client.operations.cancel(client.models["batched@1"].submit(photo(1)))
    assert client.operations.wait(operation, timeout_s=60).state in {"cancelled", "succeeded"}
