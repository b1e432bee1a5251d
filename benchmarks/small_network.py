"""Which small network does best in the seconds of a quick job on a CPU: `python benchmarks/small_network.py`.

Every candidate is transferred on the paper's distortions alike and fine-tuned, each for as many steps as fit in the
processor time that VDSR at half of the resolution takes for those of `quick`, on simulated devices, so that the choice
takes no part of the real targets. Processor time of a step is measured first, candidates taking turns. Interrupted, it
goes on where it was, with the times that it measured.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

import torch
import typer

from benchmarks.devices import REPOSITORY, simulated_devices
from benchmarks.trials import SCALES, Bench, Trials, one_thread, settings
from ml.backbones import SameSize, dncnn, parameter_count, vdsr
from ml.distortions import PAPERS
from ml.finetune import FinetuneSchedule, finetune_step
from ml.guidance import TaskMix
from ml.optimizer import adam
from ml.options import PRESETS

CANDIDATES: Final[Mapping[str, Callable[[], SameSize]]] = {
    "VDSR, 20 layers of 64, 1/2": lambda: vdsr(2),
    "VDSR, 20 layers of 64, 1/4": lambda: vdsr(4),
    "VDSR, 18 layers of 48, 1/2": lambda: vdsr(2, depth=18, width=48),
    "VDSR, 14 layers of 32, 1/2": lambda: vdsr(2, depth=14, width=32),
    "DnCNN, 17 layers of 64, 1/4": lambda: dncnn(4),
}
REFERENCE: Final = "VDSR, 20 layers of 64, 1/2"
DEVICES: Final = ("virtual camera", "noise σ 15", "mixture 2, 3, 4")
TIMED: Final = 9  # steps of each


def measure(
    share: Annotated[float, typer.Option(help="Of the reference's steps.", min=0.01)] = 0.5,
    clean: Annotated[Path, typer.Option(help="Holds cc0/ and unsplash/.")] = REPOSITORY / "../shared/data/clean",
    shots: int = 10,
    output: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/small-network.json.")] = None,
) -> None:
    """Train every candidate for equal processor time on every device."""
    one_thread()
    path = output or REPOSITORY / "benchmarks/results/small-network.json"
    command = f"python benchmarks/small_network.py --share {share}"
    trials = Trials(path, settings("small_network", command, "quick", shots) | {"share": share})
    devices = [each for each in simulated_devices(clean, shots, SCALES["quick"].images, 0) if each.name in DEVICES]
    if "step_s" not in trials.report:
        bench = Bench.of(devices[0], SCALES["quick"], clean / "cc0", list(PAPERS), 0)
        trials.report["step_s"] = step_seconds(bench)
        trials.save()
    step_s = trials.report["step_s"]
    for target in devices:
        bench = Bench.of(target, SCALES["quick"], clean / "cc0", list(PAPERS), 0)
        trials.report["inputs"][target.name] = bench.input_psnr()
        for name in CANDIDATES:
            steps = round(share * bench.scale.finetune_steps * step_s[REFERENCE] / step_s[name])
            trials.measure({"target": target.name, "network": name}, trained(bench, name, steps))
    typer.echo(f"Wrote {path}.")


def fresh(name: str) -> SameSize:
    """Random weights, the same for every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CANDIDATES[name]()
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def step_seconds(bench: Bench) -> dict[str, float]:
    """Processor time of a step of fine-tuning, the median of several, candidates taking turns."""
    schedule = FinetuneSchedule(TIMED, bench.scale.batch, learning_rate=1e-4)
    networks = {name: fresh(name) for name in CANDIDATES}
    optimizers = {name: adam(network, schedule.learning_rate) for name, network in networks.items()}
    took: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for step in range(TIMED):
        for name, network in networks.items():
            started = time.process_time()
            finetune_step(network, optimizers[name], bench.target.train, schedule, 0, step)
            took[name].append(time.process_time() - started)
    return {name: round(median(seconds), 4) for name, seconds in took.items()}


def trained(bench: Bench, name: str, steps: int) -> Callable[[], dict[str, Any]]:
    """Both trainings of as many steps, to be run if need be, and what the network has on unseen images."""

    def run() -> dict[str, Any]:
        network, rates = fresh(name), PRESETS["quick"]
        alike = TaskMix(torch.ones(len(bench.tasks)))
        bench.transfer(network, alike, 0, steps=steps, rate=rates.transfer.learning_rate)
        bench.tune(network, rates.finetune.learning_rate, 0, steps=steps)
        return {"psnr": bench.psnr(network), "steps": steps, "parameters": parameter_count(network)}

    return run


if __name__ == "__main__":
    typer.run(measure)
