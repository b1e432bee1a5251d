"""The whole method as one function: few-shot pairs in; relation graph, measured model and verdict out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ml.backbones import BackboneName, build, parameter_count
from ml.checkpoint import Trainee, adam
from ml.dead_leaves import dead_leaves
from ml.evaluate import Quality, mean, passes_gate, quality_of_input
from ml.finetune import FinetuneSchedule
from ml.images import load_folder, to_uint8
from ml.model_file import pack
from ml.pairs import PairFile, Split, decode_pairs, split
from ml.precision import device
from ml.prior import Prior, load_prior
from ml.race import Candidate, Race, Start
from ml.relation import Relation, node_link_graph, relate
from ml.sampling import generator_for
from ml.transfer import MARGIN, TransferSchedule

Preset = Literal["quick", "standard", "paper"]
Scheme = Literal["auto", "baseline", "pretrain", "drtl-pretrain"]
CODE_VERSION: Final = "0.1.0"
DEAD_LEAVES, DEAD_LEAVES_SIDE = 6, 320
SHARES: Final = {"validating": 0.0, "embedding": 0.01, "training": 0.04, "evaluating": 0.96, "registering": 0.99}


@dataclass(frozen=True)
class TrainingOptions:
    """What a user may choose; `None` leaves it to the preset."""

    preset: Preset = "quick"
    scheme: Scheme = "auto"
    backbone: BackboneName = "vdsr"
    unshuffle: int | None = None
    init: Literal["prior", "scratch"] = "prior"
    seed: int = 0
    transfer_steps: int | None = None
    finetune_steps: int | None = None


@dataclass(frozen=True)
class Schedules:
    """The training schedules of a preset. Fine-tuning rates differ: weights that know something must not be shaken."""

    transfer: TransferSchedule
    finetune: FinetuneSchedule
    scratch_rate: float


# Ours, but for `paper`: its batch, crop, rates and decay are those of §4.2. The paper names no numbers of steps.
PRESETS: Final[dict[Preset, Schedules]] = {
    "quick": Schedules(
        TransferSchedule(steps=150, batch=8, learning_rate=1e-4),
        FinetuneSchedule(steps=600, batch=8, learning_rate=2e-4, decay="cosine"),
        scratch_rate=1e-3,
    ),
    "standard": Schedules(
        TransferSchedule(steps=2_000, batch=16, learning_rate=1e-4),
        FinetuneSchedule(steps=6_000, batch=16, learning_rate=2e-4, decay="cosine"),
        scratch_rate=5e-4,
    ),
    "paper": Schedules(
        TransferSchedule(steps=100_000),
        FinetuneSchedule(steps=30_000),
        scratch_rate=1e-4,
    ),
}


@runtime_checkable  # Tests check argument types while they run.
class Follower(Protocol):
    """Who watches a job. Any method may raise to stop it."""

    def progress(self, phase: str, fraction: float, **facts: float | str) -> None:
        """Called after every step; `fraction` in 0…1 is over the whole job."""

    def graph(self, graph: dict[str, Any]) -> None:
        """Called once, as soon as the relation graph is known."""

    def checkpoint(self, write: Callable[[Path], None]) -> None:
        """Offered after every step; call `write(path)` when it is time to save."""


@dataclass(frozen=True)
class Outcome:
    """What a job leaves: the model file, its card, and whether it is worth using."""

    weights: bytes
    card: dict[str, Any]
    metrics: dict[str, Any]
    verdict: Literal["gain", "no_gain"]
    explanation: str
    graph: dict[str, Any]


def run_job(
    files: Sequence[PairFile],
    options: TrainingOptions,
    follower: Follower,
    *,
    prior_path: Path | None = None,
    clean_dir: Path | None = None,
    resume: Path | None = None,
) -> Outcome:
    """Relate, transfer, fine-tune, measure.

    Deterministic: the same files, options and machine give the same weights, whether or not the job was interrupted
    and resumed from a checkpoint. Raises ValueError for pairs or options that cannot be used.
    """
    clock = PhaseClock()
    follower.progress("validating", SHARES["validating"])
    prior = load_prior(prior_path)
    pairs, scale = decode_pairs(files)
    parts = split(pairs, options.seed)

    clock.enter("embedding")
    follower.progress("embedding", SHARES["embedding"])
    relation = relate(prior.drn.to(device()), prior.prototypes, pairs, options.seed)
    graph = node_link_graph(relation, prior.version)
    follower.graph(graph)

    clock.enter("training")
    least_side = PRESETS[options.preset].transfer.crop + 2 * MARGIN
    images = clean_images(parts, clean_dir, least_side, options.seed)
    race = line_up(options, parts, scale, relation, prior, images)
    if resume is not None:
        race.load(resume)
    follower.progress("transferring", SHARES["training"])
    started, before = time.monotonic(), race.steps_done()

    def after_step(phase: str, candidate: str, step: int, loss: float) -> None:
        done, planned = race.steps_done(), race.planned_steps()
        fraction = SHARES["training"] + (SHARES["evaluating"] - SHARES["training"]) * done / planned
        rate = (done - before) / max(1e-3, time.monotonic() - started)
        follower.progress(phase, fraction, candidate=candidate, step=step, loss=loss, steps_per_s=rate)
        follower.checkpoint(race.save)

    race.run(after_step)

    clock.enter("evaluating")
    follower.progress("evaluating", SHARES["evaluating"])
    race.measure()
    untouched = quality_of_input(parts.held_out)
    clock.enter("registering")
    follower.progress("registering", SHARES["registering"])
    return judge(race, untouched, options, scale, relation, prior, graph, clock)


def clean_images(parts: Split, clean_dir: Path | None, least_side: int, seed: int) -> list[UInt8[Tensor, "3 _ _"]]:
    """What auxiliary distortions are applied to: the operator's folder, the target's own clean images, dead leaves.

    Images of less than `least_side` pixels are left out: a training crop with its margin must fit in.
    """
    operators = load_folder(clean_dir) if clean_dir is not None else []
    generated = [
        to_uint8(dead_leaves(DEAD_LEAVES_SIDE, generator_for(seed, "leaves", index))) for index in range(DEAD_LEAVES)
    ]
    images = operators + [pair.clean for pair in parts.train] + generated
    return [image for image in images if min(image.shape[1:]) >= least_side]


def line_up(
    options: TrainingOptions,
    parts: Split,
    scale: int,
    relation: Relation,
    prior: Prior,
    images: Sequence[UInt8[Tensor, "3 _ _"]],
) -> Race:
    """The candidates of a scheme. Fine-tuning from nothing always runs beside them, as the baseline of the report."""
    schedules = PRESETS[options.preset]
    transfer = schedules.transfer
    if options.transfer_steps is not None:
        transfer = replace(transfer, steps=options.transfer_steps)
    finetune = schedules.finetune
    if options.finetune_steps is not None:
        finetune = replace(finetune, steps=options.finetune_steps)
    unshuffle = options.unshuffle or max(2, {1: 1, 2: 2, 3: 4, 4: 4}[scale])
    if unshuffle < scale:
        raise ValueError(f"unshuffle: {unshuffle} is less than the scale of the pairs, {scale}")

    def candidate(start: Start, gamma: Float[Tensor, "k"] | None) -> Candidate:
        network = build(options.backbone, unshuffle, options.seed)
        knows = options.init == "prior" and start != "scratch" and prior.start(network, options.backbone)
        transfers = gamma is not None and transfer.steps > 0
        rate = finetune.learning_rate if knows or transfers else schedules.scratch_rate
        network = network.to(device())
        trainee = Trainee(network, adam(network, transfer.learning_rate))
        weights = gamma.to(device()) if gamma is not None else None
        return Candidate(start, trainee, weights, transfer, replace(finetune, learning_rate=rate))

    uniform = torch.ones_like(relation.gamma)
    candidates = [candidate("scratch", None)]
    held_back: frozenset[Start] = frozenset()
    match options.scheme:
        case "auto":
            if options.init == "prior" and prior.has_theta(options.backbone, unshuffle):
                candidates.append(candidate("prior", None))
            candidates.append(candidate("guided-transfer", relation.weights))
        case "pretrain":
            candidates.append(candidate("uniform-transfer", uniform))
            held_back = frozenset({"scratch"})
        case "drtl-pretrain":
            candidates.append(candidate("guided-transfer", relation.weights))
            held_back = frozenset({"scratch"})
        case "baseline":
            pass
    return Race(candidates, parts, images, relation.prototypes.names, options.seed, held_back)


def judge(
    race: Race,
    untouched: list[Quality],
    options: TrainingOptions,
    scale: int,
    relation: Relation,
    prior: Prior,
    graph: dict[str, Any],
    clock: "PhaseClock",
) -> Outcome:
    """Compare the winner with the input and the baseline, and write down everything that a reader of the card asks."""
    winner = race.winner()
    baseline = next(candidate for candidate in race.candidates if candidate.start == "scratch")
    given, reached, from_nothing = mean(untouched), mean(winner.final), mean(baseline.final)
    verdict: Literal["gain", "no_gain"] = "gain" if passes_gate(reached, given) else "no_gain"
    metrics: dict[str, Any] = {
        "protocol": race.split.protocol,
        "held_out": [pair.name for pair in race.split.held_out],
        "input": asdict(given),
        "baseline": asdict(from_nothing) | {"steps": baseline.finetune_steps_done},
        "result": asdict(reached) | {"steps": winner.finetune_steps_done},
        "chosen": winner.start,
        "gain_db": reached.psnr - given.psnr,
        "per_pair": [
            {
                "name": pair.name,
                "input_psnr": before.psnr,
                "baseline_psnr": plain.psnr,
                "result_psnr": after.psnr,
                "input_ssim": before.ssim,
                "result_ssim": after.ssim,
            }
            for pair, before, plain, after in zip(
                race.split.held_out, untouched, baseline.final, winner.final, strict=True
            )
        ],
        "candidates": [describe(candidate) for candidate in race.candidates],
        "seconds": clock.seconds(),
    }
    network = winner.network
    card: dict[str, Any] = {
        "backbone": options.backbone,
        "unshuffle": network.unshuffle,
        "scale": scale,
        "parameters": parameter_count(network),
        "options": asdict(options),
        "chosen": winner.start,
        "verdict": verdict,
        "gamma": dict(zip(relation.prototypes.names, relation.gamma.tolist(), strict=True)),
        "metrics": metrics,
        "prior": prior.version,
        "code_version": CODE_VERSION,
        "licence": "The weights belong to whoever trained them; the prior's photographs are "
        f"{prior.card.get('licence', 'of unknown licence')}.",
        "trained_s": sum(clock.seconds().values()),
    }
    return Outcome(pack(network, card), card, metrics, verdict, explain(metrics, verdict), graph)


IN_WORDS: Final[dict[Start, str]] = {
    "scratch": "Fine-tuning from nothing",
    "prior": "Fine-tuning the pre-trained network",
    "uniform-transfer": "Fine-tuning after uniform transfer",
    "guided-transfer": "Fine-tuning after γ-guided transfer",
}


def explain(metrics: dict[str, Any], verdict: str) -> str:
    """The verdict in a sentence or two."""
    given, reached, plain = metrics["input"]["psnr"], metrics["result"]["psnr"], metrics["baseline"]["psnr"]
    measured = "the held-out parts" if metrics["protocol"] == "halves" else f"{len(metrics['held_out'])} held-out pairs"
    chosen = IN_WORDS[metrics["chosen"]]
    if verdict == "no_gain":
        return (
            f"{chosen} was the best candidate with {reached:.2f} dB on {measured}, but leaving the images as they are "
            f"gives {given:.2f} dB. The model is kept under its version number and is not used by default."
        )
    text = f"{chosen} reached {reached:.2f} dB on {measured}, {reached - given:+.2f} dB over the input"
    if metrics["chosen"] != "scratch":
        text += f" and {reached - plain:+.2f} dB against fine-tuning from nothing with the same number of steps"
    return text + "."


def describe(candidate: Candidate) -> dict[str, Any]:
    """A candidate's line in the report."""
    quality = mean(candidate.final) if candidate.final else candidate.rung
    assert quality is not None
    return {
        "name": candidate.start,
        "psnr": quality.psnr,
        "steps": candidate.finetune_steps_done,
        "stopped_early": candidate.stopped,
    }


class PhaseClock:
    """Wall-clock seconds of this attempt per part of the job."""

    def __init__(self) -> None:
        self._marks = [("validating", time.monotonic())]

    def enter(self, part: str) -> None:
        self._marks.append((part, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        ends = [mark for _, mark in self._marks[1:]] + [time.monotonic()]
        return {part: round(end - start, 3) for (part, start), end in zip(self._marks, ends, strict=True)}
