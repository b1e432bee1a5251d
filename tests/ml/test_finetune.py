"""Fine-tuning on the target pairs (Eq. 3)."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import product

import pytest
import torch

from ml import finetune
from ml.backbones import SameSize
from ml.finetune import FinetuneSchedule, finetune_step, target_batch
from ml.optimizer import adam
from ml.pairs import TargetPair
from ml.sampling import generator_for
from tests.layers import convolution

Seeded = Callable[[int], torch.Generator]

Pairs = Callable[..., list[TargetPair]]


def test_the_papers_rate_falls_by_a_fifth_every_3000_steps() -> None:
    schedule = FinetuneSchedule(steps=9000)
    assert (schedule.batch, schedule.crop) == (32, 64)
    for step, rate in [(0, 1e-4), (2999, 1e-4), (3000, 0.8e-4), (6000, 0.64e-4)]:
        assert schedule.rate_at(step) == pytest.approx(rate)


def test_the_short_schedule_warms_up_and_falls_to_nothing() -> None:
    schedule = FinetuneSchedule(steps=400, learning_rate=1.0, decay="cosine")
    rates = [schedule.rate_at(step) for step in range(400)]
    peak = rates.index(max(rates))
    assert rates[0] == pytest.approx(1 / 20)
    assert 15 < peak < 25
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[200] == pytest.approx(0.5, abs=0.01)
    assert 0 < rates[-1] < 1e-3


def test_every_crop_is_a_turned_piece_of_one_pair_at_one_place(target_pairs: Pairs, seeded: Seeded) -> None:
    pairs = target_pairs(2, 23, 19)
    clean, distorted = target_batch(pairs, 6, 17, seeded(0))
    assert clean.shape == distorted.shape == (6, 3, 17, 17)
    for one_clean, one_distorted in zip((clean * 255).round(), (distorted * 255).round(), strict=True):
        both = torch.stack([one_clean, one_distorted])
        turned = [torch.rot90(t, turn, (2, 3)) for turn in range(4) for t in (both, both.flip(3))]
        places = [
            torch.stack([pair.clean, pair.distorted])[:, :, y : y + 17, x : x + 17].float()
            for pair, y, x in product(pairs, range(7), range(3))
        ]
        assert any(torch.equal(t, place) for t, place in product(turned, places))


@pytest.mark.parametrize("sizes", [[(37, 50)], [(70, 80), (37, 90)]])
def test_crops_shrink_to_the_shortest_side_of_all_pairs(
    target_pairs: Pairs, sizes: list[tuple[int, int]], seeded: Callable[[int], torch.Generator]
) -> None:
    pairs = [target_pairs(1, *size)[0] for size in sizes]
    clean, _ = target_batch(pairs, 5, 64, seeded(0))
    assert clean.shape == (5, 3, 37, 37)


def test_the_loss_is_l1_over_the_drawn_batch(
    random_network: Callable[..., SameSize], target_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "autocast", lambda on: nullcontext())
    network, pairs = random_network(2), target_pairs(2)
    clean, distorted = target_batch(pairs, 3, 21, generator_for(5, "finetune", 9))
    expected = (network(distorted) - clean).abs().mean().item()
    schedule = FinetuneSchedule(steps=20, batch=3, crop=21)
    assert finetune_step(network, adam(network, 1), pairs, schedule, seed=5, step=9) == pytest.approx(
        expected, rel=1e-6
    )


def test_a_step_uses_the_rate_of_its_schedule(random_network: Callable[..., SameSize], target_pairs: Pairs) -> None:
    """Adam's first step moves each weight by the learning rate, whatever the gradient."""
    network = random_network(1)
    before = convolution(network, 0).weight.detach().clone()
    schedule = FinetuneSchedule(steps=10_000, batch=2, crop=16, learning_rate=1e-3)
    finetune_step(network, adam(network, 123.0), target_pairs(1), schedule, seed=0, step=3000)
    moved = (convolution(network, 0).weight.detach() - before).abs()
    assert float(moved.max()) == pytest.approx(0.8e-3, rel=0.01)


@pytest.mark.usefixtures("in_float32")
def test_each_step_follows_the_gradient_of_its_own_batch_alone(
    random_network: Callable[..., SameSize], target_pairs: Pairs
) -> None:
    schedule = FinetuneSchedule(steps=40, batch=2, crop=16, learning_rate=1e-2, decay="cosine")
    (network, reference), pairs = (random_network(2), random_network(2)), target_pairs(2)
    optimizer, plain = adam(network, 1e-2), adam(reference, 1e-2)
    for step in range(3):
        finetune_step(network, optimizer, pairs, schedule, 5, step)
        clean, distorted = target_batch(pairs, 2, 16, generator_for(5, "finetune", step))
        parameters = list(reference.parameters())
        gradients = torch.autograd.grad((reference(distorted) - clean).abs().mean(), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        plain.param_groups[0]["lr"] = schedule.rate_at(step)
        plain.step()
    for ours, expected in zip(network.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, expected, rtol=0, atol=1e-6)


def test_repeated_steps_learn_the_target(random_network: Callable[..., SameSize], target_pairs: Pairs) -> None:
    network, pairs = random_network(2), target_pairs(2)
    optimizer = adam(network, 1e-3)
    schedule = FinetuneSchedule(steps=40, batch=4, crop=32, learning_rate=2e-3, decay="cosine")
    losses = [finetune_step(network, optimizer, pairs, schedule, seed=0, step=step) for step in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_step_repeated_with_one_seed_gives_the_same_weights(
    random_network: Callable[..., SameSize], target_pairs: Pairs
) -> None:
    schedule = FinetuneSchedule(steps=4, batch=2, crop=16)

    def after(seed: int) -> dict[str, torch.Tensor]:
        network = random_network(2)
        finetune_step(network, adam(network, 1e-3), target_pairs(2), schedule, seed, 1)
        return network.state_dict()

    first, again, other = after(0), after(0), after(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
