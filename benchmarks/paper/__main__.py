"""`drtl bench paper`: the paper's tables and figures on any target, resumable, into one folder."""

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import torch
import typer
from rich.console import Console

from benchmarks.devices import REPOSITORY, Device, real_device
from benchmarks.paper import fig4, fig6, fig7, table1, table2, table3
from benchmarks.paper.materials import Materials
from benchmarks.paper.output import write
from benchmarks.paper.planning import stages
from benchmarks.paper.real_esrgan import load_real_esrgan
from benchmarks.paper.running import Ticker, make
from benchmarks.paper.scales import SCALES, Extent, ScaleName
from benchmarks.paper.schemes import SCHEMES
from benchmarks.paper.study import Study
from benchmarks.trials import Trials
from drtl_client.errors import BadFolder
from ml.backbones import BACKBONES, BackboneName
from ml.foreign_weights import UnusableWeights
from ml.guidance import Preference
from ml.lpips import load_lpips
from ml.prior import load_prior

PLANS: Final = {
    "table1": table1.plan,
    "table2": table2.plan,
    "table3": table3.plan,
    "fig4": fig4.plan,
    "fig6": fig6.plan,
    "fig7": fig7.plan,
}
Name = TypeVar("Name", bound=str)
PAIRS: Final = REPOSITORY / "../shared/data/pairs"
CLEAN: Final = REPOSITORY / "../shared/data/clean/cc0"
TARGET_HELP: Final = "A target: train/ and test/, each with clean/ and distorted/. Give it once for each."
ESRGAN_HELP: Final = "Published weights, RealESRGAN_x4plus.pth or _x2plus.pth, for a column of Table 2."


