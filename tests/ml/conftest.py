"""Shape annotations of `ml` are checked while these tests run; what several test files need is made here."""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import skimage.data
import torch
from jaxtyping import install_import_hook
from PIL import Image
from torch import Tensor

# Before anything of `ml` is imported; modules that other tests have imported before stay as they are, unchecked.
# The numeric tower lets whole numbers stand where floats are expected, as everywhere in Python.
install_import_hook("ml", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

from ml import backbones, job, options, prior_images  # noqa: E402
from ml.backbones import SameSize, vdsr  # noqa: E402
from ml.dead_leaves import dead_leaves  # noqa: E402
from ml.drn import DistortionRelationNetwork, DrnShape  # noqa: E402
from ml.finetune import FinetuneSchedule  # noqa: E402
from ml.meta import MetaSchedule  # noqa: E402
from ml.pairs import PairFile, Split, TargetPair, decode_pairs, split  # noqa: E402
from ml.prior import Prior, round_to_half, theta_name  # noqa: E402
from ml.relation import Relation, compute_prototypes, relate  # noqa: E402
from ml.transfer import TransferSchedule  # noqa: E402
from tests.layers import convolution  # noqa: E402

TINY_DRN = DrnShape(width=1 / 32, kind_dim=8, memory_nodes=4)
Seeded = Callable[[int], torch.Generator]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training as on a CPU without bfloat16, whose rounding is as large as what some equations are compared to."""
    monkeypatch.setattr("ml.precision.has_fast_bf16", lambda on: False)


@pytest.fixture
def seeded() -> Seeded:
    """A generator with a given seed."""
    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def photographs() -> dict[str, Tensor]:
    """Photographs that come with scikit-image, as 8-bit tensors (3, h, w)."""
    arrays = {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    return {name: torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1) for name, array in arrays.items()}


@pytest.fixture
def odd_image() -> Tensor:
    """A float image whose sides are odd and differ, so that a swapped height and width is noticed."""
    return torch.rand(3, 37, 31, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """An 8-bit tensor (3, h, w) as the bytes of a file."""

    def encode(pixels: Tensor, file_format: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
        buffer = io.BytesIO()
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).convert(mode)
        image.save(buffer, file_format, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def pair_files(photographs: dict[str, Tensor], encoded: Callable[..., bytes]) -> Callable[..., list[PairFile]]:
    """Pairs of crops of photographs, distorted by fixed noise, or not at all; the clean one `scale` times larger."""

    def make(
        count: int, height: int = 80, width: int = 72, *, scale: int = 1, mode: str = "RGB", sigma: float = 25
    ) -> list[PairFile]:
        generator = torch.Generator().manual_seed(11)
        sources = list(photographs.values())
        files = []
        for index in range(count):
            source = sources[index % len(sources)]
            top, left = 40 + 7 * index, 60 + 11 * index
            clean = source[:, top : top + height * scale, left : left + width * scale]
            small = clean[:, ::scale, ::scale].float()
            noisy = small + sigma * torch.randn(small.shape, generator=generator)
            distorted = noisy.clamp(0, 255).round().to(torch.uint8)
            files.append(PairFile(f"p{index}", encoded(clean, mode=mode), encoded(distorted, mode=mode)))
        return files

    return make


@pytest.fixture
def target_pairs(photographs: dict[str, Tensor]) -> Callable[..., list[TargetPair]]:
    """Decoded pairs with noise."""

    def make(count: int, height: int = 80, width: int = 72) -> list[TargetPair]:
        generator = torch.Generator().manual_seed(12)
        pairs = []
        for index, source in zip(range(count), list(photographs.values()) * count, strict=False):
            clean = source[:, 30 + index : 30 + index + height, 50 : 50 + width]
            noisy = clean + 20 * torch.randn(clean.shape, generator=generator)
            pairs.append(TargetPair(f"p{index}", clean, noisy.clamp(0, 255).round().to(torch.uint8)))
        return pairs

    return make


@pytest.fixture
def random_network() -> Callable[..., SameSize]:
    """A small VDSR whose last layer is random too, so that it changes its input."""

    def make(unshuffle: int = 2, depth: int = 4, width: int = 8, seed: int = 0) -> SameSize:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = vdsr(unshuffle, depth=depth, width=width)
            torch.nn.init.normal_(convolution(network, -1).weight, std=0.05)
        return network

    return make


@pytest.fixture
def tiny_drn() -> DistortionRelationNetwork:
    """An untrained DRN of the smallest size."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return DistortionRelationNetwork(TINY_DRN).eval()


@pytest.fixture
def tiny_prior(
    tiny_drn: DistortionRelationNetwork, photographs: dict[str, Tensor], random_network: Callable[..., SameSize]
) -> Prior:
    """A prior of the tiny network below at `unshuffle` 2, with an untrained DRN and few prototype samples."""
    round_to_half(tiny_drn)
    tasks = ["bicubic", "noise", "mild"]
    prototypes = compute_prototypes(tiny_drn, list(photographs.values()), tasks, 3, seed=0)
    theta = {name: value.contiguous() for name, value in random_network(2, seed=8).state_dict().items()}
    return Prior("test-1", tiny_drn, prototypes, {theta_name("vdsr", 2): theta}, {"licence": "CC0"})


@pytest.fixture
def parts(pair_files: Callable[..., list[PairFile]]) -> Split:
    """Four noisy pairs, divided as a job divides them."""
    return split(decode_pairs(pair_files(4))[0], 0)


@pytest.fixture
def relation(tiny_prior: Prior, parts: Split) -> Relation:
    """How these pairs relate to the tasks of the tiny prior."""
    return relate(tiny_prior.drn, tiny_prior.prototypes, parts.train, 0)


@pytest.fixture
def few_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Priors are trained on little generated data."""
    monkeypatch.setattr(prior_images, "DEAD_LEAVES", 1)
    monkeypatch.setattr(prior_images, "DEAD_LEAVES_SIDE", 112)
    monkeypatch.setattr(prior_images, "dead_leaves", partial(dead_leaves, leaves=30))


@pytest.fixture
def tiny_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs train a network of four layers in small batches, on little generated data."""
    monkeypatch.setitem(backbones.BACKBONES, "vdsr", lambda unshuffle: vdsr(unshuffle, depth=4, width=8))
    monkeypatch.setattr(job, "DEAD_LEAVES", 1)
    monkeypatch.setattr(job, "DEAD_LEAVES_SIDE", 112)
    monkeypatch.setattr(job, "dead_leaves", partial(dead_leaves, leaves=30))
    quick = options.Schedules(
        TransferSchedule(steps=3, batch=2, crop=32, learning_rate=1e-3),
        FinetuneSchedule(steps=6, batch=2, crop=32, learning_rate=1e-3, decay="cosine"),
        prior_rate=5e-4,
        scratch_rate=2e-3,
        meta=MetaSchedule(tasks=2),
        fractions={"dncnn": 0.5},
    )
    monkeypatch.setitem(options.PRESETS, "quick", quick)
