"""Teaches a prior to rank distortions that came after it: `python -m ml.prior_extension --clean DIR --output FILE`.

The network embeds any distortion, those that it was not trained on too. So only prototypes are computed, in a minute or
two; the network, the weights of the backbones and the prototypes that there are stay as they are.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import torch
import typer

from ml.clusters import silhouettes
from ml.distortions import DISTORTIONS
from ml.prior import SHIPPED, Prior, load_prior, save_prior
from ml.prior_training import GENERATED, PROTOTYPE_SAMPLES, generated_images, load_photographs, version_of
from ml.relation import compute_prototypes


def extend_prior(
    clean: Annotated[list[Path], typer.Option(help="Folder of clean photographs; give it once for each folder.")],
    output: Annotated[Path, typer.Option(help="The bundle to write.")],
    prior: Annotated[Path, typer.Option(help="The bundle to extend; by default the one that ships.")] = SHIPPED,
    licence: Annotated[str, typer.Option(help="Terms of the photographs, for the card.")] = "unknown",
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="0 lets torch decide.")] = 0,
) -> None:
    """Add prototypes of all distortions that this code knows and the bundle does not.

    The card keeps what the network was trained on (`tasks`) apart from what it was only extended by (`extensions`).
    """
    if threads:
        torch.set_num_threads(threads)
    known = load_prior(prior)
    missing = [name for name in DISTORTIONS if name not in known.prototypes.names]
    if not missing:
        typer.echo(f"{prior} knows all {len(known.prototypes.names)} distortions already.")
        raise typer.Exit
    photographs = load_photographs(clean)
    images = photographs + generated_images(seed)
    added = compute_prototypes(known.drn, images, missing, PROTOTYPE_SAMPLES, seed)
    prototypes = known.prototypes.joined_by(added)
    today = datetime.now(UTC).date().isoformat()
    kept_together = silhouettes(prototypes.samples)
    extension = {
        "date": today,
        "of": known.version,
        "tasks": missing,
        "photographs": len(photographs),
        "generated": GENERATED,
        "licence": licence,
        "seed": seed,
        "torch": torch.__version__,
        "silhouettes": {name: round(kept_together[prototypes.names.index(name)], 3) for name in prototypes.names},
    }
    card = known.card | {"extensions": [*known.card.get("extensions", []), extension]}
    version = version_of(today, prototypes, known.thetas)
    save_prior(output, Prior(version, known.drn, prototypes, known.thetas, card))
    typer.echo(
        f"Wrote {output} ({output.stat().st_size / 2**20:.1f} MiB), version {version}: "
        f"{len(missing)} more distortions, {', '.join(missing)}."
    )


if __name__ == "__main__":
    typer.run(extend_prior)
