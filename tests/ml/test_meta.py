"""Meta-learning (Eq. 4, 5, 10, Algorithm 3) against references that share no code with it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ml.auxiliary import AuxiliaryBatch, auxiliary_batch
from ml.backbones import BACKBONES, SameSize, dncnn, rcan, rdn, vdsr
from ml.chance import Chance, EachItsOwn
from ml.distortions import DISTORTIONS
from ml.evaluate import mean, quality_of, quality_of_input
from ml.finetune import FinetuneSchedule, finetune_step
from ml.meta import MetaSchedule, Order, adapted, meta_loss, meta_step, task_loss, visited_tasks
from ml.optimizer import adam
from ml.options import PRESETS
from ml.pairs import TargetPair
from ml.sampling import generator_for
from ml.transfer import TransferSchedule

Seeded = Callable[[int], torch.Generator]
TASKS = list(DISTORTIONS)[:4]
SCHEDULE = TransferSchedule(steps=4, batch=8, crop=16, learning_rate=1e-3)
META = MetaSchedule(inner_rate=0.05, order="second", tasks=4)


class Tiny(nn.Module):
    """Two convolutions around a smooth curve, so that finite differences of second order mean something."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, dtype=torch.float64)
        self.second = nn.Conv2d(4, 3, 3, padding=1, dtype=torch.float64)

    def forward(self, image: Tensor) -> Tensor:
        change: Tensor = self.second(torch.tanh(self.first(image)))
        return image + change


@pytest.fixture
def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


def batch_of(samples: int, seed: int, dtype: torch.dtype = torch.float64) -> AuxiliaryBatch:
    generator = torch.Generator().manual_seed(seed)
    clean, distorted = (torch.rand(samples, 3, 7, 5, generator=generator, dtype=dtype) for _ in range(2))
    return AuxiliaryBatch(clean, distorted, torch.zeros(samples, dtype=torch.int64))


def support_and_query(drawn: AuxiliaryBatch) -> tuple[AuxiliaryBatch, AuxiliaryBatch]:
    """The first half of the samples for the inner step, the others for the outer one."""
    clean, distorted, task, n = drawn.clean, drawn.distorted, drawn.task, len(drawn.task) // 2
    return AuxiliaryBatch(clean[:n], distorted[:n], task[:n]), AuxiliaryBatch(clean[n:], distorted[n:], task[n:])


def flat(tensors: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def gradient_of_meta_loss(
    network: nn.Module, support: AuxiliaryBatch, query: AuxiliaryBatch, rate: float, order: Order
) -> Tensor:
    loss = meta_loss(network, support, query, MetaSchedule(rate, order))
    return flat(torch.autograd.grad(loss, list(network.parameters())))


def written_out(weights: list[Tensor], batch: AuxiliaryBatch) -> Tensor:
    """The tiny network's loss as a function of its four tensors, without its modules."""
    first, first_bias, second, second_bias = weights
    features = torch.tanh(F.conv2d(batch.distorted, first, first_bias, padding=1))
    restored = batch.distorted + F.conv2d(features, second, second_bias, padding=1)
    return (restored - batch.clean).abs().mean()


def after_inner_step(
    weights: list[Tensor], support: AuxiliaryBatch, rate: float, *, create_graph: bool
) -> list[Tensor]:
    gradients = torch.autograd.grad(written_out(weights, support), weights, create_graph=create_graph)
    return [weight - rate * gradient for weight, gradient in zip(weights, gradients, strict=True)]


@pytest.mark.parametrize("rate", [0.05, 1.0])
def test_the_second_order_gradient_is_that_of_the_whole_written_out_by_hand(tiny: Tiny, rate: float) -> None:
    support, query = batch_of(2, 1), batch_of(2, 2)
    weights = [parameter.detach().clone().requires_grad_() for parameter in tiny.parameters()]
    moved = after_inner_step(weights, support, rate, create_graph=True)
    expected = flat(torch.autograd.grad(written_out(moved, query), weights))
    actual = gradient_of_meta_loss(tiny, support, query, rate, "second")
    assert torch.allclose(actual, expected, rtol=1e-10, atol=1e-14)


def test_the_second_order_gradient_is_the_slope_that_finite_differences_see(tiny: Tiny) -> None:
    """Along random directions through all weights; the loss is piecewise smooth, and the step too small for an edge."""
    support, query, rate, small = batch_of(2, 3), batch_of(2, 4), 0.5, 1e-7
    actual = gradient_of_meta_loss(tiny, support, query, rate, "second")
    first_order = gradient_of_meta_loss(tiny, support, query, rate, "first")
    start = [parameter.detach().clone() for parameter in tiny.parameters()]
    generator = torch.Generator().manual_seed(7)
    for _ in range(5):
        direction = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in start]

        def at(shift: float, direction: list[Tensor] = direction) -> float:
            weights = [(w + shift * d).requires_grad_() for w, d in zip(start, direction, strict=True)]
            return written_out(after_inner_step(weights, support, rate, create_graph=False), query).item()

        slope = (at(small) - at(-small)) / (2 * small)
        assert float(actual @ flat(direction)) == pytest.approx(slope, rel=1e-5, abs=1e-7)
        # The test can tell: without the inner gradient's own slope it does not fit.
        assert float(first_order @ flat(direction)) != pytest.approx(slope, rel=1e-3)


