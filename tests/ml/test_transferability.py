"""What a read-out of an expert gains on the pairs, against a fit by the book and on distortions that are known."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ml import transferability
from ml.backbones import SameSize
from ml.distortions import PAPERS, distort
from ml.images import from_uint8, to_uint8
from ml.options import TrainingOptions
from ml.pairs import TargetPair
from ml.prior import Prior, load_prior
from ml.read_out import CROP, CROPS_PER_PAIR
from ml.relation import Relation, relate
from ml.sampling import crop, generator_for
from ml.transferability import BACKBONE, RIDGE, assessed, fresh_expert, read_out_gain
from tests.layers import convolution

Pairs = Callable[..., list[TargetPair]]
Seeded = Callable[[int], torch.Generator]


@pytest.fixture
def expert(tiny_jobs: None) -> SameSize:
    """Of a backbone of four layers; random to the last of them."""
    made = fresh_expert(seed=5).eval()
    torch.nn.init.normal_(convolution(made, -1).weight, std=0.01, generator=torch.Generator().manual_seed(5))
    return made


def by_the_book(expert: SameSize, pairs: Sequence[TargetPair], seed: int) -> list[float]:
    """Least squares with the penalty as further equations, one fit for each pair that is left out."""
    body = expert.body
    assert isinstance(body, nn.Sequential)
    features, missing = [], []
    for pair in pairs:
        generator = generator_for(seed, f"transferability/{pair.name}", 0)
        x, y = [], []
        for _ in range(CROPS_PER_PAIR):
            clean, distorted = (from_uint8(part) for part in crop([pair.clean, pair.distorted], CROP, generator))
            with torch.no_grad():
                seen = body[:-1](F.pixel_unshuffle(distorted[None], 4))
            padded = np.pad(seen[0].double().numpy(), ((0, 0), (1, 1), (1, 1)))
            height, width = seen.shape[2:]
            shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
            windows = np.stack(shifted, axis=1).reshape(-1, height * width)  # As a convolution's weights are ordered.
            x.append(np.concatenate([windows, np.ones((1, height * width))]).T)
            y.append(F.pixel_unshuffle((clean - distorted)[None], 4)[0].double().flatten(1).numpy().T)
        features.append(np.concatenate(x))
        missing.append(np.concatenate(y))
    last = convolution(expert, -1)
    assert last.bias is not None
    before = torch.cat([last.weight.flatten(1), last.bias[:, None]], dim=1).T.double().detach().numpy()
    gains = []
    for left_out in range(len(pairs)):
        x_rest = np.concatenate([each for index, each in enumerate(features) if index != left_out])
        y_rest = np.concatenate([each for index, each in enumerate(missing) if index != left_out])
        penalty = np.diag(np.sqrt(RIDGE * np.square(x_rest).sum(axis=0) + 1e-9))
        equations = np.concatenate([x_rest, penalty]), np.concatenate([y_rest, penalty @ before])
        fitted = np.linalg.lstsq(*equations, rcond=None)[0]
        left = np.square(missing[left_out] - features[left_out] @ fitted).sum()
        rounding = missing[left_out].size / 12 / 255**2
        gains.append(10 * np.log10((np.square(missing[left_out]).sum() + rounding) / (left + rounding)))
    return gains


def test_the_gain_is_that_of_a_ridge_regression_which_has_not_seen_the_pair(
    expert: SameSize, target_pairs: Pairs
) -> None:
    pairs = target_pairs(3, height=70, width=90)
    assert read_out_gain(expert, pairs, seed=4).tolist() == pytest.approx(by_the_book(expert, pairs, 4), abs=1e-3)


def test_pairs_are_judged_alike_in_any_order(expert: SameSize, target_pairs: Pairs) -> None:
    pairs = target_pairs(4)
    forwards, backwards = read_out_gain(expert, pairs, 0), read_out_gain(expert, pairs[::-1], 0)
    assert backwards.flip(0).tolist() == pytest.approx(forwards.tolist(), abs=1e-6)
    assert torch.equal(read_out_gain(expert, pairs, 0), forwards)


@pytest.mark.parametrize("shape", [(1, 70, 70), (1, 33, 47), (2, 33, 47), (3, 9, 200)])
def test_one_pair_small_ones_and_odd_ones_have_a_finite_gain(
    expert: SameSize, target_pairs: Pairs, shape: tuple[int, int, int]
) -> None:
    count, height, width = shape
    gains = read_out_gain(expert, target_pairs(count, height=height, width=width), 0)
    assert gains.shape == (count,)
    assert torch.isfinite(gains).all()


def test_where_nothing_is_missing_nothing_is_gained(expert: SameSize, target_pairs: Pairs, tiny_jobs: None) -> None:
    same = [replace(pair, distorted=pair.clean) for pair in target_pairs(2)]
    assert read_out_gain(fresh_expert(0).eval(), same, 0).tolist() == pytest.approx([0, 0], abs=1e-9)
    harm = read_out_gain(expert, same, 0)
    assert torch.isfinite(harm).all()
    assert (harm < 0).all()


def test_it_can_be_stopped_before_any_pair(expert: SameSize, target_pairs: Pairs) -> None:
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        read_out_gain(expert, target_pairs(3), 0, tick)
    assert len(ticks) == 2


def test_an_expert_is_the_default_backbone_and_starts_at_the_identity(tiny_jobs: None) -> None:
    expert = fresh_expert(5)
    image = torch.rand(1, 3, 20, 24)
    assert torch.equal(expert(image), image)
    assert TrainingOptions().backbone == BACKBONE
    again, another = fresh_expert(5), fresh_expert(6)
    for name, value in expert.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(convolution(another, 0).weight, convolution(again, 0).weight)


def test_the_less_the_last_layer_may_move_the_more_its_own_gain_counts(
    expert: SameSize, target_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless ridge leaves the expert as it is."""
    pairs = target_pairs(2, height=64, width=64)
    monkeypatch.setattr(transferability, "RIDGE", 1e9)
    as_it_is = []
    for pair in pairs:
        clean, distorted = from_uint8(pair.clean), from_uint8(pair.distorted)
        with torch.no_grad():
            left = (expert(distorted[None])[0] - clean).square().mean()
        as_it_is.append(float(10 * ((distorted - clean).square().mean() / left).log10()))
    assert read_out_gain(expert, pairs, 0).tolist() == pytest.approx(as_it_is, abs=0.01)


