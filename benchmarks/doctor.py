"""The pair doctor, measured on known perturbations of real pairs.

`python -m benchmarks.doctor [--part NAME]…` writes one JSON file with machine, commit and seed; a part that is not run
keeps its place in the file. A target is a folder with train/ and test/, each with clean/ and distorted/.
"""

import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import cos, hypot, pi, radians, sin
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from app.doctor import fixes
from app.doctor.duplicates import alike
from app.doctor.examination import examine
from app.doctor.fingerprint import fingerprint
from app.doctor.measurements import Similarity
from app.doctor.pixels import Pixels, grey
from app.doctor.registration import register
from app.doctor.verdict import (
    COLOUR_MATTERS_LEVELS,
    CORNER_MATTERS_PX,
    SHIFT_MATTERS_PX,
    findings,
)
from benchmarks.main_job import REPOSITORY, commit, machine
from drtl_client import pairs_in
from ml.images import decode
from ml.job import run_job
from ml.metrics import psnr
from ml.model_file import unpack
from ml.options import TrainingOptions
from ml.pairs import PairFile
from ml.preview import Preview
from ml.tiling import restore_tiled

SIDE = 416  # of what is examined, in pixels
TRAINED_SIDE = 384  # of that, which is left of every pair after it was aligned
MARGIN = 24  # around it, so that what is moved in is real and not made up
PARTS = ("registration", "findings", "duplicates", "time", "training")
CHECKED = ("shifted", "rotated", "colour", "swapped", "unrelated")


@dataclass(frozen=True)
class Case:
    """A pair of images with what is known to be wrong with it."""

    clean: Pixels
    distorted: Pixels
    truth: frozenset[str]


