"""How often a target unlike everything known is taken for related, and the other way round.

`python benchmarks/unrelated.py` makes few-shot targets out of photographs: each known distortion at three strengths,
which should be called related, and foreign ones, weak and strong, which should not. It relates each by the shipped
prior and writes one JSON file with machine, commit and seed. `γ alone` is the verdict by γ without the shares of the
difference. Foreign kinds that the rule was not made for are counted apart. Real targets are added where they are there.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from benchmarks.devices import REPOSITORY, photographs, real_devices
from benchmarks.main_job import commit, machine
from ml.distortions import DISTORTIONS
from ml.images import from_uint8, to_uint8
from ml.pairs import TargetPair
from ml.prior import load_prior
from ml.relation import LEAST_RELATION, relate
from ml.sampling import generator_for

SHARED = REPOSITORY / "../shared/data"
STRENGTHS: Final = (0.3, 0.6, 1.0)
Foreign = Callable[[Tensor, float], Tensor]


def coordinates(image: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of every pixel, −1 to 1."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return x, y


def moved(image: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Resampled at (x + dx, y + dy), both in pixels."""
    x, y = coordinates(image)
    height, width = image.shape[-2:]
    grid = torch.stack([x + dx * 2 / width, y + dy * 2 / height], dim=-1)
    return F.grid_sample(image[None], grid[None], mode="bicubic", padding_mode="border", align_corners=True)[0]


def shift(image: Tensor, a: float) -> Tensor:
    x, _ = coordinates(image)
    return moved(image, torch.full_like(x, 4 * a), torch.full_like(x, 2 * a))


def waves(image: Tensor, a: float) -> Tensor:
    x, y = coordinates(image)
    return moved(image, 6 * a * torch.sin(5 * y + 1), 6 * a * torch.sin(4 * x))


def turn(image: Tensor, a: float) -> Tensor:
    x, y = coordinates(image)
    height, width = image.shape[-2:]
    angle = torch.deg2rad(torch.tensor(4 * a))
    dx = (x * (angle.cos() - 1) - y * angle.sin()) * width / 2
    return moved(image, dx, (x * angle.sin() + y * (angle.cos() - 1)) * height / 2)


def barrel(image: Tensor, a: float) -> Tensor:
    """A lens's distortion, grown with the square of the distance from the middle."""
    x, y = coordinates(image)
    squared = x**2 + y**2
    return moved(image, 8 * a * x * squared, 8 * a * y * squared)


def vignette(image: Tensor, a: float) -> Tensor:
    x, y = coordinates(image)
    return image * (1 - a * (x**2 + y**2) / 2)


# Each at a strength of 1 and of 0.3.
FOREIGN: Final[dict[str, Foreign]] = {
    "brightness": lambda image, a: image + 0.15 * a,
    "exposure": lambda image, a: image * (1 - 0.3 * a),
    "colour cast": lambda image, a: image * (1 + a * torch.tensor([0.2, 0.0, -0.2])[:, None, None]),
    "tone curve": lambda image, a: image ** (1 + 0.6 * a),
    "contrast": lambda image, a: (image - 0.5) * (1 + 0.6 * a) + 0.5,
    "haze": lambda image, a: image * (1 - 0.5 * a) + 0.35 * a,
    "inversion": lambda image, a: image + a * (1 - 2 * image),
    "vignette": vignette,
    "shift": shift,
    "waves": waves,
    "turn": turn,
    "barrel": barrel,
}
NOT_MADE_FOR: Final[dict[str, Foreign]] = {
    "stuck pixels": lambda image, a: torch.where(_chosen(image.shape[1:], 0.1 * a), torch.ones(()), image),
    "missing blocks": lambda image, a: torch.where(_blocks(image, 0.2 * a), torch.zeros(()), image),
    "black and white": lambda image, a: image + a * (image.mean(dim=0, keepdim=True) - image),
    "mirrored": lambda image, _: image.flip(2),
}


def _chosen(shape: Sequence[int], share: float) -> Tensor:
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(0)) < share