def related(prior: Prior, pairs: Sequence[TargetPair]) -> Relation:
    return relate(prior.drn, prior.prototypes, pairs, 0)


def test_every_task_is_assessed_on_every_pair(tiny_jobs: None, tiny_prior: Prior, target_pairs: Pairs) -> None:
    pairs = target_pairs(3)
    experts = {name: fresh_expert(place).eval() for place, name in enumerate(tiny_prior.prototypes.names)}
    relation = assessed(related(tiny_prior, pairs), experts, pairs, 0)
    assert relation.gain_db_of_pair is not None
    assert relation.gain_db is not None
    assert relation.gain_db_of_pair.shape == (3, 3)
    assert torch.allclose(relation.gain_db, relation.gain_db_of_pair.mean(dim=0))
    for place, name in enumerate(tiny_prior.prototypes.names):
        assert torch.equal(relation.gain_db_of_pair[:, place], read_out_gain(experts[name], pairs, 0))
    some = relation.only(["mild", "bicubic"])
    assert some.gain_db is not None
    assert some.gain_db.tolist() == pytest.approx([float(relation.gain_db[2]), float(relation.gain_db[0])])


def test_where_one_task_has_no_expert_none_is_assessed(tiny_jobs: None, tiny_prior: Prior, target_pairs: Pairs) -> None:
    pairs = target_pairs(2)
    relation = related(tiny_prior, pairs)
    assert assessed(relation, {"noise": fresh_expert(0)}, pairs, 0) is relation
    assert relation.gain_db is None


# ---- the shipped experts


def spoiled(name: str, photographs: dict[str, Tensor], seeded: Seeded) -> list[TargetPair]:
    pairs = []
    for index, (title, image) in enumerate(photographs.items()):
        clean = from_uint8(image[:, 60:260, 80:280])
        pairs.append(TargetPair(title, to_uint8(clean), to_uint8(distort(name, clean, seeded(index)))))
    return pairs


@pytest.mark.parametrize(
    ("name", "helps", "does_not"),
    [
        ("noise", "noise", "bicubic"),
        ("severe", "severe", "bicubic"),
        ("aniso_bicubic", "aniso_bicubic", "noise"),
        ("speckle", "noise", "blur"),  # Also where the paper's seven do not know it.
        ("defocus", "blur", "severe"),
    ],
)
def test_practice_with_the_same_kind_promises_more_than_with_another(
    name: str, helps: str, does_not: str, photographs: dict[str, Tensor], seeded: Seeded
) -> None:
    pairs, prior = spoiled(name, photographs, seeded), load_prior()
    assert set(PAPERS) <= prior.experts.keys()
    gains = {task: float(read_out_gain(prior.experts[task], pairs, 0).mean()) for task in (helps, does_not)}
    assert gains[helps] > gains[does_not] + 0.1, gains
