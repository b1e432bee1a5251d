"""Equal checkpoints and previews of different jobs are different blobs, and still what they were."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from ml import checkpoint
from tests.images import png
from worker.own_blobs import sign_png, sign_safetensors

TENSORS = {"weights": torch.arange(12.0).reshape(3, 4), "steps": torch.tensor([7])}


def signed_checkpoint(path: Path, owner: str) -> bytes:
    checkpoint.save(path, TENSORS, {"plan": "é"})
    sign_safetensors(path, owner)
    return path.read_bytes()


def test_equal_checkpoints_of_two_owners_differ_and_both_load(tmp_path: Path) -> None:
    first, second = signed_checkpoint(tmp_path / "a", "one"), signed_checkpoint(tmp_path / "b", "another")
    assert first != second
    for name in ("a", "b"):
        tensors, facts = checkpoint.load(tmp_path / name)
        assert facts == {"plan": "é"}
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)
    with safe_open(tmp_path / "b", "pt") as file:
        assert file.metadata()["owner"] == "another"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_equal_previews_of_two_owners_differ_and_show_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (31, 37, 3), dtype=np.uint8)
    image = png(pixels)
    first, second = sign_png(image, "one"), sign_png(image, "another")
    assert len({image, first, second}) == 3
    for signed, owner in ((first, "one"), (second, "another")):
        with Image.open(io.BytesIO(signed)) as opened:
            opened.load()
            assert np.array_equal(np.asarray(opened), pixels)
            assert opened.info["owner"] == owner
