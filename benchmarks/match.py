"""How well the match score tells a model's own images from foreign ones, without a clean image, and what it costs.

`python benchmarks/match.py` compares two ways: the descriptor of `ml.match`, and the DRN's node of the image against
what the model makes of it. Everything is measured on images that no model was trained on. It writes one JSON file with
machine, commit and seed.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from benchmarks.devices import (
    REPOSITORY,
    Device,
    known_distortions,
    middle,
    photographs,
    real_devices,
    short_model,
    simulated_devices,
)
from benchmarks.main_job import commit, machine
from ml.backbones import SameSize
from ml.descriptor import Descriptor, describe
from ml.distortions.blurs import gaussian_blur
from ml.distortions.noises import gaussian_noise
from ml.distortions.resampling import down_up
from ml.drn import DistortionRelationNetwork
from ml.images import from_uint8, jpeg, to_uint8
from ml.match import MatchReference, closeness, fingerprint
from ml.metrics import psnr
from ml.pairs import TargetPair
from ml.prior import load_prior
from ml.sampling import generator_for
from ml.windows import windows_of

SHARED = REPOSITORY / "../shared/data"
SIMULATED_AND_TRAINED = 2  # devices beside the real ones that get a network
DRN_WINDOWS = 8  # of an image, of which the DRN sees the middle 64×64
FEW_PAIRS = ("2", "3", "5", "3 or 10")  # "or": models by turns


@dataclass(frozen=True)
class Query:
    """An image to judge: whose it is, in which way it is foreign to that device, and its clean version."""

    device: str
    alteration: str  # empty for the device's own images
    pair: TargetPair

    @property
    def image(self) -> Tensor:
        return from_uint8(self.pair.distorted)


def measure(
    targets: Annotated[Path, typer.Option(help="Folder of real targets.")] = SHARED / "pairs",
    clean: Annotated[Path, typer.Option(help="Folder with cc0/ and unsplash/.")] = SHARED / "clean",
    shots: int = 10,
    images: Annotated[int, typer.Option(help="Unseen images per device and per foreign kind.")] = 10,
    steps: Annotated[int, typer.Option(help="Fine-tuning steps of the models.")] = 60,
    seed: int = 0,
    output: Path = REPOSITORY / "benchmarks/results/match.json",
) -> None:
    """Judge every query by every model, in both ways, and write how often they are right."""
    torch.set_num_threads(1)
    real = real_devices(targets, shots, images)
    devices = real + simulated_devices(clean, shots, images, seed)
    queries = all_queries(devices, real, clean, images, seed)
    typer.echo(f"{len(devices)} devices, {len(queries)} queries")
    report: dict[str, Any] = {
        "benchmark": "match",
        "command": "python benchmarks/match.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "shots": shots,
        "images_per_kind": images,
        "finetune_steps": steps,
        "cost": costs(),
    }

    described = [described_as(query.image) for query in queries]
    references = {device.name: reference_of(device, shots) for device in devices}
    distances = {
        name: [closeness(reference, image).distance for image in described] for name, reference in references.items()
    }
    report["descriptor"] = judged(distances, queries, real)
    report["words"] = words(references, queries, described)
    report["few_pairs"] = {}
    for few in FEW_PAIRS:
        counts = [int(count) for count in few.split(" or ")]
        fewer = {device.name: reference_of(device, counts[index % len(counts)]) for index, device in enumerate(devices)}
        at = {name: [closeness(reference, image).distance for image in described] for name, reference in fewer.items()}
        report["few_pairs"][few] = judged(at, queries, real) | {"words": words(fewer, queries, described)}
    report["small_images"] = {}
    for side in (64, 128, 256):
        small = [described_as(middle(query.image, side)) for query in queries]
        at = {name: [closeness(reference, image).distance for image in small] for name, reference in references.items()}
        report["small_images"][str(side)] = judged(at, queries, real) | {"words": words(references, queries, small)}

    # The other way needs a trained network per device, and runs all of them on every image.
    prior = load_prior()
    trained = devices[: len(real) + SIMULATED_AND_TRAINED]
    networks = {device.name: short_model(device, prior, steps, seed) for device in trained}
    typer.echo("trained")
    nodes = {}
    started = time.process_time()
    for device in trained:
        network = networks[device.name]
        own = [node_of(prior.drn, network, from_uint8(pair.distorted)) for pair in device.train]
        centre = F.normalize(torch.stack(own).mean(dim=0), dim=0)
        nodes[device.name] = [1 - float(centre @ node_of(prior.drn, network, query.image)) for query in queries]
    per_image = (time.process_time() - started) / (len(trained) * (len(queries) + shots))
    report["head_to_head"] = {
        "models": list(networks),
        "descriptor": judged({name: distances[name] for name in networks}, queries, real),
        "drn": judged(nodes, queries, real),
        "drn_cpu_ms_per_image_and_model": 1e3 * per_image,
    }
    report["gain_db_by_word"] = gains(real, networks, references, queries, described)

    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    typer.echo(f"Wrote {output}.")


def all_queries(devices: Sequence[Device], real: Sequence[Device], clean: Path, images: int, seed: int) -> list[Query]:
    """Own images of every device; the same scenes altered; known distortions; clean photographs."""
    queries = [Query(device.name, "", pair) for device in devices for pair in device.test]
    for device in real:
        for index, pair in enumerate(device.test):
            queries.append(Query(device.name, "clean", TargetPair(pair.name, pair.clean, pair.clean)))
            for name, alter in ALTERATIONS.items():
                image = alter(from_uint8(pair.distorted), generator_for(seed, name, index))
                queries.append(Query(device.name, name, TargetPair(pair.name, pair.clean, to_uint8(image))))
    for name, pairs in known_distortions(clean, images, seed).items():
        queries += [Query("photographs", name, pair) for pair in pairs]
    for index, image in enumerate(photographs(clean / "unsplash", images, images)):
        queries.append(Query("photographs", "clean", TargetPair(f"{index}", image, image)))
    return queries


ALTERATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "then JPEG 40": lambda image, generator: jpeg(image, 40),
    "then noise σ 5": lambda image, generator: gaussian_noise(image, 5, generator),
    "then blur σ 1": lambda image, generator: gaussian_blur(image, 1),
    "then half the resolution": lambda image, generator: down_up(image, 2),
}


def reference_of(device: Device, shots: int) -> MatchReference:
    reference = fingerprint([pair.distorted for pair in device.train[:shots]])
    assert reference is not None, "the devices' images have many windows"
    return reference


def judged(distances: dict[str, list[float]], queries: Sequence[Query], real: Sequence[Device]) -> dict[str, Any]:
    """Areas under the ROC curve of own against foreign images, and how often the nearest model is the right one."""
    areas: dict[str, dict[str, float]] = {}
    for name, of_query in distances.items():
        kinds: dict[str, list[float]] = {"own": [], "altered": [], "other_devices": [], "photographs": []}
        for query, distance in zip(queries, of_query, strict=True):
            if query.device == name:
                kinds["altered" if query.alteration else "own"].append(distance)
            elif query.device == "photographs":
                kinds["photographs"].append(distance)
            elif not query.alteration:
                kinds["other_devices"].append(distance)
        own = kinds.pop("own")
        areas[name] = {kind: auc(own, foreign) for kind, foreign in kinds.items() if foreign}
        areas[name]["all"] = auc(own, [distance for foreign in kinds.values() for distance in foreign])
    names = [device.name for device in real]
    return {
        "auc": areas,
        "mean_auc": statistics.fmean(area["all"] for area in areas.values()),
        "auto_accuracy_real": accuracy(distances, queries, names),
        "auto_accuracy_all": accuracy(distances, queries, list(distances)),
    }


def described_as(image: Tensor) -> Descriptor:
    descriptor = describe(windows_of(image))
    assert descriptor is not None, "images of benchmarks are large enough to be described"
    return descriptor


def auc(own: Sequence[float], foreign: Sequence[float]) -> float:
    """The chance that an own image lies nearer than a foreign one; ties count half."""
    nearer = [(one < other) + (one == other) / 2 for one in own for other in foreign]
    return statistics.fmean(nearer)


def accuracy(distances: dict[str, list[float]], queries: Sequence[Query], names: Sequence[str]) -> float:
    """How often the nearest of the named models is the image's own."""
    right = [
        query.device == _nearest({name: distances[name][index] for name in names})
        for index, query in enumerate(queries)
        if query.device in names and not query.alteration
    ]
    return statistics.fmean(right)


