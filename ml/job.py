"""The whole method as one function: few-shot pairs in; relation graph, measured model and verdict out."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ml import checkpoint
from ml.auxiliary import MARGIN
from ml.backbones import build
from ml.checkpoint import Trainee
from ml.crew import ALONE, Crew
from ml.dead_leaves import dead_leaves
from ml.evaluate import quality_of_input
from ml.findings import find_out, recalled
from ml.guidance import TaskMix, guided, preference, uniform
from ml.images import UnusableCleanImages, digest_of, load_folder, to_uint8
from ml.lpips import Lpips
from ml.meta import MetaSchedule
from ml.optimizer import adam
from ml.options import TrainingOptions
from ml.pairs import PairFile, Split, as_sent, decode_pairs, digest, pairs_at_hand, split
from ml.placement import at_hand
from ml.precision import device
from ml.preview import Preview, Viewpoint
from ml.prior import Prior, load_prior
from ml.race import Candidate, Race, Start, Tick
from ml.relation import Relation, node_link_graph
from ml.report import CODE_VERSION, Outcome, judge
from ml.sampling import generator_for

log = logging.getLogger(__name__)
DEAD_LEAVES, DEAD_LEAVES_SIDE = 6, 320
MOST_CLEAN_IMAGES = 64  # Of the operator's folder, in memory at a time; 64 photographs of 2K are about 0.5 GiB.
SHARES: Final = {"validating": 0.0, "embedding": 0.01, "training": 0.04, "evaluating": 0.96, "registering": 0.99}


@runtime_checkable  # Tests check argument types while they run.
class Follower(Protocol):
    """Who watches a job. Any method may raise to stop it."""

    def progress(self, phase: str, fraction: float, **facts: float | str | Float[Tensor, ""]) -> None:
        """Called after every step; `fraction` in 0…1 is over the whole job.

        Facts that are tensors may still be on their way from an accelerator, and waited for where they are read.
        """

    def graph(self, graph: dict[str, Any]) -> None:
        """Called once, as soon as the relation graph is known."""

    def checkpoint(self, write: Callable[[Path], None]) -> None:
        """Offered after every step; call `write(path)` when it is time to save."""

    def preview(self, look: Callable[[], Preview]) -> None:
        """Offered after every step; `look()` restores a held-out crop, which changes nothing of the training."""


def run_job(
    files: Sequence[PairFile],
    options: TrainingOptions,
    follower: Follower,
    *,
    prior_path: Path | None = None,
    clean_dir: Path | None = None,
    lpips: Lpips | None = None,
    resume: Path | None = None,
    crew: Crew = ALONE,
) -> Outcome:
    """Relate, transfer, fine-tune, measure.

    The held-out pairs take part in nothing but the measurement and the choice between candidates. Deterministic on the
    CPU: the same files, options and machine give the same weights, whether or not the job was interrupted and resumed
    from a checkpoint. The processes of a `crew` share the training steps. In float32 on the CPU that changes the result
    by no more than rounding; bfloat16 rounds parts of a batch apart, and on accelerators a seed's samples depend on the
    size of the crew, so that only the statistics are the same. Raises ValueError for pairs or options that cannot be
    used and for a checkpoint of another plan, HelperLost where one of the crew is gone, UnusablePrior and
    UnusableCleanImages for what the operator has to mend.
    """
    clock = PhaseClock()
    validating = partial(follower.progress, "validating", SHARES["validating"])
    validating()
    prior = load_prior(prior_path, validating)
    pairs, scale = decode_pairs(files, validating)
    parts = split(pairs, options.seed)

    clock.enter("embedding")
    embedding = partial(follower.progress, "embedding", SHARES["embedding"])
    embedding()
    least_side = options.schedules.transfer.crop + 2 * MARGIN
    # The plan names what is in the folder, which may have changed since a checkpoint was written.
    operators = operators_images(clean_dir, least_side, options.seed, embedding) if options.transfers else []
    plan = f"{CODE_VERSION}/{options}/{prior.version}/{digest(files)}/{digest_of(operators)}"
    kept = None if resume is None else checkpoint.load(resume, plan)
    if kept is None:
        found = find_out(prior, parts.train, as_sent(files, parts.train, scale), options, embedding)
    else:
        found = recalled(*kept, prior, options)
    relation, tasks = found.relation, found.tasks
    acted = asdict(options.acting) | {"prefer": preference(tasks, options.acting)} if options.guides else None
    graph = node_link_graph(relation, prior.version, tasks, lessons(options, tasks), acted)
    follower.graph(graph)

    clock.enter("training")
    images = operators + own_images(parts, least_side, options.seed, embedding) if options.transfers else []
    race = line_up(options, parts, scale, tasks, prior, images, lpips, plan)
    race.enlist(crew)
    if kept is not None:
        race.resume(*kept)
    follower.progress("transferring", SHARES["training"])
    started, before = time.monotonic(), race.steps_done()
    viewpoint = Viewpoint(parts.held_out[0])
    networks = {candidate.start: candidate.network for candidate in race.candidates}

    def fraction() -> float:
        done = race.steps_done() / race.planned_steps()
        return SHARES["training"] + (SHARES["evaluating"] - SHARES["training"]) * done

    def after_step(phase: str, candidate: Start, step: int, loss: Float[Tensor, ""]) -> None:
        rate = (race.steps_done() - before) / max(1e-3, time.monotonic() - started)
        follower.progress(phase, fraction(), candidate=candidate, step=step, loss=loss, steps_per_s=rate)
        follower.preview(lambda: viewpoint.look(networks[candidate], candidate, step))
        follower.checkpoint(save)

    def save(path: Path) -> None:
        race.save(path, found.tensors(), **found.facts())

    race.run(after_step, lambda: follower.progress("fine_tuning", fraction()))

    clock.enter("evaluating")
    race.measure(lambda: follower.progress("evaluating", SHARES["evaluating"]))
    untouched = quality_of_input(parts.held_out, lpips)
    outcome = judge(race, untouched, options, scale, relation, prior, found.reference, graph, clock.seconds())
    follower.progress("registering", SHARES["registering"])
    return outcome


def clean_images(
    parts: Split, clean_dir: Path | None, least_side: int, seed: int, tick: Tick = lambda: None
) -> list[UInt8[Tensor, "3 _ _"]]:
    """What auxiliary distortions are applied to: the operator's folder, the target's own clean images, dead leaves.

    Images of less than `least_side` pixels are left out: a training crop with its margin must fit in. Calls `tick`
    every so often. Raises UnusableCleanImages for a folder of which nothing is left.
    """
    return operators_images(clean_dir, least_side, seed, tick) + own_images(parts, least_side, seed, tick)


def operators_images(
    clean_dir: Path | None, least_side: int, seed: int, tick: Tick = lambda: None
) -> list[UInt8[Tensor, "3 _ _"]]:
    """The images of the operator's folder, of a large one some; none where there is no folder.

    What is left out, as too small or since it cannot be read, is logged. Calls `tick` every so often. Raises
    UnusableCleanImages for a folder of which nothing is left.
    """
    if clean_dir is None:
        return []
    drawn = generator_for(seed, "clean", 0)
    try:
        leave_out = partial(log.warning, "left out: %s")
        return load_folder(clean_dir, MOST_CLEAN_IMAGES, drawn, tick, leave_out, least_side)
    except (OSError, ValueError) as error:
        raise UnusableCleanImages(f"{clean_dir} cannot be used as a folder of clean images ({error})") from error


def own_images(parts: Split, least_side: int, seed: int, tick: Tick = lambda: None) -> list[UInt8[Tensor, "3 _ _"]]:
    """The images that every job has: those of its pairs that are large enough, and dead leaves."""
    own = [pair.clean for pair in parts.train if min(pair.clean.shape[1:]) >= least_side]
    return own + dead_leaves_images(seed, tick)


def dead_leaves_images(seed: int, tick: Tick = lambda: None) -> list[UInt8[Tensor, "3 _ _"]]:
    """The generated images of a job: the same for one seed. Calls `tick` every so often."""
    return [
        to_uint8(dead_leaves(DEAD_LEAVES_SIDE, generator_for(seed, "leaves", index), tick=tick))
        for index in range(DEAD_LEAVES)
    ]


def line_up(
    options: TrainingOptions,
    parts: Split,
    scale: int,
    relation: Relation,
    prior: Prior,
    images: Sequence[UInt8[Tensor, "3 _ _"]],
    lpips: Lpips | None = None,
    plan: str = "",
) -> Race:
    """The candidates of a scheme. Fine-tuning from nothing always runs beside them, as the baseline of the report."""
    schedules = options.schedules
    transfer, finetune = schedules.transfer, schedules.finetune
    unshuffle = options.unshuffle or max(2, {1: 1, 2: 2, 3: 4, 4: 4}[scale])
    if unshuffle < scale:
        raise ValueError(f"unshuffle: {unshuffle} is less than the scale of the pairs, {scale}")

    def candidate(start: Start, mix: TaskMix | None = None, meta: MetaSchedule | None = None) -> Candidate:
        network = build(options.backbone, unshuffle, options.seed)
        knows = options.init == "prior" and start != "scratch" and prior.start(network, options.backbone)
        transfers = mix is not None and transfer.steps > 0
        rate_without_transfer = schedules.prior_rate if knows else schedules.scratch_rate
        rate = finetune.learning_rate if transfers else rate_without_transfer
        network = network.to(device())
        trainee = Trainee(network, adam(network, transfer.learning_rate))
        # Where the rate is high, features change and the fit is lost again (docs/adr/0033).
        probe = options.linear_probe and knows and not transfers
        refit = options.linear_probe and schedules.refit
        finetuning = replace(finetune, learning_rate=rate)
        return Candidate(start, trainee, mix, transfer, finetuning, meta, probe, refit, from_prior=knows)

    candidates = [candidate("scratch")]
    match options.scheme:
        case "auto":
            if options.init == "prior" and prior.has_theta(options.backbone, unshuffle):
                candidates.append(candidate("prior"))
            if options.transfers:
                candidates.append(candidate("guided-transfer", guided(relation, options.acting)))
        case "pretrain":
            candidates.append(candidate("uniform-transfer", uniform(relation, options.choice)))
        case "drtl-pretrain":
            candidates.append(candidate("guided-transfer", guided(relation, options.acting)))
        case "maml":
            candidates.append(candidate("uniform-maml", uniform(relation, options.choice), schedules.meta))
        case "drtl-maml":
            candidates.append(candidate("guided-maml", guided(relation, options.acting), schedules.meta))
        case "baseline":
            pass
    asked_for_another = options.scheme not in {"auto", "baseline"}
    held_back: frozenset[Start] = frozenset({"scratch"}) if asked_for_another else frozenset()
    parts, images = replace(parts, train=pairs_at_hand(device(), parts.train)), at_hand(device(), images)
    return Race(candidates, parts, images, relation.prototypes.names, options.seed, held_back, plan, lpips=lpips)


def lessons(options: TrainingOptions, relation: Relation) -> Float[Tensor, "k"]:
    """The share of each task in what is learnt before fine-tuning: guided, alike, or none at all."""
    if not options.transfers:
        return torch.zeros_like(relation.gamma)
    mix = guided(relation, options.acting) if options.guides else uniform(relation, options.choice)
    return mix.shares()


class PhaseClock:
    """Wall-clock seconds of this attempt per part of the job."""

    def __init__(self) -> None:
        self._marks = [("validating", time.monotonic())]

    def enter(self, part: str) -> None:
        self._marks.append((part, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        ends = [mark for _, mark in self._marks[1:]] + [time.monotonic()]
        return {part: round(end - start, 3) for (part, start), end in zip(self._marks, ends, strict=True)}
