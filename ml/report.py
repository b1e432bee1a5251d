"""What a job says in the end: metrics on held-out pairs, the verdict with its reason, and the model's card."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ml.backbones import parameter_count
from ml.evaluate import Quality, mean, passes_gate
from ml.match import MatchReference
from ml.model_file import pack
from ml.options import TrainingOptions
from ml.prior import Prior
from ml.race import Candidate, Race, Start
from ml.relation import Relation

CODE_VERSION: Final = "0.1.0"


@dataclass(frozen=True)
class Outcome:
    """What a job leaves: the model file, its card, and whether it is worth using."""

    weights: bytes
    card: dict[str, Any]
    metrics: dict[str, Any]
    verdict: Literal["gain", "no_gain"]
    explanation: str
    graph: dict[str, Any]


def judge(
    race: Race,
    untouched: list[Quality],
    options: TrainingOptions,
    scale: int,
    relation: Relation,
    prior: Prior,
    reference: MatchReference | None,
    graph: dict[str, Any],
    seconds: dict[str, float],
) -> Outcome:
    """Compare the winner with the input and the baseline, and write down everything that a reader of the card asks."""
    winner = race.winner()
    baseline = next(candidate for candidate in race.candidates if candidate.start == "scratch")
    given, reached, from_nothing = mean(untouched), mean(winner.quality), mean(baseline.quality)
    verdict: Literal["gain", "no_gain"] = "gain" if passes_gate(reached, given) else "no_gain"
    metrics: dict[str, Any] = {
        "protocol": race.split.protocol,
        "held_out": [pair.name for pair in race.split.held_out],
        "input": asdict(given),
        "baseline": asdict(from_nothing) | {"steps": baseline.best_steps},
        "result": asdict(reached) | {"steps": winner.best_steps},
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
                "input_aligned_psnr": before.aligned_psnr,
                "result_aligned_psnr": after.aligned_psnr,
                "input_lpips": before.lpips,
                "result_lpips": after.lpips,
            }
            for pair, before, plain, after in zip(
                race.split.held_out, untouched, baseline.quality, winner.quality, strict=True
            )
        ],
        "candidates": [describe(candidate) for candidate in race.entries()],
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
        "task_weights": task_weights(winner, race.tasks),
        "metrics": metrics,
        "match": asdict(reference) if reference is not None else None,
        "prior": prior.version,
        "code_version": CODE_VERSION,
        "licence": "The weights belong to whoever trained them; the prior's photographs are "
        f"{prior.card.get('licence', 'of unknown licence')}.",
    }
    # The model file holds no clock readings, so that equal jobs give equal files.
    weights = pack(network, card)
    said = explain(metrics, verdict, transferred=winner.transfer_steps > 0)
    return Outcome(weights, card, metrics | {"seconds": seconds}, verdict, said, graph)


IN_WORDS: Final[dict[Start, str]] = {
    "scratch": "Fine-tuning from nothing",
    "prior": "Fine-tuning the pre-trained network",
    "uniform-transfer": "Fine-tuning after uniform transfer",
    "guided-transfer": "Fine-tuning after guided transfer",
    "uniform-maml": "Fine-tuning after uniform meta-learning",
    "guided-maml": "Fine-tuning after guided meta-learning",
    "average": "The average of networks fine-tuned with and without guided transfer",
}
TRANSFERS: Final[frozenset[Start]] = frozenset(IN_WORDS) - {"scratch", "prior"}


def explain(metrics: dict[str, Any], verdict: str, *, transferred: bool = True) -> str:
    """The verdict in a sentence or two; `transferred` says whether a transfer had any steps."""
    given, reached, plain = metrics["input"]["psnr"], metrics["result"]["psnr"], metrics["baseline"]["psnr"]
    measured = (
        "the held-out parts" if metrics["protocol"] == "halves" else counted(len(metrics["held_out"]), "held-out pair")
    )
    without = metrics["chosen"] in TRANSFERS and not transferred
    chosen = "Fine-tuning without a transfer" if without else IN_WORDS[metrics["chosen"]]
    if verdict == "no_gain":
        # Fine-tuning from nothing may have been held back, and measure higher.
        did = "was the best candidate with" if reached >= plain else "reached"
        return (
            f"{chosen} {did} {reached:.2f} dB on {measured}, but leaving the images as they are "
            f"gives {given:.2f} dB. The model is kept under its version number and is not used by default."
        )
    text = f"{chosen} reached {reached:.2f} dB on {measured}, {reached - given:+.2f} dB over the input"
    if metrics["chosen"] != "scratch":
        text += f" and {reached - plain:+.2f} dB against fine-tuning from nothing with as many fine-tuning steps"
    return text + "."


def task_weights(candidate: Candidate, tasks: Sequence[str]) -> dict[str, float] | None:
    """The share of each auxiliary task in what the candidate learned from; None where it learned from none."""
    if candidate.mix is None or candidate.transfer_steps == 0:
        return None
    return dict(zip(tasks, candidate.mix.shares().tolist(), strict=True))


def describe(candidate: Candidate) -> dict[str, Any]:
    """A candidate's line in the report."""
    return {
        "name": candidate.start,
        "psnr": mean(candidate.quality).psnr,
        "steps": candidate.finetune_steps_done,
        "stopped_early": candidate.stopped,
    }


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"
