"""What tells the trainings behind the paper's tables apart: their tasks, their pairs, their rates, their networks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.devices import Device
from benchmarks.paper import materials as shared
from benchmarks.paper import table3
from benchmarks.paper.materials import Materials
from benchmarks.paper.scales import SCALES, Extent
from benchmarks.paper.schemes import SCHEMES, Scheme, Training, train, training_of
from benchmarks.paper.study import Study
from benchmarks.trials import Bench
from ml.distortions import PAPERS
from ml.drn import DistortionRelationNetwork, DrnShape
from ml.guidance import Guidance, Preference, TaskMix, guided, uniform
from ml.pairs import TargetPair
from ml.prior import Prior
from ml.relation import Prototypes, Relation

SMOKE = SCALES["smoke"]
Kept = dict[tuple[DrnShape, int], DistortionRelationNetwork]
WITH_BANK = DrnShape(width=SMOKE.drn_width)
WITHOUT = replace(WITH_BANK, memory_nodes=0)
AS_PRINTED = replace(WITH_BANK, affinity="literal")
LIKENESS = Guidance("weight", prefer="likeness")


@pytest.fixture
def relation() -> Relation:
    """Likest to the first of four tasks, of which the second helps most."""
    nodes = torch.eye(4)
    prototypes = Prototypes(list(PAPERS[:4]), nodes, nodes[:, None], torch.full((4,), 25.0))
    gamma, gain_db = torch.tensor([[0.8, 0.3, 0.5, -0.1]]), torch.tensor([[0.1, 0.4, 0.3, -0.2]])
    return Relation(prototypes, nodes[0], nodes[:1], gamma[0], gamma, 30.0, gain_db_of_pair=gain_db)


@pytest.fixture
def target() -> Device:
    """Three pairs to learn from, and one to measure on."""
    drawn = torch.randint(256, (4, 2, 3, 112, 107), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pairs = [TargetPair(f"{index}", clean, distorted) for index, (clean, distorted) in enumerate(drawn)]
    return Device("noise", pairs[:3], pairs[3:])


@pytest.fixture
def materials(tmp_path: Path, target: Device, relation: Relation, monkeypatch: pytest.MonkeyPatch) -> Materials:
    """Without photographs of their own: those of the target, for the little that is trained here."""
    images: list[Tensor] = [pair.clean for pair in target.test]
    monkeypatch.setattr(shared, "foreign_images", lambda clean, seed: [])
    monkeypatch.setattr(shared, "photographs", lambda clean, seed: images)
    prior = Prior("test-1", DistortionRelationNetwork(DrnShape(1 / 32, 8, 0)), relation.prototypes, {}, {})
    return Materials(tmp_path, SMOKE, None, prior, lambda: None)


def same(one: TaskMix, other: TaskMix) -> bool:
    """Whether tasks are weighed alike and drawn alike."""
    chances = [torch.ones_like(mix.gamma) if mix.chances is None else mix.chances for mix in (one, other)]
    return torch.equal(one.gamma, other.gamma) and torch.equal(*chances)


@pytest.mark.parametrize("prefer", ["transferability", "likeness"])
@pytest.mark.parametrize(
    ("scheme", "is_guided", "is_meta"),
    [
        ("pretrain", False, False),
        ("maml", False, True),
        ("drtl-pretrain", True, False),
        ("drtl-maml", True, True),
    ],
)
def test_drtl_is_what_the_relation_guides_and_maml_what_meta_learns(
    scheme: Scheme, is_guided: bool, is_meta: bool, prefer: Preference, relation: Relation
) -> None:
    by_relation = guided(relation, Guidance() if prefer == "transferability" else LIKENESS)
    on_all_alike = uniform(relation)
    assert not same(by_relation, on_all_alike)
    training = training_of(scheme, "rdn", 5, relation, prefer)
    assert (training.backbone, training.seed, training.meta) == ("rdn", 5, is_meta)
    assert training.mix is not None
    assert same(training.mix, by_relation if is_guided else on_all_alike)


def test_the_baseline_transfers_nothing_and_no_scheme_is_missing_here(relation: Relation) -> None:
    assert training_of("baseline", "vdsr", 5, relation, "transferability") == Training("vdsr", 5, None, meta=False)
    assert set(SCHEMES) == {"baseline", "pretrain", "maml", "drtl-pretrain", "drtl-maml"}


def test_by_likeness_every_task_is_drawn_alike_and_weighs_its_share_of_gamma(relation: Relation) -> None:
    mix = training_of("drtl-pretrain", "vdsr", 0, replace(relation, gamma=relation.gamma.abs()), "likeness").mix
    assert mix is not None
    assert mix.chances is None
    assert mix.gamma.tolist() == pytest.approx([0.8 / 1.7, 0.3 / 1.7, 0.5 / 1.7, 0.1 / 1.7])


@pytest.mark.parametrize("shots", [1, 2])
def test_a_curve_of_pairs_learns_from_the_first_of_them_alone(
    shots: int, target: Device, materials: Materials, relation: Relation, monkeypatch: pytest.MonkeyPatch
) -> None:
    related: list[list[TargetPair]] = []

    def related_tasks(_: Prior, pairs: list[TargetPair], seed: int) -> Relation:
        related.append(pairs)
        return relation

    monkeypatch.setattr(shared, "related_tasks", related_tasks)
    bench, first = materials.bench(target, 0, shots, SMOKE.plain), target.train[:shots]
    assert bench.target.train == first
    assert bench.clean == [pair.clean for pair in first]
    assert [pair.name for pair in bench.unseen] == ["3"]
    materials.relation(target, 0, shots)
    assert related == [first]


def test_the_relation_network_that_is_asked_for_relates_the_first_pairs_alone(
    target: Device, materials: Materials, relation: Relation, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bank = materials.prior.drn
    related: list[list[TargetPair]] = []

    def compute_prototypes(drn: DistortionRelationNetwork, *about: object) -> Prototypes:
        assert drn is without_bank
        return relation.prototypes

    def relate(drn: DistortionRelationNetwork, known: Prototypes, pairs: list[TargetPair], seed: int) -> Relation:
        assert drn is without_bank
        related.append(pairs)
        return relation

    monkeypatch.setattr(shared, "compute_prototypes", compute_prototypes)
    monkeypatch.setattr(shared, "relate", relate)
    with_bank = DistortionRelationNetwork(DrnShape(1 / 32, 8))
    kept: Kept = {(WITHOUT, 0): without_bank, (WITH_BANK, 0): with_bank}
    own = replace(materials, _networks=kept)
    assert own.own_relation(WITHOUT, target, 0, 1) is relation
    assert related == [target.train[:1]]


def test_a_relation_network_has_the_shape_that_is_asked_for(materials: Materials) -> None:
    """When it is trained, and when it is read from a file of its own."""
    shapes = [WITHOUT, replace(WITH_BANK, memory_nodes=5, edges="l2"), WITH_BANK, AS_PRINTED]
    for at_hand in (materials, replace(materials, _networks={})):
        for shape in shapes:
            network = at_hand.own_network(shape, 0)
            assert network.memory.shape[0] == shape.memory_nodes
            assert network.shape == shape
    assert len(list((materials.folder / "networks").iterdir())) == len(shapes)


def test_table_3_trains_by_the_likeness_of_networks_with_a_bank_without_and_as_printed(
    relation: Relation, target: Device, materials: Materials, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[DrnShape] = []
    trained: list[Training] = []

    def own_relation(_: Materials, shape: DrnShape, *about: Any) -> Relation:
        asked.append(shape)
        return relation

    def keep(_: Study, on: Device, shots: int, training: Training) -> dict[str, Any]:
        trained.append(training)
        return {}

    monkeypatch.setattr(Materials, "own_relation", own_relation)
    monkeypatch.setattr(Study, "_train", keep)
    study = Study(materials, [target], ["rcan"], "vdsr", [4], 2)
    planned = [each for each in table3.plan(study) if each.about["kind"] == "memory"]
    for each in planned:
        each.run()
    told = [(each.about["memory_nodes"], each.about["affinity"]) for each in planned]
    assert told == [(32, "scaled"), (0, "scaled"), (32, "literal")]
    assert asked == [WITH_BANK, WITHOUT, AS_PRINTED]
    for training in trained:
        assert (training.backbone, training.seed, training.meta) == ("vdsr", 4, True)
        assert training.mix is not None
        assert same(training.mix, guided(relation, LIKENESS))


Rates = list[tuple[str, float]]


@pytest.fixture
def rates_of(target: Device, monkeypatch: pytest.MonkeyPatch) -> Callable[[Training, Extent], Rates]:
    """At which rates a training transfers and fine-tunes; it does neither."""
    seen: Rates = []

    def transfer(*_: Any, rate: float) -> None:
        seen.append(("transfer", rate))

    def tune(_: Bench, network: object, rate: float, *about: Any) -> None:
        seen.append(("tune", rate))

    monkeypatch.setattr(Bench, "transfer", transfer)
    monkeypatch.setattr(Bench, "tune", tune)
    bench = Bench(target, SMOKE.plain, [], PAPERS, [])

    def rates(training: Training, extent: Extent) -> Rates:
        seen.clear()
        train(bench, training, extent)
        return list(seen)

    return rates


def test_the_baseline_learns_at_the_rate_of_fresh_weights_and_others_at_that_after_a_transfer(
    relation: Relation, rates_of: Callable[[Training, Extent], Rates]
) -> None:
    own = SMOKE.schedules
    schedules = replace(
        own,
        transfer=replace(own.transfer, learning_rate=0.1),
        finetune=replace(own.finetune, learning_rate=0.2),
        prior_rate=0.3,
        scratch_rate=0.4,
    )
    extent = replace(SMOKE, schedules=schedules)
    for scheme in SCHEMES:
        rates = rates_of(training_of(scheme, "vdsr", 0, relation, "transferability"), extent)
        assert rates == ([("tune", 0.4)] if scheme == "baseline" else [("transfer", 0.1), ("tune", 0.2)])
