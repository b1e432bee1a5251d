"""The one command that rebuilds the prior: `python -m ml.prior_training --clean DIR --output FILE`."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
import typer
from rich.console import Console
from torch import Tensor

from ml.backbones import BACKBONES, BackboneName, SameSize, build
from ml.distortions import DISTORTIONS, PAPERS
from ml.drn import DrnShape
from ml.edges import Edges
from ml.prior import Prior, UnusablePrior, halved, round_to_half, save_prior, theta_name
from ml.prior_card import made_from, metrics_of, table_of, today, unseen_photographs
from ml.prior_images import photographs_in, training_images
from ml.prior_loops import EXPERT_STEPS, train_drn, train_experts, train_network, training_bars
from ml.relation import Prototypes, compute_prototypes
from ml.transfer import TransferSchedule

PROTOTYPE_SAMPLES = 64


@dataclass(frozen=True)
class Recipe:
    """How a backbone is pre-trained for the bundle that ships."""

    steps: int
    learning_rate: float


RECIPES: Final[dict[str, Recipe]] = {
    "vdsr": Recipe(9000, 6e-4),
    "vdsr-small": Recipe(9000, 1e-3),
    "dncnn": Recipe(10_000, 4e-4),
}
ANY_OTHER: Final = Recipe(9000, 4e-4)
SHIPPED_NETWORKS: Final = ("vdsr:2", "vdsr:4", "vdsr-small:2", "dncnn:2")


def train_prior(
    clean: Annotated[list[Path], typer.Option(help="Folder of clean photographs; give it once for each folder.")],
    output: Annotated[Path, typer.Option(help="The bundle to write.")],
    licence: Annotated[str, typer.Option(help="Terms of the photographs, for the card.")] = "unknown",
    seed: int = 0,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:UNSHUFFLE", help=f"Give it once for each; by default {', '.join(SHIPPED_NETWORKS)}."
        ),
    ] = None,
    drn_steps: int = 1200,
    theta_steps: Annotated[
        int | None, typer.Option(help="Of every network; by default as many as each ships with.", min=0)
    ] = None,
    batch: int = 8,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of every network; by default what each ships with.")
    ] = None,
    expert_steps: Annotated[int, typer.Option(help="Of each distortion's expert.", min=0)] = EXPERT_STEPS,
    learn: Annotated[
        Literal["paper", "all"], typer.Option(help="What is trained on: the paper's seven, or all distortions.")
    ] = "paper",
    memory_nodes: Annotated[int, typer.Option(help="Of the memory bank; 0 does without one.", min=0)] = 32,
    affinity: Annotated[
        Literal["scaled", "literal"], typer.Option(help="Eq. (6) with learned scale, or as printed.")
    ] = "scaled",
    edges: Annotated[Edges, typer.Option(help="How nodes are compared, in training and as γ.")] = "cosine",
    measure: Annotated[
        list[Path] | None, typer.Option(help="Folder of other photographs, to measure the networks on in the end.")
    ] = None,
    threads: Annotated[int, typer.Option(help="0 lets torch decide.")] = 0,
) -> None:
    """Train the DRN, its memory bank, and backbones on auxiliary tasks; prototypes and experts of all distortions.

    Progress is saved beside the output every minute; the same command resumes from there and ends with the same bits.
    """
    networks = [network_named(each) for each in dict.fromkeys(network or SHIPPED_NETWORKS)]
    if threads:
        torch.set_num_threads(threads)
    with usage_errors():
        photographs = list(photographs_in(clean))
        source = made_from(photographs, licence, seed)
        unseen = unseen_photographs(measure, source, seed) if measure else []
    work = work_beside(output)
    images = training_images(photographs, seed)
    tasks = list(PAPERS if learn == "paper" else DISTORTIONS)
    shape = DrnShape(memory_nodes=memory_nodes, affinity=affinity, edges=edges)
    thetas, trained = {}, {}
    with training_bars() as progress:
        drn, drn_loss = train_drn(shape, images, tasks, seed, drn_steps, work, progress)
        round_to_half(drn)
        prototypes = compute_prototypes(drn, images, list(DISTORTIONS), PROTOTYPE_SAMPLES, seed)
        for name, unshuffle in networks:
            theta, theta_network = theta_name(name, unshuffle), build(name, unshuffle, seed)
            schedule = schedule_of(name, theta_steps, batch, learning_rate)
            loss = train_network(theta_network, theta, images, tasks, seed, schedule, work, progress)
            thetas[theta] = weights_of(theta_network)
            trained[theta] = trained_by(schedule, loss)
        experts = train_experts(list(DISTORTIONS), images, seed, expert_steps, work, progress)
    card: dict[str, Any] = {
        "date": today(),
        **source,
        "tasks": tasks,
        "drn_steps": drn_steps,
        "drn_loss": told(drn_loss),
        "thetas": trained,
        "expert_steps": expert_steps,
        "metrics": None,
    }
    prior = Prior(version_of(card["date"], prototypes, thetas, experts), drn, prototypes, thetas, card, experts)
    if unseen:
        metrics = metrics_of(prior, unseen, seed)
        prior = replace(prior, card=card | {"metrics": metrics})
        Console().print(table_of(metrics))
    write(output, prior)


def network_named(text: str) -> tuple[BackboneName, int]:
    """The backbone and its unshuffle of `NAME:UNSHUFFLE`. Raises typer.BadParameter for what there is not."""
    known = {f"{name}:{unshuffle}": (name, unshuffle) for name in BACKBONES for unshuffle in (1, 2, 4)}
    if text not in known:
        raise typer.BadParameter(f"{text} is no network; known are {', '.join(known)}")
    return known[text]


def schedule_of(backbone: str, steps: int | None, batch: int, learning_rate: float | None) -> TransferSchedule:
    """What the backbone ships with, but for what is given."""
    recipe = RECIPES.get(backbone, ANY_OTHER)
    return TransferSchedule(
        recipe.steps if steps is None else steps,
        batch,
        learning_rate=recipe.learning_rate if learning_rate is None else learning_rate,
    )


def trained_by(schedule: TransferSchedule, loss: float) -> dict[str, float | None]:
    """What the card says of the training of one network."""
    return {
        "steps": schedule.steps,
        "batch": schedule.batch,
        "learning_rate": schedule.learning_rate,
        "loss": told(loss),
    }


def told(loss: float) -> float | None:
    """None where nothing was trained: a card is JSON, which has no word for what is not a number."""
    return None if math.isnan(loss) else loss


def weights_of(network: SameSize) -> dict[str, Tensor]:
    """As a bundle keeps them, so that what is measured is what is shipped."""
    return {name: halved(value.cpu().contiguous()) for name, value in network.state_dict().items()}


@contextmanager
def usage_errors() -> Iterator[None]:
    """What is wrong with the folders or the bundle that a command was given is told as its wrong use."""
    try:
        yield
    except (OSError, ValueError, UnusablePrior) as error:
        raise typer.BadParameter(str(error)) from error


def work_beside(output: Path) -> Path:
    """The folder in which unfinished trainings are kept."""
    work = output.with_name(f"{output.name}.work")
    work.mkdir(parents=True, exist_ok=True)
    return work


def write(output: Path, prior: Prior, more: str = "") -> None:
    """Write the bundle and say so, and what `more` there is to say."""
    save_prior(output, prior)
    typer.echo(f"Wrote {output} ({output.stat().st_size / 2**20:.1f} MiB), version {prior.version}{more}.")


def version_of(
    date: str,
    prototypes: Prototypes,
    thetas: dict[str, dict[str, Tensor]],
    experts: Mapping[str, SameSize],
) -> str:
    """The date with a digest of what jobs compare with and start from."""
    digest = hashlib.sha256(prototypes.vectors.numpy().tobytes())
    for name in sorted(thetas):
        for value in thetas[name].values():
            digest.update(halved(value).numpy().tobytes())  # As they are kept, also below.
    for name in sorted(experts):
        for value in experts[name].state_dict().values():
            digest.update(halved(value).numpy().tobytes())
    return f"{date}-{digest.hexdigest()[:8]}"


if __name__ == "__main__":
    typer.run(train_prior)
