"""How the relation had best act: by gain or γ, as weights or chances, sharpened, the best alone; against γ ≡ 1.

`python benchmarks/guidance.py [--scale quick|standard]` transfers from nothing, as the paper does, or with `--init
prior` from the shipped weights; it fine-tunes, and measures on unseen images of every target. Interrupted, it goes on
where it was.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from benchmarks.devices import REPOSITORY, Device, real_devices
from benchmarks.trials import SCALES, Bench, Trials, one_thread, related_tasks, settings
from ml.backbones import SameSize, build
from ml.distortions import PAPERS
from ml.guidance import Guidance, guided, task_shares, uniform
from ml.options import PRESETS
from ml.precision import device
from ml.prior import Prior, load_prior

LIKE: Final = "likeness"
# None is γ ≡ 1; every arm but `baseline` then runs the same steps on as many samples.
ARMS: Final[dict[str, Guidance | None]] = {
    "uniform": None,
    "gain, sample": Guidance("sample"),
    "gain, sample, τ 0.25 dB": Guidance("sample", temperature=0.25),
    "gain, weight": Guidance("weight"),
    "best gain alone": Guidance("sample", top_k=1),
    "γ, weight": Guidance("weight", prefer=LIKE),
    "γ, weight, τ 0.1": Guidance("weight", temperature=0.1, prefer=LIKE),
    "γ, sample": Guidance("sample", prefer=LIKE),
    "γ, sample, τ 0.1": Guidance("sample", temperature=0.1, prefer=LIKE),
    "γ, sample, τ 0.1, top 3": Guidance("sample", temperature=0.1, top_k=3, prefer=LIKE),
    "nearest by γ alone": Guidance("sample", top_k=1, prefer=LIKE),
}


def measure(
    scale: Annotated[Literal["smoke", "quick", "standard"], typer.Option(help="How much to train.")] = "quick",
    init: Annotated[Literal["scratch", "prior"], typer.Option(help="Where the transfer starts.")] = "scratch",
    targets: Annotated[Path, typer.Option(help="Folder of real targets.")] = REPOSITORY / "../shared/data/pairs",
    clean: Annotated[Path, typer.Option(help="Clean images.")] = REPOSITORY / "../shared/data/clean/cc0",
    only: Annotated[list[str] | None, typer.Option(help="Names of targets; all by default.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="The scale's by default.")] = None,
    shots: int = 10,
    output: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/guidance-INIT-SCALE.json.")] = None,
) -> None:
    """Train every arm on every target with every seed."""
    one_thread()
    command = f"python benchmarks/guidance.py --scale {scale} --init {init}" + f" --seeds {seeds}" * (seeds is not None)
    extent = replace(SCALES[scale], seeds=seeds or SCALES[scale].seeds)
    path = output or REPOSITORY / f"benchmarks/results/guidance-{init}-{scale}.json"
    trials = Trials(path, settings("guidance", command, scale, shots, extent) | {"init": init})
    prior = load_prior()
    for target in real_devices(targets, shots, extent.images):
        if only and target.name not in only:
            continue
        for seed in range(extent.seeds):
            bench = Bench.of(target, extent, clean, list(PAPERS), seed)
            trials.report["inputs"][target.name] = bench.input_psnr()
            compare(trials, bench, target, prior, init, seed)
    typer.echo(f"Wrote {path}.")


def compare(trials: Trials, bench: Bench, target: Device, prior: Prior, init: str, seed: int) -> None:
    """All arms of one target and seed, and fine-tuning without a transfer."""
    relation = related_tasks(prior, target.train, seed)
    quick = PRESETS["quick"]

    def start() -> SameSize:
        network = build("vdsr", 2, seed)
        if init == "prior":
            prior.start(network, "vdsr")
        return network.to(device())

    about: dict[str, str | int] = {"target": target.name, "seed": seed}
    rate = quick.prior_rate if init == "prior" else quick.scratch_rate
    trials.measure(about | {"arm": "no transfer"}, lambda: bench.finetune(start(), rate, seed))
    for arm, guidance in ARMS.items():

        def trained(guidance: Guidance | None = guidance) -> dict[str, object]:
            network = start()
            mix = uniform(relation) if guidance is None else guided(relation, guidance)
            bench.transfer(network, mix, seed)
            shares = task_shares(relation, guidance).tolist() if guidance is not None else None
            facts = {"transferred_psnr": bench.psnr(network), "shares": shares, "fallback": relation.fallback}
            return bench.finetune(network, quick.finetune.learning_rate, seed) | facts

        trials.measure(about | {"arm": arm}, trained)


if __name__ == "__main__":
    typer.run(measure)