def measure(
    targets: Annotated[Path, typer.Option(help="Folder of targets.")] = REPOSITORY / "../shared/data/pairs",
    part: Annotated[list[str] | None, typer.Option(help="What to measure; everything by default.")] = None,
    pairs: Annotated[int, typer.Option(help="Pairs of each target.")] = 8,
    steps: Annotated[int, typer.Option(help="Fine-tuning steps of each training.")] = 120,
    training_target: Annotated[str, typer.Option(help="Whose pairs are trained on.")] = "city100_nikon",
    seed: int = 0,
    output: Path = REPOSITORY / "benchmarks/results/doctor.json",
) -> None:
    """Measure the parts and write what was measured, after each of them."""
    torch.set_num_threads(1)
    folders = sorted(folder for folder in targets.resolve().iterdir() if folder.is_dir())
    real = {folder.name: [_read(pair) for pair in pairs_in(folder / "train")[:pairs]] for folder in folders}
    measurers: dict[str, Callable[[], Any]] = {
        "registration": lambda: {name: registration(of, seed) for name, of in real.items()},
        "findings": lambda: precision_and_recall(real, seed),
        "duplicates": lambda: duplicates(real, seed),
        "time": lambda: seconds_per_pair(real),
        "training": lambda: training(targets.resolve() / training_target, pairs, steps, seed),
    }
    for name in part or PARTS:
        measured = measurers[name]()
        report = json.loads(output.read_text()) if output.exists() else {"parts": {}}
        report |= {"machine": machine(), "seed": seed, "pairs": pairs}
        report["parts"][name] = {
            "command": f"python -m benchmarks.doctor --part {name}",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "measured": measured,
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")
        typer.echo(json.dumps({name: measured}, indent=1))


def _read(pair: Any) -> tuple[Pixels, Pixels]:
    clean, distorted = (
        np.asarray(Image.open(path).convert("RGB"), np.float32) for path in (pair.clean, pair.distorted)
    )
    return clean, distorted


def moved(image: Pixels, transform: Similarity, gain: NDArray[np.float64] | float = 1.0) -> Pixels:
    """The central part of an image after it was moved and brightened, by splines of the fifth order, in 8 bits."""
    side = SIDE + 2 * MARGIN
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    inverse = np.linalg.inv(transform.matrix())
    centre = np.array([side - 1, side - 1]) / 2
    offset = centre - inverse @ (centre + np.array([transform.y, transform.x]))
    channels = [
        ndimage.affine_transform(channel, inverse, offset, order=5, mode="mirror")
        for channel in np.moveaxis(image[top : top + side, left : left + side].astype(np.float64), 2, 0)
    ]
    inner = np.stack(channels, axis=2)[MARGIN:-MARGIN, MARGIN:-MARGIN] * gain
    rounded: Pixels = np.clip(np.round(inner), 0, 255).astype(np.float32)
    return rounded


STILL = Similarity()


def _random_transform(random: np.random.Generator, *, turn: bool) -> Similarity:
    length, direction = random.uniform(0, 8), random.uniform(0, 2 * pi)
    return Similarity(length * cos(direction), length * sin(direction), float(random.uniform(-2, 2)) if turn else 0.0)


def registration(pairs: list[tuple[Pixels, Pixels]], seed: int) -> dict[str, Any]:
    """How far the found transform is from the known one, beyond what the unmoved pair has of its own.

    Half of the trials shift by 0 to 8 px, half also turn by up to 2°; all change each channel's gain by up to 20 %.
    """
    random = np.random.default_rng(seed)
    shift, angle, scale, gain, own = [], [], [], [], []
    for clean, distorted in pairs:
        still = moved(clean, STILL)
        base = examine(still, moved(distorted, STILL))
        residual = base.registration.transform
        own.append(hypot(residual.x, residual.y))
        for turn in (False, True, False, True):
            known = _random_transform(random, turn=turn)
            gains = random.uniform(0.8, 1.2, 3)
            measured = examine(still, moved(distorted, known, gains))
            found = measured.registration.transform
            expected = known.matrix() @ np.array([residual.y, residual.x]) + np.array([known.y, known.x])
            shift.append(hypot(found.y - expected[0], found.x - expected[1]))
            angle.append(abs(found.rotation_deg - known.rotation_deg - residual.rotation_deg))
            scale.append(abs(found.scale / residual.scale - 1))
            gain += [
                abs(measured.colour.gain[channel] / base.colour.gain[channel] - gains[channel]) for channel in range(3)
            ]
    errors = {"shift_px": shift, "rotation_deg": angle, "scale": scale, "gain": gain}
    return {
        "trials": len(shift),
        "own_residual_px": _spread(own),
        **{name: _spread(values) for name, values in errors.items()},
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(float(np.median(values)), 5),
        "p95": round(float(np.percentile(values, 95)), 5),
        "max": round(max(values), 5),
    }


def cases(real: dict[str, list[tuple[Pixels, Pixels]]], seed: int) -> Iterator[Case]:
    """Every pair as it is, and with each thing done to it that the doctor should find."""
    random = np.random.default_rng(seed)
    for pairs in real.values():
        for index, (clean, distorted) in enumerate(pairs):
            still, other = moved(clean, STILL), moved(distorted, STILL)
            own = register(grey(still), grey(other)).transform
            native = _truth(own, STILL, other, 1.0)
            yield Case(still, other, native)
            yield Case(other, still, native | {"swapped"})
            unlike = moved(pairs[(index + len(pairs) // 2) % len(pairs)][1], STILL)
            yield Case(still, unlike, frozenset({"unrelated"}))
            for turn in (False, True):
                known = _random_transform(random, turn=turn)
                yield Case(still, moved(distorted, known), _truth(own, known, other, 1.0))
            small = Similarity(*random.uniform(-1, 1, 2))
            yield Case(still, moved(distorted, small), _truth(own, small, other, 1.0))
            for gain in (float(random.uniform(0.8, 1.2)), random.uniform(0.8, 1.2, 3)):
                yield Case(still, moved(distorted, STILL, gain), _truth(own, STILL, other, gain))


def _truth(own: Similarity, known: Similarity, image: Pixels, gain: NDArray[np.float64] | float) -> frozenset[str]:
    """What is wrong after `known` was done to a pair that was off by `own`; a border case counts like any other."""
    shift = known.matrix() @ np.array([own.y, own.x]) + np.array([known.y, known.x])
    wrong = set()
    if hypot(*shift) >= SHIFT_MATTERS_PX:
        wrong.add("shifted")
    if radians(abs(known.rotation_deg + own.rotation_deg)) * hypot(SIDE, SIDE) / 2 >= CORNER_MATTERS_PX:
        wrong.add("rotated")
    if float(np.mean(np.abs(image * gain - image))) >= COLOUR_MATTERS_LEVELS:
        wrong.add("colour")
    return frozenset(wrong)


def precision_and_recall(real: dict[str, list[tuple[Pixels, Pixels]]], seed: int) -> dict[str, Any]:
    """For each finding: of the cases that have it how many are found, and of those found how many have it."""
    counts = {code: {"right": 0, "wrong": 0, "missed": 0} for code in CHECKED}
    rejected = total = 0
    for case in cases(real, seed):
        found = {finding.code for finding in findings(examine(case.clean, case.distorted))}
        clean_bill = not case.truth & {"swapped", "unrelated"}
        total += clean_bill
        rejected += clean_bill and bool(found & {"swapped", "unrelated", "blank", "identical"})
        for code in CHECKED:
            if "unrelated" in case.truth and code != "unrelated":
                continue
            kind = {(True, True): "right", (True, False): "wrong", (False, True): "missed"}.get(
                (code in found, code in case.truth)
            )
            if kind is not None:
                counts[code][kind] += 1
    table = {
        code: {
            **count,
            "precision": round(count["right"] / max(1, count["right"] + count["wrong"]), 4),
            "recall": round(count["right"] / max(1, count["right"] + count["missed"]), 4),
        }
        for code, count in counts.items()
    }
    return {"findings": table, "trainable_pairs": total, "trainable_pairs_rejected": rejected}


def duplicates(real: dict[str, list[tuple[Pixels, Pixels]]], seed: int) -> dict[str, Any]:
    """Each clean image beside a second take of it: moved by up to 8 px, brighter or darker, with noise."""
    random = np.random.default_rng(seed)
    prints, scene = [], []
    for name, pairs in real.items():
        for index, (clean, _) in enumerate(pairs):
            take = moved(clean, _random_transform(random, turn=True), float(random.uniform(0.8, 1.2)))
            noisy = np.clip(take + random.normal(0, 10, take.shape), 0, 255).astype(np.float32)
            prints += [fingerprint(grey(moved(clean, STILL))), fingerprint(grey(noisy))]
            scene += [f"{name}/{index}"] * 2
    same = alike(prints)
    found = {(one, other) for one, others in enumerate(same) for other in others if one < other}
    true = {(one, one + 1) for one in range(0, len(prints), 2)}
    return {
        "pairs_of_images": len(prints) * (len(prints) - 1) // 2,
        "precision": round(len(found & true) / max(1, len(found)), 4),
        "recall": round(len(found & true) / len(true), 4),
    }


def seconds_per_pair(real: dict[str, list[tuple[Pixels, Pixels]]]) -> dict[str, float]:
    """Processor seconds of one examination, at each target's own size, the median over its pairs."""
    measured = {}
    for name, pairs in real.items():
        taken = []
        for clean, distorted in pairs:
            started = time.process_time()
            examine(clean, distorted)
            taken.append(time.process_time() - started)
        height, width = pairs[0][0].shape[:2]
        measured[f"{name} {width}×{height}"] = round(statistics.median(taken), 3)
    return measured


class _Unwatched:
    """A follower that does not care."""

    def progress(self, phase: str, fraction: float, **facts: float | str | Tensor) -> None: ...

    def graph(self, graph: dict[str, Any]) -> None: ...

    def checkpoint(self, write: Callable[[Path], None]) -> None: ...

    def preview(self, look: Callable[[], Preview]) -> None: ...


def training(target: Path, count: int, steps: int, seed: int) -> dict[str, Any]:
    """Fine-tuning from nothing on pairs as they are, on pairs shifted by 3 px, and on those after `align`.

    The clean image is the one that is moved, and all are cut to one place and size: the trainings draw the same crops
    of the same distorted pixels.
    """
    random = np.random.default_rng(seed)
    sets: dict[str, list[tuple[Pixels, Pixels]]] = {"unshifted": [], "shifted": [], "aligned": []}
    for pair in pairs_in(target / "train")[:count]:
        clean, distorted = _read(pair)
        direction = random.uniform(0, 2 * pi)
        other = moved(distorted, STILL)
        off = moved(clean, Similarity(3 * cos(direction), 3 * sin(direction)))
        found = examine(off, other).registration.transform
        centre = ((SIDE - 1) / 2, (SIDE - 1) / 2)
        mended = fixes.align(off.astype(np.uint8), other.astype(np.uint8), found, centre, 1)
        top, left = _place_of(mended[1], other.astype(np.uint8))
        place = (slice(top, top + TRAINED_SIDE), slice(left, left + TRAINED_SIDE))
        start = (slice(0, TRAINED_SIDE), slice(0, TRAINED_SIDE))
        sets["unshifted"].append((moved(clean, STILL)[place], other[place]))
        sets["shifted"].append((off[place], other[place]))
        sets["aligned"].append((mended[0][start].astype(np.float32), mended[1][start].astype(np.float32)))
    unseen = [
        [decode(path.read_bytes()).pixels for path in (p.clean, p.distorted)] for p in pairs_in(target / "test")[:10]
    ]
    unseen = [[image[:, 96:416, 96:416] for image in pair] for pair in unseen]
    rows: dict[str, Any] = {"target": target.name, "steps": steps, "test_pairs": len(unseen)}
    rows["input_db"] = statistics.fmean(psnr(distorted, clean) for clean, distorted in unseen)
    for name, kind, loss in (
        ("unshifted", "unshifted", "l1"),
        ("shifted_aligned", "aligned", "l1"),
        ("shifted", "shifted", "l1"),
        ("shifted_tolerant_loss", "shifted", "shift_tolerant"),
    ):
        files = [PairFile(f"{i:03}", _png(clean), _png(distorted)) for i, (clean, distorted) in enumerate(sets[kind])]
        options = TrainingOptions(scheme="baseline", finetune_steps=steps, seed=seed, loss=loss)  # type: ignore[arg-type]
        path = Path("/tmp") / f"doctor-{name}.safetensors"  # noqa: S108 - read back on the next line
        path.write_bytes(run_job(files, options, _Unwatched()).weights)
        network, _ = unpack(path)
        path.unlink()
        rows[f"{name}_db"] = statistics.fmean(psnr(restore_tiled(network, dist), clean) for clean, dist in unseen)
        typer.echo(f"{name}: {rows[f'{name}_db']:.3f} dB")
    rows["lost_by_shift_and_align_db"] = rows["unshifted_db"] - rows["shifted_aligned_db"]
    return rows


def _place_of(part: NDArray[np.uint8], whole: NDArray[np.uint8]) -> tuple[int, int]:
    """Where the part was cut out of the whole."""
    height, width = part.shape[:2]
    return next(
        (top, left)
        for top in range(whole.shape[0] - height + 1)
        for left in range(whole.shape[1] - width + 1)
        if np.array_equal(whole[top : top + height, left : left + width], part)
    )


def _png(image: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "PNG", compress_level=1)
    return file.getvalue()


if __name__ == "__main__":
    typer.run(measure)
