"""Teaches a prior to rank distortions that came after it: `python -m ml.prior_extension --clean DIR --output FILE`.

The network embeds any distortion, those that it was not trained on too. So prototypes are computed, and an expert is
trained for each distortion that has none, in minutes each; the network, the weights of the backbones, the
prototypes and the experts that there are stay as they are.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from ml.clusters import silhouettes
from ml.distortions import DISTORTIONS
from ml.prior import SHIPPED, Prior, load_prior
from ml.prior_card import made_from, today
from ml.prior_images import photographs_in, training_images
from ml.prior_loops import EXPERT_STEPS, train_experts, training_bars
from ml.prior_training import PROTOTYPE_SAMPLES, usage_errors, version_of, work_beside, write
from ml.relation import compute_prototypes


def extend_prior(
    clean: Annotated[list[Path], typer.Option(help="Folder of clean photographs; give it once for each folder.")],
    output: Annotated[Path, typer.Option(help="The bundle to write.")],
    prior: Annotated[Path, typer.Option(help="The bundle to extend; by default the one that ships.")] = SHIPPED,
    licence: Annotated[str, typer.Option(help="Terms of the photographs, for the card.")] = "unknown",
    seed: int = 0,
    expert_steps: Annotated[int, typer.Option(help="Of each distortion's expert.", min=0)] = EXPERT_STEPS,
    threads: Annotated[int, typer.Option(help="0 lets torch decide.")] = 0,
) -> None:
    """Add prototypes of all distortions that this code knows and the bundle does not.

    The card keeps what the network was trained on (`tasks`) apart from what it was only extended by (`extensions`).
    """
    if threads:
        torch.set_num_threads(threads)
    with usage_errors():
        known = load_prior(prior)
    missing = [name for name in DISTORTIONS if name not in known.prototypes.names]
    names = [*known.prototypes.names, *missing]
    without_expert = [name for name in names if name not in known.experts]
    if not missing and not without_expert:
        typer.echo(f"{prior} knows all {len(names)} distortions already, and has an expert for each.")
        raise typer.Exit
    with usage_errors():
        photographs = list(photographs_in(clean))
    work = work_beside(output)
    images = training_images(photographs, seed)
    prototypes = known.prototypes
    if missing:
        prototypes = prototypes.joined_by(compute_prototypes(known.drn, images, missing, PROTOTYPE_SAMPLES, seed))
    with training_bars() as progress:
        trained = train_experts(without_expert, images, seed, expert_steps, work, progress)
    experts = known.experts | trained
    kept_together = silhouettes(prototypes.samples)
    extension = {
        "date": today(),
        "of": known.version,
        "tasks": missing,
        "experts": without_expert,
        "expert_steps": expert_steps,
        **made_from(photographs, licence, seed),
        "silhouettes": {name: round(kept_together[prototypes.names.index(name)], 3) for name in prototypes.names},
    }
    card = known.card | {"extensions": [*known.card.get("extensions", []), extension]}
    version = version_of(extension["date"], prototypes, known.thetas, experts)
    write(
        output,
        Prior(version, known.drn, prototypes, known.thetas, card, experts),
        f": {len(missing)} more distortions{''.join(f', {name}' for name in missing)}; "
        f"{len(without_expert)} more experts",
    )


if __name__ == "__main__":
    typer.run(extend_prior)