def test_the_first_order_gradient_is_the_query_gradient_at_the_moved_weights(tiny: Tiny) -> None:
    support, query, rate = batch_of(2, 5), batch_of(2, 6), 0.3
    weights = [parameter.detach().clone().requires_grad_() for parameter in tiny.parameters()]
    moved = [w.detach().requires_grad_() for w in after_inner_step(weights, support, rate, create_graph=False)]
    expected = flat(torch.autograd.grad(written_out(moved, query), moved))
    assert torch.allclose(gradient_of_meta_loss(tiny, support, query, rate, "first"), expected, rtol=1e-10)


def test_the_inner_step_lowers_the_loss_of_its_own_batch_and_leaves_the_network_alone(tiny: Tiny) -> None:
    support = batch_of(2, 8)
    before = [parameter.detach().clone() for parameter in tiny.parameters()]
    moved = adapted(tiny, support, 0.05, "first")
    assert task_loss(tiny, moved, support) < task_loss(tiny, dict(tiny.named_parameters()), support)
    assert all(torch.equal(old, new) for old, new in zip(before, tiny.parameters(), strict=True))


@pytest.mark.parametrize("order", ["first", "second"])
def test_with_an_inner_rate_of_zero_it_is_pre_training_on_the_query_samples(tiny: Tiny, order: Order) -> None:
    support, query = batch_of(2, 9), batch_of(2, 10)
    plain = (tiny(query.distorted) - query.clean).abs().mean()
    expected = flat(torch.autograd.grad(plain, list(tiny.parameters())))
    assert torch.equal(gradient_of_meta_loss(tiny, support, query, 0.0, order), expected)


Step = Callable[..., list[Tensor]]


@pytest.fixture
def step_of(photographs: dict[str, Tensor], random_network: Callable[..., SameSize]) -> Step:
    """The gradients of one step from always the same weights."""

    def take(
        gamma: Tensor, tasks: list[str] = TASKS, meta: MetaSchedule = META, chances: Tensor | None = None, seed: int = 3
    ) -> list[Tensor]:
        network = random_network(2)
        images = list(photographs.values())
        meta_step(network, adam(network, 1e-3), images, tasks, gamma, SCHEDULE, meta, seed, 2, chances)
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    return take


def samples_of(place: int) -> EachItsOwn:
    """Of the two samples of the task that a step of `step_of` visits in that place."""
    return EachItsOwn([generator_for(3, f"maml/2/{place}", sample) for sample in range(2)])


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) > 0 and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_gamma_of_one_everywhere_is_plain_maml_bit_for_bit(
    step_of: Step, photographs: dict[str, Tensor], random_network: Callable[..., SameSize]
) -> None:
    """Eq. (10) against Eq. (5), the unweighted mean over tasks written as such."""
    network = random_network(2)
    losses = []
    for place, task in enumerate(TASKS):
        drawn = auxiliary_batch(list(photographs.values()), [task], SCHEDULE.crop, samples_of(place))
        losses.append(meta_loss(network, *support_and_query(drawn), META) / len(TASKS))
    for loss in losses:
        loss.backward()
    assert equal(step_of(torch.ones(4)), [p.grad for p in network.parameters() if p.grad is not None])