def paper(
    scale: Annotated[ScaleName, typer.Option(help="How much to train and measure.")] = "quick",
    only: Annotated[str | None, typer.Option(help=f"Some of {','.join(PLANS)}, between commas.")] = None,
    target: Annotated[list[Path] | None, typer.Option(help=TARGET_HELP)] = None,
    targets: Annotated[Path | None, typer.Option(help="A folder of targets; ../shared/data/pairs by default.")] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Of Table 1; all by default. Give it once for each."),
    ] = None,
    scheme: Annotated[
        list[str] | None,
        typer.Option(help="Of Table 1; all by default. Give it once for each."),
    ] = None,
    ablation_backbone: Annotated[BackboneName, typer.Option(help="Of everything but Table 1.")] = "vdsr",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many; 1 in quick, 3 in standard and paper.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of transfer and of fine-tuning each, instead of the scale's.")
    ] = None,
    transfer_steps: Annotated[int | None, typer.Option(min=1, help="Of transfer, where not as many.")] = None,
    rates: Annotated[
        ScaleName | None, typer.Option(help="Learning rates of another scale; `paper`'s are 1e-4 for all schemes.")
    ] = None,
    transfer_rate: Annotated[
        float | None, typer.Option(min=1e-6, max=1, help="The learning rate of transfer, where it shall be another.")
    ] = None,
    published_sizes: Annotated[
        bool, typer.Option("--published-sizes", help="Cut RCAN and RDN down at no scale.")
    ] = False,
    all_unseen: Annotated[
        bool, typer.Option("--all-unseen", help="Measure on all unseen images, whole, as `paper` does.")
    ] = False,
    shots: Annotated[int, typer.Option(min=1, help="Pairs of each target, but for Fig. 7.")] = 10,
    clean: Annotated[Path | None, typer.Option(help="Photographs that auxiliary distortions are applied to.")] = None,
    prior: Annotated[Path | None, typer.Option(help="Another prior than the one that ships.")] = None,
    prefer: Annotated[Preference, typer.Option(help="By what guided schemes prefer auxiliary tasks.")] = (
        "transferability"
    ),
    real_esrgan: Annotated[Path | None, typer.Option(help=ESRGAN_HELP)] = None,
    lpips: Annotated[
        Path | None, typer.Option(help="Weights of torchvision's alexnet or vgg16, to measure LPIPS.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Of torch; 0 lets it decide.")] = 0,
    output: Annotated[Path | None, typer.Option(help="The folder; benchmarks/results/paper-SCALE by default.")] = None,
    draw: Annotated[bool, typer.Option("--draw", help="Measure nothing; only write tables and figures anew.")] = False,
) -> None:
    """Measure the paper's tables and figures. Every record is kept when it is made; the same command goes on."""
    folder = output or REPOSITORY / f"benchmarks/results/paper-{scale}"
    if draw:
        write(read(folder), folder)
        typer.echo(f"Wrote {folder / 'results.md'}.")
        return
    if threads:
        torch.set_num_threads(threads)
    parts, backbones, schemes = (
        chosen(only),
        known("--backbone", backbone, BACKBONES),
        known("--scheme", scheme, SCHEMES),
    )
    extent = SCALES[scale].of_steps(transfer_steps or steps, steps)
    if rates is not None:
        extent = extent.at_rates_of(SCALES[rates])
    if transfer_rate is not None:
        extent = extent.at_transfer_rate(transfer_rate)
    if published_sizes:
        extent = replace(extent, cut_down=False)
    if all_unseen:
        extent = extent.on_all_that_is_unseen()
    photographs = clean or (CLEAN if CLEAN.is_dir() else None)
    devices = find_targets(target, targets, max(shots, *extent.curve_shots), extent)
    console, ticker = Console(stderr=True), Ticker()
    materials = Materials(folder, extent, photographs, load_prior(prior), ticker)
    try:
        network = load_real_esrgan(real_esrgan) if real_esrgan is not None else None
        distance = load_lpips(lpips) if lpips is not None else None
    except UnusableWeights as error:
        raise typer.BadParameter(str(error)) from error
    count = seeds or extent.plain.seeds
    study = Study(
        materials, devices, backbones, ablation_backbone, range(count), shots, prefer, network, distance, schemes
    )
    trials = Trials(
        folder / "records.json",
        compared(scale, extent, study),
        {"command": shlex.join(["drtl", "bench", "paper", *sys.argv[1:]]), "accelerator": accelerator()},
        say=lambda record: None,
    )
    todo = stages({name: PLANS[name](study) for name in parts}, trials.holds)
    try:
        make(todo, trials, ticker, console)
    except KeyboardInterrupt:
        kept = len(trials.report["trials"])
        said = f"Interrupted. {kept} records are kept in {trials.path}; the same command goes on from there."
        console.print(said, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    trials.save()
    write(trials.report, folder)
    typer.echo(f"Wrote {folder / 'results.md'}, figures/ and records.json beside it.")


def chosen(only: str | None) -> list[str]:
    """The parts asked for, in the paper's order."""
    asked = set(only.split(",")) if only else set(PLANS)
    if unknown := asked - set(PLANS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(PLANS)}", param_hint="--only")
    return [name for name in PLANS if name in asked]


def known(option: str, names: Sequence[str] | None, of: Iterable[Name]) -> list[Name]:
    """Those asked for, in the order of the code's own list."""
    there = list(of)
    if unknown := set(names or []) - set(there):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: known are {', '.join(there)}", param_hint=option)
    return [name for name in there if not names or name in names]


def find_targets(folders: Sequence[Path] | None, of: Path | None, pairs: int, extent: Extent) -> list[Device]:
    """The folders named, those in a folder, or both; none twice by name, since records go by it."""
    found = list(folders or [])
    if of is not None or not found:
        found += sorted(path for path in (of or PAIRS).resolve().glob("*") if path.is_dir())
    if not found:
        raise typer.BadParameter(f"there is no target in {(of or PAIRS).resolve()}", param_hint="--targets")
    names = [path.resolve().name for path in found]
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"two targets have the same name: {', '.join(sorted(names))}", param_hint="--target")
    for path in found:
        for part in ("train/clean", "train/distorted", "test/clean", "test/distorted"):
            if not (path / part).is_dir() or not any((path / part).iterdir()):
                raise typer.BadParameter(f"{path} has no images in {part}/", param_hint="--target")
    try:
        return [real_device(path, pairs, extent.plain.images) for path in found]
    except (ValueError, BadFolder) as error:
        raise typer.BadParameter(str(error), param_hint="--target") from error


def compared(scale: ScaleName, extent: Extent, study: Study) -> dict[str, Any]:
    """What two runs must have in common for their records to stand in one table."""
    clean = study.materials.clean
    settings = {
        "benchmark": "paper",
        "scale": scale,
        **asdict(extent),
        "shots": study.shots,
        "backbone": study.backbone,
        "prefer": study.prefer,
        "prior": study.materials.prior.version,
        "clean": clean.resolve().name if clean is not None else None,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # As they will be read again: no tuples.
    return plain


def accelerator() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def read(folder: Path) -> dict[str, Any]:
    path = folder / "records.json"
    if not path.exists():
        raise typer.BadParameter(f"there are no records in {folder}", param_hint="--output")
    report: dict[str, Any] = json.loads(path.read_text())
    return report


if __name__ == "__main__":
    typer.run(paper)