def _nearest(distances: dict[str, float]) -> str:
    return min(distances, key=lambda name: distances[name])


def words(
    references: dict[str, MatchReference], queries: Sequence[Query], described: Sequence[Descriptor]
) -> dict[str, dict[str, float]]:
    """The share of own, altered and other foreign images that is called close, near and far."""
    counted: dict[str, list[str]] = {"own": [], "altered": [], "foreign": []}
    for name, reference in references.items():
        for query, image in zip(queries, described, strict=True):
            own = query.device == name
            kind = ("altered" if query.alteration else "own") if own else "foreign"
            if own or query.device == "photographs" or not query.alteration:
                counted[kind].append(closeness(reference, image).word)
    return {
        kind: {word: said.count(word) / len(said) for word in ("close", "near", "far")}
        for kind, said in counted.items()
    }


@torch.inference_mode()
def node_of(drn: DistortionRelationNetwork, network: SameSize, image: Tensor) -> Tensor:
    """The DRN's node of an image with the model's own result for clean, averaged over the middles of its windows."""
    windows = windows_of(image)
    patches = windows[:: max(1, len(windows) // DRN_WINDOWS), :, 32:96, 32:96]  # (n, 3, 64, 64)
    return F.normalize(drn(network(patches).clamp(0, 1), patches).mean(dim=0), dim=0)


def gains(
    real: Sequence[Device],
    networks: dict[str, SameSize],
    references: dict[str, MatchReference],
    queries: Sequence[Query],
    described: Sequence[Descriptor],
) -> dict[str, dict[str, dict[str, float]]]:
    """What each real device's model does to images of every word: mean gain over the input, and how many lose."""
    answer: dict[str, dict[str, dict[str, float]]] = {}
    for device in real:
        by_word: dict[str, list[float]] = {"close": [], "near": [], "far": []}
        for query, image in zip(queries, described, strict=True):
            if query.alteration == "clean":  # Nothing can be gained over a clean image.
                continue
            window, clean = middle(query.image, 192), middle(from_uint8(query.pair.clean), 192)
            with torch.inference_mode():
                restored = networks[device.name](window[None])[0]
            gain = psnr(restored, clean) - psnr(window, clean)
            by_word[closeness(references[device.name], image).word].append(gain)
        answer[device.name] = {
            word: {
                "images": len(gained),
                "mean_gain_db": statistics.fmean(gained),
                "share_that_lose": sum(gain < 0 for gain in gained) / len(gained),
            }
            for word, gained in by_word.items()
            if gained
        }
    return answer


def costs() -> dict[str, float]:
    """CPU milliseconds of sampling and describing an image in memory, median of 15."""
    measured = {}
    for side in (256, 512, 1024, 4096):
        image = torch.rand(3, side, side)
        spent = []
        for _ in range(15):
            started = time.process_time()
            describe(windows_of(image))
            spent.append(time.process_time() - started)
        measured[f"{side}x{side}_cpu_ms"] = 1e3 * statistics.median(spent)
    return measured


if __name__ == "__main__":
    typer.run(measure)