def _blocks(image: Tensor, share: float) -> Tensor:
    coarse = _chosen((1, 1, image.shape[1] // 16, image.shape[2] // 16), share).float()
    return F.interpolate(coarse, image.shape[1:], mode="nearest")[0, 0] > 0


@dataclass(frozen=True)
class Case:
    """A few-shot target, and whether it is like something known."""

    kind: str
    name: str
    strength: float
    pairs: list[TargetPair]


def cases(images: Sequence[Tensor], shots: int, seed: int) -> list[Case]:
    """Every kind at every strength, on `shots` photographs each, by turns."""
    kinds: list[tuple[str, str, float, Callable[[Tensor, int], Tensor]]] = [
        ("known", name, strength, partial(_known, name, strength, seed))
        for name in DISTORTIONS
        for strength in STRENGTHS
    ]
    for kind, table in (("foreign", FOREIGN), ("not made for", NOT_MADE_FOR)):
        kinds += [
            (kind, name, strength, partial(_foreign, foreign, strength))
            for name, foreign in table.items()
            for strength in (0.3, 1.0)
        ]
    made = []
    for number, (kind, name, strength, distorted) in enumerate(kinds):
        shown = [images[(number * shots + place) % len(images)] for place in range(shots)]
        pairs = [TargetPair(f"{i}", each, to_uint8(distorted(from_uint8(each), i))) for i, each in enumerate(shown)]
        made.append(Case(kind, name, strength, pairs))
    return made


def _known(name: str, strength: float, seed: int, image: Tensor, place: int) -> Tensor:
    return DISTORTIONS[name].at(image, strength, generator_for(seed, f"{name}/{strength}", place))


def _foreign(distort: Foreign, strength: float, image: Tensor, place: int) -> Tensor:
    """The same wherever it is."""
    return distort(image, strength)


def measure(
    output: Annotated[Path, typer.Option(help="The JSON to write.")] = REPOSITORY / "benchmarks/results/unrelated.json",
    clean: Annotated[Path, typer.Option(help="Clean photographs.")] = SHARED / "clean/unsplash",
    targets: Annotated[Path, typer.Option(help="Real targets.")] = SHARED / "pairs",
    photographs_shown: Annotated[int, typer.Option("--photographs")] = 24,
    shots: int = 3,
    seed: int = 0,
) -> None:
    """Relate every case and count what was taken for what."""
    torch.set_num_threads(1)
    prior = load_prior()
    images = [image[:, 64:-64, 64:-64] for image in photographs(clean, 0, photographs_shown)]
    all_cases = cases(images, shots, seed)
    if targets.exists():
        all_cases += [Case("real", device.name, 1.0, device.train) for device in real_devices(targets, 10, 0)]
    rows: list[dict[str, Any]] = []
    for case in all_cases:
        relation = relate(prior.drn, prior.prototypes, case.pairs, seed)
        rows.append(
            {
                "kind": case.kind,
                "name": case.name,
                "strength": case.strength,
                "verdict": relation.verdict,
                "fallback": relation.fallback,
                "in_areas": round(relation.in_areas, 4),
                "displaced": round(relation.displaced, 4),
                "gamma": round(float(relation.gamma.max()), 4),
                "nearest": relation.prototypes.names[int(relation.gamma.argmax())],
            }
        )
    report = {
        "benchmark": "unrelated",
        "date": datetime.now(UTC).isoformat(),
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "shots": shots,
        "prior": prior.version,
        "called_unrelated": {
            kind: {
                "cases": len(of_kind),
                "by_rule": sum(row["verdict"] == "unrelated" for row in of_kind),
                "by_gamma_alone": sum(row["gamma"] < LEAST_RELATION for row in of_kind),
            }
            for kind in ("known", "real", "foreign", "not made for")
            if (of_kind := [row for row in rows if row["kind"] == kind])
        },
        "cases": rows,
    }
    output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    typer.echo(f"Wrote {output}: {report['called_unrelated']}")


if __name__ == "__main__":
    typer.run(measure)