def test_a_gamma_of_one_task_alone_is_maml_on_that_task(step_of: Step) -> None:
    alone = step_of(torch.ones(1), TASKS[2:3])
    assert equal(step_of(torch.tensor([0.0, 0.0, 0.4, 0.0])), alone)


def test_only_the_proportions_of_gamma_matter(step_of: Step) -> None:
    gamma = torch.tensor([0.5, 0.25, 1.0, 0.0])
    assert equal(step_of(gamma), step_of(gamma / 2))


@pytest.mark.usefixtures("in_float32")
def test_the_gradient_is_the_gamma_weighted_mean_of_the_tasks_gradients(
    photographs: dict[str, Tensor], random_network: Callable[..., SameSize], step_of: Step
) -> None:
    """Σ γ_i g_i / Σ γ_i."""
    gamma, network = torch.tensor([0.7, 0.1, 0.4, 0.2]), random_network(2)
    expected = torch.zeros(())
    for place, (task, weight) in enumerate(zip(TASKS, gamma, strict=True)):
        drawn = auxiliary_batch(list(photographs.values()), [task], SCHEDULE.crop, samples_of(place))
        loss = meta_loss(network, *support_and_query(drawn), META)
        expected = expected + weight / gamma.sum() * flat(torch.autograd.grad(loss, list(network.parameters())))
    assert torch.allclose(flat(step_of(gamma)), expected, atol=1e-7)


def test_adam_undoes_a_gamma_that_stands_alone_in_its_step_and_feels_gammas_against_each_other(
    photographs: dict[str, Tensor], random_network: Callable[..., SameSize], seeded: Seeded
) -> None:
    """Why the tasks are weighted within one step: first Algorithm 2 and 3 to the letter, a step per task, then ours."""

    images = list(photographs.values())

    def moved(gamma: tuple[float, float]) -> Tensor:
        network = random_network(2)
        before = flat([p.detach().clone() for p in network.parameters()])
        meta_step(network, adam(network, 1e-3), images, TASKS[:2], torch.tensor(gamma), SCHEDULE, META, 3, 0)
        return flat([p.detach() for p in network.parameters()]) - before

    # The division by Σ γ would hide what is shown, so the letter's separate steps are taken with the losses' gradients.
    def to_the_letter(gamma: tuple[float, float]) -> Tensor:
        network = random_network(2)
        before = flat([p.detach().clone() for p in network.parameters()])
        optimizer = adam(network, 1e-3)
        for index, weight in enumerate(gamma):
            drawn = auxiliary_batch(images, [TASKS[index]], 16, EachItsOwn([seeded(10 * index + i) for i in range(4)]))
            optimizer.zero_grad()
            (weight * meta_loss(network, *support_and_query(drawn), META)).backward()
            optimizer.step()
        return flat([p.detach() for p in network.parameters()]) - before

    def change(one: Tensor, other: Tensor) -> float:
        return float((one - other).norm() / one.norm())

    assert change(to_the_letter((0.5, 0.5)), to_the_letter((0.05, 0.05))) < 0.05
    assert change(moved((0.9, 0.1)), moved((0.1, 0.9))) > 0.5


def test_a_step_repeated_with_one_seed_gives_the_same_gradients(step_of: Step) -> None:
    gamma = torch.rand(4)
    torch.manual_seed(1)
    first = step_of(gamma)
    torch.manual_seed(2)
    assert equal(first, step_of(gamma))
    assert not equal(first, step_of(gamma, seed=4))


