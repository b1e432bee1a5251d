"""The demo's virtual camera: a distortion of its own, the same every time, honest about what it is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.virtual_camera import (
    TRAINING,
    UNSEEN,
    DemoPairs,
    VirtualCamera,
    demo_pairs,
    demosaic,
    mosaic,
    photograph,
    point_spread,
)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


@pytest.fixture
def scene() -> np.ndarray:
    """An odd-sized, non-square picture with edges, a ramp and a texture."""
    y, x = np.mgrid[0:37, 0:31]
    return np.stack([x * 8, np.where(x > y, 200, 40), 128 + 90 * np.sin(y)], axis=-1).astype(np.uint8)


def test_the_picture_keeps_its_size_and_changes(scene: np.ndarray) -> None:
    taken = VirtualCamera().capture(scene, np.random.default_rng(0))
    assert taken.shape == (37, 31, 3)
    assert taken.dtype == np.uint8
    assert psnr(scene, taken) < 30


def test_the_same_seed_takes_the_same_picture(scene: np.ndarray) -> None:
    first, second, other = (VirtualCamera().capture(scene, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_anything_but_rgb_bytes_is_refused_with_its_shape(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 of shape \(h, w, 3\), got .* of shape"):
        VirtualCamera().capture(bad, np.random.default_rng(0))


def test_the_lens_loses_no_light_and_shifts_nothing() -> None:
    kernel = point_spread(1.3, (1.1, 0.7), 25.0)
    y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
    assert kernel.sum() == pytest.approx(1.0)
    assert (kernel >= -1e-12).all()
    assert (kernel * x).sum() == pytest.approx(0.0, abs=1e-9)
    assert (kernel * y).sum() == pytest.approx(0.0, abs=1e-9)


def test_the_lens_is_astigmatic_along_its_axis() -> None:
    kernel = point_spread(0.5, (2.0, 0.5), 0.0)
    y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
    assert (kernel * x**2).sum() > 4 * (kernel * y**2).sum()


def test_demosaicing_keeps_what_was_measured_and_restores_flat_colour() -> None:
    flat = np.broadcast_to([0.7, 0.4, 0.2], (9, 7, 3)).astype(float)
    assert demosaic(mosaic(flat)) == pytest.approx(flat)
    noise = np.random.default_rng(0).uniform(size=(9, 7, 3))
    raw = mosaic(noise)
    assert mosaic(demosaic(raw)) == pytest.approx(raw)


def test_demosaicing_a_grey_ramp_gives_the_ramp() -> None:
    ramp = np.repeat(np.linspace(0, 1, 12)[None, :, None], 10, axis=0).repeat(3, axis=2)
    inner = np.s_[2:-2, 2:-2]
    assert demosaic(mosaic(ramp))[inner] == pytest.approx(ramp[inner])


def test_more_light_means_less_noise(scene: np.ndarray) -> None:
    dim, bright = (VirtualCamera(full_well_e=full_well) for full_well in (300.0, 30_000.0))
    grey = np.full((64, 48, 3), 128, np.uint8)
    spread = [camera.capture(grey, np.random.default_rng(1)).std() for camera in (dim, bright)]
    assert spread[0] > 3 * spread[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DemoPairs:
    """The demo's pairs, which take seconds to make."""
    return demo_pairs(tmp_path_factory.mktemp("demo"), seed=0)


def test_the_demo_has_enough_pairs_of_a_clearly_visible_distortion(made: DemoPairs) -> None:
    names = sorted(path.name for path in (made.folder / "clean").iterdir())
    assert names == sorted(path.name for path in (made.folder / "distorted").iterdir())
    assert 8 <= len(names) <= 12
    clean_files = [*(made.folder / "clean" / name for name in names), made.unseen_clean]
    worth = []
    for clean in clean_files:
        distorted = clean.parent.parent / "distorted" / clean.name
        a, b = (np.asarray(Image.open(path)) for path in (clean, distorted))
        assert a.shape == b.shape
        assert min(a.shape[:2]) >= 240
        worth.append(psnr(a, b))
    assert 25 < np.mean(worth) < 29


def test_the_demo_is_the_same_every_time(made: DemoPairs, tmp_path: Path) -> None:
    again = demo_pairs(tmp_path, seed=0)
    assert again.unseen_distorted.read_bytes() == made.unseen_distorted.read_bytes()


def test_no_photograph_is_used_twice() -> None:
    used = [crop.photograph for crop in (*TRAINING.values(), UNSEEN[1])]
    assert len(used) == len(set(used))


def test_every_crop_lies_inside_its_photograph() -> None:
    for crop in (*TRAINING.values(), UNSEEN[1]):
        left, top, right, bottom = crop.box
        assert photograph(crop).shape == (bottom - top, right - left, 3)
        assert photograph(crop)[-1].any(), crop
        assert photograph(crop)[:, -1].any(), crop
