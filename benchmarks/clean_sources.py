"""What each source of clean images is worth: a folder of photographs, the clean halves of the pairs, dead leaves.

`python benchmarks/clean_sources.py --use job` transfers from nothing on distorted images of each source, guided as in a
job, and `--use prior` pre-trains weights on them as `drtl prior train` does; then the pairs of every real target
fine-tune, and unseen images are measured. Interrupted, it goes on where it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from torch import Tensor

from benchmarks.devices import REPOSITORY, Device, real_devices
from benchmarks.trials import LEAST_SIDE, SCALES, Bench, Trials, one_thread, related_tasks, settings
from ml.backbones import build
from ml.distortions import PAPERS
from ml.guidance import guided
from ml.images import load_folder
from ml.job import dead_leaves_images
from ml.options import PRESETS, TrainingOptions
from ml.precision import device
from ml.prior import Prior, load_prior
from ml.prior_images import generated_images, load_photographs
from ml.prior_loops import train_network, training_bars
from ml.transfer import TransferSchedule

Use = Literal["job", "prior"]
BACKBONE: Final = "vdsr"
UNSHUFFLE: Final = 2
PRIOR_STEPS: Final = 2_000
PRIOR_RATE: Final = 6e-4  # Of the prior that ships.
NOTHING: Final = "nothing"
LEAVES, PAIRS, CC0, UNSPLASH = "dead leaves", "clean halves of the pairs", "44 photographs", "60 others"
# What a prior has learnt from is the same for all targets, so their pairs are no source of it.
SOURCES: Final[dict[Use, list[tuple[str, ...]]]] = {
    "job": [(LEAVES,), (PAIRS,), (PAIRS, LEAVES), (CC0,), (CC0, UNSPLASH), (CC0, PAIRS, LEAVES)],
    "prior": [(LEAVES,), (CC0,), (UNSPLASH,), (CC0, LEAVES), (CC0, UNSPLASH, LEAVES)],
}


def measure(
    use: Annotated[Use, typer.Option(help="A job's transfer, or a prior's training.")] = "job",
    scale: Annotated[Literal["smoke", "quick", "standard"], typer.Option(help="How much to train.")] = "quick",
    seeds: Annotated[int, typer.Option(min=1)] = 1,
    targets: Annotated[Path, typer.Option(help="Folder of real targets.")] = REPOSITORY / "../shared/data/pairs",
    clean: Annotated[Path, typer.Option(help="Folder of clean/cc0 and clean/unsplash.")] = REPOSITORY
    / "../shared/data/clean",
    shots: int = 10,
    output: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/clean-sources-USE.json.")] = None,
) -> None:
    """Train on every source for every target with every seed, and without a transfer."""
    one_thread()
    path = output or REPOSITORY / f"benchmarks/results/clean-sources-{use}.json"
    command = f"python benchmarks/clean_sources.py --use {use} --scale {scale} --seeds {seeds}"
    steps = 2 if scale == "smoke" else PRIOR_STEPS
    extent = replace(SCALES[scale], seeds=seeds)
    if use == "prior":
        extent = replace(extent, transfer_steps=steps)
    about = settings("clean_sources", command, scale, shots, extent) | {"use": use, "learning_rate": PRIOR_RATE}
    trials = Trials(path, about)
    prior = load_prior()
    work = path.with_name(f"{path.name}.work")
    for seed in range(seeds):
        images = sources_of(use, clean, seed)
        trials.report["sources"] = {name: len(found) for name, found in images.items()} | {PAIRS: shots}
        for target in real_devices(targets, shots, extent.images):
            bench = Bench.of(target, extent, None, list(PAPERS), seed)
            trials.report["inputs"][target.name] = bench.input_psnr()
            own = images | {PAIRS: [pair.clean for pair in target.train]}
            for source in [(), *SOURCES[use]]:
                learnt = [image for name in source for image in own[name] if min(image.shape[1:]) >= LEAST_SIDE]
                own_work = work / "-".join(source)
                trials.measure(
                    {"target": target.name, "seed": seed, "source": " + ".join(source) or NOTHING},
                    trained(use, replace(bench, clean=learnt), target, prior, seed, own_work),
                )
    typer.echo(f"Wrote {path}.")


def sources_of(use: Use, clean: Path, seed: int) -> dict[str, Sequence[Tensor]]:
    """The sources that are the same for all targets, each as a job or the training of a prior has them."""
    cc0, unsplash = clean / "cc0", clean / "unsplash"
    if use == "job":
        return {LEAVES: dead_leaves_images(seed), CC0: load_folder(cc0), UNSPLASH: load_folder(unsplash)}
    return {LEAVES: generated_images(seed), CC0: load_photographs([cc0]), UNSPLASH: load_photographs([unsplash])}


def trained(
    use: Use, bench: Bench, target: Device, prior: Prior, seed: int, work: Path
) -> Callable[[], dict[str, Any]]:
    """The training on what there is to distort, then fine-tuning; to be run if need be.

    In a job a guided transfer from nothing. For a prior weights that learn all tasks alike: they are trained once, and
    kept in `work` for the other targets.
    """
    quick = PRESETS["quick"]

    def train() -> dict[str, Any]:
        network = build(BACKBONE, UNSHUFFLE, seed).to(device())
        if not bench.clean:
            return bench.finetune(network, quick.scratch_rate, seed)
        if use == "job":
            bench.transfer(network, guided(related_tasks(prior, target.train, seed), TrainingOptions().acting), seed)
            rate = quick.finetune.learning_rate
        else:
            work.mkdir(parents=True, exist_ok=True)
            schedule = TransferSchedule(bench.scale.transfer_steps, bench.scale.batch, learning_rate=PRIOR_RATE)
            with training_bars() as progress:
                train_network(network, work.name, bench.clean, bench.tasks, seed, schedule, work, progress)
            rate = quick.prior_rate
        before = bench.psnr(network)
        return bench.finetune(network, rate, seed) | {"transferred_psnr": before}

    return train


if __name__ == "__main__":
    typer.run(measure)
