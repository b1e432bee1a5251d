"""Candidates side by side, interrupted anywhere."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ml import checkpoint
from ml import race as race_module
from ml.backbones import SameSize
from ml.checkpoint import Trainee
from ml.evaluate import Quality, quality_of
from ml.finetune import FinetuneSchedule, finetune_step
from ml.guidance import TaskMix
from ml.meta import MetaSchedule
from ml.optimizer import adam
from ml.pairs import TargetPair, split
from ml.race import Candidate, Race, Start
from ml.read_out import MORE_CROPS_PER_PAIR, fit_last_layer, last_layer
from ml.transfer import TransferSchedule
from tests.layers import convolution

TRANSFER = TransferSchedule(steps=3, batch=2, crop=16, learning_rate=1e-3)
FINETUNE = FinetuneSchedule(steps=6, batch=2, crop=16, learning_rate=2e-3, decay="cosine")
TASKS = ["noise", "blur", "bicubic"]
STARTS: tuple[Start, ...] = ("scratch", "prior", "guided-transfer")

MakeRace = Callable[..., Race]


@pytest.fixture
def make_race(
    random_network: Callable[..., SameSize],
    target_pairs: Callable[..., list[TargetPair]],
    photographs: dict[str, Tensor],
) -> MakeRace:
    def make(
        starts: tuple[Start, ...] = STARTS,
        held_back: frozenset[Start] = frozenset(),
        plan: str = "",
        chances: Tensor | None = None,
        linear_probe: bool = True,
        refit: bool = False,
        from_prior: tuple[Start, ...] = (),
    ) -> Race:
        candidates = []
        for index, start in enumerate(starts):
            network = random_network(2, seed=index)
            mix = None if start in {"scratch", "prior"} else TaskMix(torch.tensor([0.6, 0.3, 0.1]), chances)
            meta = MetaSchedule(tasks=2) if start.endswith("maml") else None
            trainee = Trainee(network, adam(network, 1e-3))
            about = (start, trainee, mix, TRANSFER, FINETUNE, meta, linear_probe, refit)
            candidates.append(Candidate(*about, from_prior=start in from_prior))
        pairs = [replace(pair, distorted=(0.8 * pair.clean.float()).byte()) for pair in target_pairs(4, 48, 50)]
        parts = split(pairs, seed=0)
        return Race(candidates, parts, list(photographs.values()), TASKS, 7, held_back, plan)

    return make


def state_of(race: Race) -> dict[str, Tensor]:
    return {
        f"{candidate.start}/{name}": value.clone()
        for candidate in race.candidates
        for name, value in candidate.trainee.tensors().items()
    }


def ignore(phase: str, candidate: str, step: int, loss: Tensor) -> None:
    pass


def noting(done: list[tuple[str, str, int]]) -> Callable[[str, str, int, Tensor], None]:
    """Appends what it hears of each step."""

    def note(phase: str, candidate: str, step: int, loss: Tensor) -> None:
        done.append((phase, candidate, step))

    return note


@pytest.mark.parametrize(
    ("transfer", "chances", "refit"),
    [
        ("guided-transfer", None, True),
        ("guided-maml", None, False),
        ("guided-maml", torch.tensor([0.6, 0.1, 0.3]), False),
    ],
)
def test_a_race_resumed_at_any_step_ends_as_an_uninterrupted_one(
    make_race: MakeRace, tmp_path: Path, transfer: Start, chances: Tensor | None, refit: bool
) -> None:
    """Every point: in the transfer, at its last step, around both milestones, at the very end."""
    starts: tuple[Start, ...] = ("scratch", "prior", transfer)
    about = {"chances": chances, "refit": refit, "from_prior": ("prior", transfer)}
    whole = make_race(starts, **about)
    points: list[tuple[str, str, int]] = []

    def save_always(phase: str, candidate: str, step: int, loss: Tensor) -> None:
        whole.save(tmp_path / str(len(points)))
        points.append((phase, candidate, step))

    whole.run(save_always)
    whole.measure()
    expected = state_of(whole)
    assert [sorted(candidate.measured) for candidate in whole.candidates if not candidate.stopped] == [[2, 4, 6]] * 2
    assert ("transferring", transfer, 3) in points
    assert ("fine_tuning", transfer, 4) in points
    assert len(points) == whole.planned_steps() == whole.steps_done()
    for index in range(len(points)):
        resumed = make_race(starts, **about)
        resumed.resume(*checkpoint.load(tmp_path / str(index), resumed.plan))
        assert resumed.steps_done() == index + 1
        done: list[tuple[str, str, int]] = []
        resumed.run(noting(done))
        resumed.measure()
        assert done == points[index + 1 :]
        actual = state_of(resumed)
        assert all(torch.equal(expected[name], actual[name]) for name in expected), points[index]
        assert [c.measured for c in resumed.entries()] == [c.measured for c in whole.entries()]
        chosen, expected_choice = resumed.winner(), whole.winner()
        assert chosen.start == expected_choice.start
        weights, expected_weights = chosen.network.state_dict(), expected_choice.network.state_dict()
        assert all(torch.equal(expected_weights[name], weights[name]) for name in expected_weights)


def test_the_same_race_twice_gives_the_same_weights(make_race: MakeRace) -> None:
    first, second = make_race(), make_race()
    for race in (first, second):
        torch.manual_seed(id(race) % 1000)
        race.run(ignore)
    one, other = state_of(first), state_of(second)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_candidates_that_trail_before_the_last_milestone_stop_there(
    make_race: MakeRace, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = make_race()
    quality = {"prior": 20.0, "guided-transfer": 30.0, "scratch": 10.0}

    def measured(network: SameSize, pairs: list[TargetPair], lpips: None) -> list[Quality]:
        (start,) = [candidate.start for candidate in race.candidates if candidate.network is network]
        return [Quality(quality[start], 0.5)]

    monkeypatch.setattr(race_module, "quality_of", measured)
    race.run(ignore)
    race.measure()
    scratch, prior, guided = race.candidates
    assert (scratch.stopped, prior.stopped, guided.stopped) == (False, True, False)
    assert (scratch.finetune_steps_done, prior.finetune_steps_done, guided.finetune_steps_done) == (6, 4, 6)
    assert sorted(prior.measured) == [2, 4]
    assert race.winner() is guided


@pytest.mark.parametrize("linear_probe", [True, False])
def test_fine_tuning_begins_with_a_fitted_last_layer_where_that_is_asked_for(
    make_race: MakeRace, linear_probe: bool
) -> None:
    race = make_race(("scratch",), linear_probe=linear_probe)
    expected = deepcopy(race.candidates[0].network)
    untouched = last_layer(expected).weight.clone()
    if linear_probe:
        fit_last_layer(expected, race.split.train, race.seed)
        assert not last_layer(expected).weight.equal(untouched)
    finetune_step(expected, adam(expected, 1.0), race.split.train, FINETUNE, race.seed, 0)
    seen: list[dict[str, Tensor]] = []

    def look(phase: str, candidate: str, step: int, loss: Tensor) -> None:
        seen.append({name: value.clone() for name, value in race.candidates[0].network.state_dict().items()})

    race.run(look)
    assert all(torch.equal(value, seen[0][name]) for name, value in expected.state_dict().items())


def test_training_ends_with_a_last_layer_fitted_anew_where_that_is_asked_for(make_race: MakeRace) -> None:
    plain, refitted = (make_race(refit=refit) for refit in (False, True))
    for race in (plain, refitted):
        race.run(ignore)
    expected = [deepcopy(candidate.network) for candidate in plain.candidates]
    stopped = [candidate.stopped for candidate in refitted.candidates]
    assert stopped == [False, True, False]
    for network, candidate in zip(expected, refitted.candidates, strict=True):
        assert last_layer(network).weight.equal(last_layer(candidate.network).weight)
        if not candidate.stopped:
            fit_last_layer(network, refitted.split.train, refitted.seed, crops=MORE_CROPS_PER_PAIR)
    for _ in range(2):  # Measured once more, nothing changes.
        refitted.measure()
        for network, candidate, ours in zip(expected, refitted.candidates, plain.candidates, strict=True):
            weight = last_layer(candidate.network).weight
            assert weight.equal(last_layer(network).weight)
            assert weight.equal(last_layer(ours.network).weight) == candidate.stopped
    for candidate in refitted.candidates:
        if not candidate.stopped:
            at_the_end = quality_of(candidate.network, refitted.split.held_out)
            assert candidate.measured[FINETUNE.steps] == at_the_end


def test_a_probe_can_be_stopped_before_any_pair(make_race: MakeRace) -> None:
    race = make_race(("scratch",))

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        race.run(ignore, stop)
    assert race.steps_done() == 0


def test_where_one_contends_nobody_stops(make_race: MakeRace) -> None:
    race = make_race(("scratch", "guided-transfer"))
    race.run(ignore)
    assert [candidate.finetune_steps_done for candidate in race.candidates] == [6, 6]


def test_the_weights_that_measured_best_are_chosen_not_the_last(
    make_race: MakeRace, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = make_race(("scratch",))
    (candidate,) = race.candidates
    seen: dict[int, dict[str, Tensor]] = {}

    def measured(network: SameSize, pairs: list[TargetPair], lpips: None) -> list[Quality]:
        seen[candidate.finetune_steps_done] = {name: value.clone() for name, value in network.state_dict().items()}
        return [Quality({2: 20.0, 4: 30.0, 6: 25.0}[candidate.finetune_steps_done], 0.5)]

    monkeypatch.setattr(race_module, "quality_of", measured)
    race.run(ignore)
    race.measure()
    chosen = race.winner()
    assert chosen.best_steps == 4
    assert sorted(seen) == [2, 4, 6]
    assert all(torch.equal(seen[4][name], value) for name, value in chosen.network.state_dict().items())
    assert not all(torch.equal(seen[6][name], value) for name, value in chosen.network.state_dict().items())


def test_what_is_held_back_is_measured_but_never_chosen(make_race: MakeRace) -> None:
    race = make_race(("scratch", "guided-transfer"), held_back=frozenset({"scratch"}))
    race.run(ignore)
    race.measure()
    race.candidates[0].measured[6] = [Quality(99.0, 1.0)]
    assert race.winner() is race.candidates[1]


FROM_PRIOR: tuple[Start, ...] = ("prior", "guided-transfer")


def test_what_began_with_the_prior_is_averaged_as_one_more_candidate(make_race: MakeRace) -> None:
    race = make_race(from_prior=FROM_PRIOR)
    race.run(ignore)
    race.measure()
    ends = [each.network.state_dict() for each in race.candidates[1:]]
    assert [each.finetune_steps_done for each in race.candidates] in ([6, 4, 6], [6, 6, 4])
    assert race.average is not None
    assert [each.start for each in race.entries()] == [*STARTS, "average"]
    for name, value in race.average.network.state_dict().items():
        torch.testing.assert_close(value, (ends[0][name] + ends[1][name]) / 2)
        assert not torch.equal(ends[0][name], ends[1][name])
    assert race.average.finetune_steps_done == race.average.best_steps == 6
    assert race.average.quality == quality_of(race.average.network, race.split.held_out)
    assert race.average.mix is race.candidates[2].mix


@pytest.mark.parametrize(("psnr", "chosen"), [(99.0, "scratch"), (99.1, "average")])
def test_an_average_is_chosen_only_where_it_measures_better(make_race: MakeRace, psnr: float, chosen: Start) -> None:
    race = make_race(from_prior=FROM_PRIOR)
    race.run(ignore)
    race.measure()
    assert race.average is not None
    race.candidates[0].measured[6], race.average.measured[6] = [Quality(99.0, 0.5)], [Quality(psnr, 0.5)]
    average = {name: value.clone() for name, value in race.average.network.state_dict().items()}
    winner = race.winner()
    assert winner.start == chosen
    same = all(torch.equal(average[name], value) for name, value in winner.network.state_dict().items())
    assert same is (chosen == "average")


@pytest.mark.parametrize("from_prior", [(), ("prior",)])
def test_what_began_with_different_weights_is_not_averaged(make_race: MakeRace, from_prior: tuple[Start, ...]) -> None:
    race = make_race(from_prior=from_prior)
    race.run(ignore)
    race.measure()
    assert race.average is None
    assert race.entries() == race.candidates


def test_fine_tuning_begins_with_a_fresh_optimizer(make_race: MakeRace) -> None:
    race = make_race(("guided-transfer",))
    counts = []

    def look(phase: str, candidate: str, step: int, loss: Tensor) -> None:
        optimizer = race.candidates[0].trainee.optimizer
        counts.append((phase, int(next(iter(optimizer.state.values()))["step"])))

    race.run(look)
    assert counts == [("transferring", n) for n in (1, 2, 3)] + [("fine_tuning", n) for n in range(1, 7)]


def test_every_candidate_is_fine_tuned_on_the_same_batches(make_race: MakeRace) -> None:
    """From equal weights without transfer, two starts end equal."""
    race = make_race(("scratch", "prior"))
    one, other = race.candidates
    other.network.load_state_dict(one.network.state_dict())
    race.run(ignore)
    assert torch.equal(convolution(one.network, 0).weight, convolution(other.network, 0).weight)


def test_measured_pixels_are_never_trained_on(make_race: MakeRace, photographs: dict[str, Tensor]) -> None:
    """Spoiling what is held out changes no weight."""
    weights = []
    for spoil in (False, True):
        race = make_race(("scratch", "guided-transfer"))
        if spoil:
            for pair in race.split.held_out:
                pair.clean.copy_(255 - pair.clean)
                pair.distorted.zero_()
        race.run(ignore)
        weights.append(state_of(race))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_checkpoint_of_other_candidates_is_refused(make_race: MakeRace, tmp_path: Path) -> None:
    make_race(("scratch", "prior")).save(tmp_path / "c")
    with pytest.raises(ValueError, match="other candidates"):
        make_race(("scratch", "guided-transfer")).resume(*checkpoint.load(tmp_path / "c"))


def test_a_checkpoint_of_another_plan_is_refused_and_changes_nothing(make_race: MakeRace, tmp_path: Path) -> None:
    """Its weights would load; trained on by other options, they would end as no uninterrupted race does."""
    saved, other = make_race(("scratch",), plan="seed 0"), make_race(("scratch",), plan="seed 1")
    saved.run(ignore)
    saved.save(tmp_path / "c")
    before = state_of(other)
    with pytest.raises(ValueError, match="another plan"):
        other.resume(*checkpoint.load(tmp_path / "c", other.plan))
    assert other.steps_done() == 0
    assert all(torch.equal(before[name], value) for name, value in state_of(other).items())
    again = make_race(("scratch",), plan="seed 0")
    again.resume(*checkpoint.load(tmp_path / "c", again.plan))
    assert again.steps_done() == saved.steps_done()


def test_a_checkpoint_that_says_nothing_of_its_plan_is_refused(make_race: MakeRace, tmp_path: Path) -> None:
    """As versions before the plan wrote it."""
    race = make_race(("scratch",))
    race.save(tmp_path / "c")
    tensors, facts = checkpoint.load(tmp_path / "c")
    checkpoint.save(tmp_path / "c", tensors, {"candidates": facts["candidates"]})
    with pytest.raises(ValueError, match="another plan"):
        checkpoint.load(tmp_path / "c", race.plan)


@pytest.mark.parametrize("percent", [0, 30, 95])
def test_a_truncated_checkpoint_is_refused(make_race: MakeRace, tmp_path: Path, percent: int) -> None:
    race = make_race(("scratch",))
    race.save(tmp_path / "c")
    whole = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(whole[: len(whole) * percent // 100])
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        checkpoint.load(tmp_path / "c", race.plan)
