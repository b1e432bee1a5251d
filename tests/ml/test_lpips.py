"""LPIPS against torchmetrics' own, with random weights in place of the classifiers' published ones."""

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
import torchmetrics.functional.image.lpips as reference
from safetensors.torch import save_file
from torch import Tensor, nn

from ml.foreign_weights import UnusableWeights
from ml.images import from_uint8, to_uint8
from ml.lpips import Lpips, alexnet_features, load_lpips, vgg16_features

Seeded = Callable[[int], torch.Generator]
FEATURES = {"alex": alexnet_features, "vgg": vgg16_features}


def weights(classifier: str, tmp_path: Path, suffix: str = ".pth") -> tuple[Path, nn.Sequential]:
    """A file such as torchvision's, and the features that it holds."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        features = FEATURES[classifier]()
        state = {f"features.{name}": value for name, value in features.state_dict().items()}
        state["classifier.1.weight"] = torch.rand(3, 3)  # The part that LPIPS has no use for.
    path = tmp_path / f"{classifier}{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path, features


@pytest.fixture
def alex(tmp_path: Path) -> Lpips:
    return load_lpips(weights("alex", tmp_path)[0])


@pytest.mark.parametrize("classifier", ["alex", "vgg"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_distance_is_torchmetrics(
    classifier: Literal["alex", "vgg"], suffix: str, tmp_path: Path, seeded: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, features = weights(classifier, tmp_path, suffix)
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda *_, **__: features)
    theirs = reference._LPIPS(net=classifier)
    lpips = load_lpips(path)
    assert lpips.classifier == classifier
    for size in ((64, 64), (71, 45)):
        clean = from_uint8(to_uint8(torch.rand(3, *size, generator=seeded(0))))
        image = from_uint8(to_uint8((clean + 0.1 * torch.randn(clean.shape, generator=seeded(1))).clamp(0, 1)))
        with torch.no_grad():
            expected = float(theirs(image[None], clean[None], normalize=True))
        assert lpips.distance(image, clean) == pytest.approx(expected, rel=1e-4)


def test_equal_images_have_no_distance_and_more_noise_has_more(alex: Lpips, seeded: Seeded) -> None:
    clean = torch.rand(3, 61, 47, generator=seeded(0))
    noise = torch.randn(clean.shape, generator=seeded(1))
    distances = []
    for sigma in (0, 0.05, 0.2, 0.5):
        distance = alex.distance((clean + sigma * noise).clamp(0, 1), clean)
        assert distance is not None
        distances.append(distance)
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[1] > 0


def test_what_eight_bits_cannot_hold_makes_no_difference(alex: Lpips, odd_image: Tensor) -> None:
    clean = from_uint8(to_uint8(torch.cat([odd_image, odd_image], dim=2)))
    assert alex.distance((clean + 0.4 / 255).clamp(0, 1), clean) == 0


def test_images_too_small_for_the_classifier_have_none(alex: Lpips, odd_image: Tensor) -> None:
    assert alex.distance(odd_image, odd_image) is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableWeights, match=r"absent\.pth"):
        load_lpips(tmp_path / "absent.pth")


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, ("open('/dev/null')",)


@pytest.mark.parametrize(
    "content",
    [b"", b"not weights", pickle.dumps({"features.0.weight": Hostile()}, protocol=2)],
    ids=["empty", "noise", "pickle that runs code"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_weights_is_refused_and_runs_nothing(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnusableWeights, match="cannot be read as weights"):
        load_lpips(path)


def damaged_pickles() -> Iterator[bytes]:
    """A pickle of torch's old form that ends anywhere, and one that speaks of numbers that it does not hold."""
    file = io.BytesIO()
    weight = torch.rand(2, 3)
    torch.save({"features.0.weight": weight}, file, _use_new_zipfile_serialization=False)
    whole = file.getvalue()
    yield from (whole[:end] for end in range(len(whole)))
    before, key, after = whole.rpartition(str(weight.untyped_storage()._cdata).encode())
    yield before + key[::-1] + after


def test_a_damaged_pickle_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pth"
    for content in damaged_pickles():
        path.write_bytes(content)
        with pytest.raises(UnusableWeights, match="cannot be read as weights"):
            load_lpips(path)


@pytest.mark.parametrize("name", [3, ("features", 0)])
def test_weights_under_a_name_that_is_no_text_are_refused(name: object, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    torch.save({"features.0.weight": torch.rand(64, 3, 11, 11), name: torch.rand(3)}, path)
    with pytest.raises(UnusableWeights, match="no weights by name"):
        load_lpips(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.rand(64, 3, 7, 7)}, path)
    with pytest.raises(UnusableWeights, match="neither"):
        load_lpips(path)
    torch.save([1, 2], path)
    with pytest.raises(UnusableWeights, match="no weights by name"):
        load_lpips(path)


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    path, _ = weights("alex", tmp_path)
    state = torch.load(path, weights_only=True)
    del state["features.3.bias"]
    torch.save(state, path)
    with pytest.raises(UnusableWeights, match="not whole"):
        load_lpips(path)
