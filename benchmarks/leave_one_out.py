"""Whether a distortion that the DRN was not trained on still forms its own cluster.

`python benchmarks/leave_one_out.py` trains a network for each distortion left out, on the others, and embeds samples
of all on photographs that it has not seen: single patches; pairs of images, as the service relates them; and pairs that
were all distorted at one strength, as by one device. It reports for the one left out the silhouette of its samples,
what share of their nearest neighbours are of their own kind, and whose the others are; beside it the same for a network
that was trained on all. After every network the JSON file is written; the same command goes on where it was stopped.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from jaxtyping import Float
from torch import Tensor

from benchmarks.devices import REPOSITORY, middle
from benchmarks.main_job import commit, machine
from ml.clusters import neighbours, silhouettes
from ml.distortions import DISTORTIONS, PAPERS
from ml.drn import DistortionRelationNetwork, DrnShape, kind_in
from ml.edges import Edges
from ml.images import from_uint8, to_uint8
from ml.pairs import TargetPair
from ml.precision import device
from ml.prior_images import load_photographs
from ml.prior_loops import train_drn
from ml.relation import compute_prototypes, relate
from ml.sampling import generator_for

SHARED = REPOSITORY / "../shared/data"
NOBODY = "none"
SIDE = 320  # Of the middles of photographs that are distorted whole.


def samples_of(
    drn: DistortionRelationNetwork, images: list[Tensor], names: Sequence[str], count: int, seed: int
) -> dict[str, Float[Tensor, "k n d"]]:
    """Nodes of every distortion, embedded in each way: n patches, n pairs, n pairs of one device.

    The kinds alone, since strengths are not learnt, and spread a cluster over its range of decibels; of devices, which
    have one strength, also with it.
    """
    prototypes = compute_prototypes(drn, images, names, count, seed)
    pairs, devices = [], []
    for name in names:
        drawn = distorted_pairs(images, name, None, count, seed)
        pairs.append(kind_in(relate(drn, prototypes, drawn, seed).pair_nodes))
        middling = (DISTORTIONS[name].weakest + DISTORTIONS[name].strongest) / 2
        alike = distorted_pairs(images, name, middling, count, seed)
        devices.append(relate(drn, prototypes, alike, seed).pair_nodes)
    nodes = torch.stack(devices)
    return {
        "patches": kind_in(prototypes.samples),
        "pairs": torch.stack(pairs),
        "devices": kind_in(nodes),
        "devices with strength": nodes,
    }


def distorted_pairs(images: list[Tensor], name: str, strength: float | None, count: int, seed: int) -> list[TargetPair]:
    """The middles of the first photographs, the same ones for every distortion; None draws a strength for each."""
    pairs = []
    for index in range(count):
        clean, generator = middle(images[index % len(images)], SIDE), generator_for(seed, f"pair/{name}", index)
        image = from_uint8(clean)
        kind = DISTORTIONS[name]
        spoiled = kind.apply(image, generator) if strength is None else kind.at(image, strength, generator)
        pairs.append(TargetPair(str(index), clean, to_uint8(spoiled)))
    return pairs


def clusters(samples: Float[Tensor, "k n d"], names: Sequence[str]) -> dict[str, Any]:
    """For every distortion: silhouette, the share of neighbours of its own kind, and the strangers among them."""
    silhouette = silhouettes(samples)
    near: dict[str, Any] = {}
    for place, name in enumerate(names):
        shares = neighbours(samples, place, max(1, min(10, samples.shape[1] - 1)))
        others = sorted(((float(shares[i]), names[i]) for i in range(len(names)) if i != place), reverse=True)
        near[name] = {
            "silhouette": round(silhouette[place], 4),
            "own_neighbours": round(float(shares[place]), 4),
            "strangers": {other: round(share, 4) for share, other in others[:3] if share > 0},
        }
    return near


def measure(
    output: Annotated[Path, typer.Option(help="The JSON to write, and to go on from.")] = REPOSITORY
    / "benchmarks/results/leave_one_out.json",
    train: Annotated[Path, typer.Option(help="Photographs to train on.")] = SHARED / "clean/cc0",
    unseen: Annotated[Path, typer.Option(help="Photographs to embed samples of.")] = SHARED / "clean/unsplash",
    left_out: Annotated[list[str] | None, typer.Option(help="Give it once for each; by default the paper's.")] = None,
    learn: Annotated[Literal["paper", "all"], typer.Option(help="What is trained on but for the left out.")] = "paper",
    steps: int = 500,
    samples: Annotated[int, typer.Option(min=2)] = 32,
    width: Annotated[float, typer.Option(help="Of VGG-11's channel counts.")] = 0.5,
    memory_nodes: Annotated[int, typer.Option(min=0)] = 32,
    affinity: Literal["scaled", "literal"] = "scaled",
    edges: Edges = "cosine",
    seed: int = 0,
) -> None:
    """Train a network for each distortion left out, and one that leaves out none."""
    tasks = list(PAPERS if learn == "paper" else DISTORTIONS)
    shape = DrnShape(width=width, memory_nodes=memory_nodes, affinity=affinity, edges=edges)
    chosen = [NOBODY, *(left_out or tasks)]
    if unknown := set(chosen) - set(tasks) - {NOBODY}:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: trained on are {', '.join(tasks)}")
    asked = {
        "learn": learn, "steps": steps, "samples": samples, "width": width, "memory_nodes": memory_nodes,
        "affinity": affinity, "edges": edges, "seed": seed,
    }  # fmt: skip
    report: dict[str, Any] = {"benchmark": "leave-one-out", "asked": asked, "networks": {}}
    if output.exists():
        before = json.loads(output.read_text())
        if before["asked"] != asked:
            raise typer.BadParameter(f"{output} has other options: {before['asked']}; name another --output")
        report["networks"] = before["networks"]
    torch.set_num_threads(1)
    images, others = load_photographs([train]), load_photographs([unseen])
    for name in chosen:
        if name in report["networks"]:
            continue
        drn, _ = train_drn(shape, images, [task for task in tasks if task != name], seed, steps)
        nodes = samples_of(drn.to(device()), others, list(DISTORTIONS), samples, seed)
        report["networks"][name] = {way: clusters(each, list(DISTORTIONS)) for way, each in nodes.items()}
        report |= {"date": datetime.now(UTC).isoformat(), "commit": commit(), "machine": machine()}
        partial = output.with_suffix(".partial")
        partial.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        partial.replace(output)
        own = {way: near.get(name, "a network of all") for way, near in report["networks"][name].items()}
        typer.echo(f"without {name}: {own}")


if __name__ == "__main__":
    typer.run(measure)