def test_a_step_without_related_tasks_changes_nothing(
    photographs: dict[str, Tensor], random_network: Callable[..., SameSize]
) -> None:
    network = random_network(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = list(photographs.values())
    meta_step(network, adam(network, 1e-3), images, TASKS, torch.zeros(4), SCHEDULE, META, 0, 0)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


def test_a_step_visits_related_tasks_only_each_at_most_once(seeded: Seeded) -> None:
    gamma = torch.tensor([0.2, 0.0, 0.5, 0.1, 0.3])
    assert visited_tasks(gamma, None, 7, seeded(0)) == [0, 2, 3, 4]
    seen = [visited_tasks(gamma, None, 2, seeded(seed)) for seed in range(40)]
    assert all(len(set(tasks)) == 2 and 1 not in tasks for tasks in seen)
    assert {task for tasks in seen for task in tasks} == {0, 2, 3, 4}


def test_tasks_are_visited_in_proportion_to_their_chances(seeded: Seeded) -> None:
    chances = torch.tensor([0.1, 0.0, 0.6, 0.3])
    visited = visited_tasks(torch.ones(4), chances, 20_000, seeded(0))
    shares = torch.bincount(torch.tensor(visited), minlength=4) / len(visited)
    assert torch.allclose(shares, chances, atol=0.015)


def test_a_step_sees_as_many_samples_as_one_of_pre_training(step_of: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def counted(images: Sequence[Tensor], tasks: Sequence[str], side: int, chance: Chance) -> AuxiliaryBatch:
        counts.append(chance.size)
        return auxiliary_batch(images, tasks, side, chance)

    monkeypatch.setattr("ml.meta.auxiliary_batch", counted)
    step_of(torch.ones(4))
    assert counts == [2, 2, 2, 2]


def test_no_backbone_keeps_statistics_of_its_batches() -> None:
    """So there are none that the inner steps of several tasks could mix, and none that differ from training's."""
    for name, make in BACKBONES.items():
        assert not list(make(4).buffers()), name


def test_a_network_that_keeps_statistics_is_refused_before_anything_changes(photographs: dict[str, Tensor]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="statistics"):
        meta_step(network, adam(network, 1e-3), list(photographs.values()), TASKS, torch.ones(4), SCHEDULE, META, 0, 0)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


# Every backbone with all its mechanics, narrow and short enough for a test.
SMALL: dict[str, Callable[[], SameSize]] = {
    "dncnn": lambda: dncnn(2, width=12),  # At its full depth, which is what makes it hard to train.
    "vdsr": lambda: vdsr(2, depth=8, width=12),
    "vdsr-small": lambda: vdsr(2, depth=6, width=12),
    "rcan": lambda: rcan(2, groups=2, blocks=2, width=12, reduction=4),
    "rdn": lambda: rdn(2, blocks=2, layers=3, growth=8, width=12),
}


def test_no_backbone_is_missing_here() -> None:
    assert SMALL.keys() == BACKBONES.keys()


@pytest.mark.parametrize(("name", "order"), [("dncnn", "first"), *((name, "second") for name in SMALL)])
def test_no_backbone_collapses(
    name: str, order: Order, photographs: dict[str, Tensor], target_pairs: Callable[..., list[TargetPair]]
) -> None:
    """After short meta-training with the presets' inner rate, and fine-tuning, the result is not below the input."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SMALL[name]()
    schedule = TransferSchedule(steps=15, batch=8, crop=24, learning_rate=5e-4)
    meta = replace(PRESETS["quick"].meta, order=order)
    optimizer, images, gamma = adam(network, schedule.learning_rate), list(photographs.values()), torch.ones(4)
    for step in range(schedule.steps):
        loss = meta_step(network, optimizer, images, TASKS, gamma, schedule, meta, 0, step)
        assert loss < 0.3
    pairs, finetune = target_pairs(4, 64, 64), FinetuneSchedule(20, 4, 24, 1e-3, "cosine")
    optimizer = adam(network, finetune.learning_rate)
    for step in range(finetune.steps):
        finetune_step(network, optimizer, pairs[:3], finetune, 0, step)
    untouched, reached = mean(quality_of_input(pairs[3:])), mean(quality_of(network, pairs[3:]))
    assert reached.psnr >= untouched.psnr
