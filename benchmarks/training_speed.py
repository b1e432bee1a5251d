"""How fast networks learn the auxiliary tasks, and whether drawing their samples holds them up.

`python benchmarks/training_speed.py` measures on an accelerator where there is one, else on the CPU: the arithmetic
that a large product of matrices reaches, samples drawn a second, one by one and all together, and for each network
samples a second of whole steps of transfer, of steps with a batch at hand, and of those with a compiled network.
"""

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.devices import REPOSITORY
from benchmarks.main_job import commit, machine
from ml.auxiliary import AuxiliaryBatch, auxiliary_batch
from ml.backbones import BACKBONES, SameSize, build
from ml.chance import Chance, Together, chance_of
from ml.distortions import PAPERS
from ml.images import load_folder
from ml.optimizer import adam
from ml.placement import at_hand
from ml.precision import DTYPES, autocast, device, trained_in
from ml.transfer import TransferSchedule, transfer_loss, transfer_step

TASKS = list(PAPERS)
UNIFORM = torch.ones(len(TASKS))


def measure(
    clean: Annotated[Path, typer.Option(help="Folder of clean photographs.")] = REPOSITORY / "../shared/data/clean/cc0",
    batch: Annotated[int, typer.Option(help="Crops of 64×64 pixels a step.")] = 32,
    steps: Annotated[int, typer.Option(help="Timed of each kind, in turns; the median counts.")] = 7,
    unshuffle: int = 2,
    backbone: Annotated[list[str] | None, typer.Option(help="Give it once for each; all by default.")] = None,
    compiled: Annotated[bool, typer.Option(help="Whether to compile the networks, too, which takes a while.")] = False,
    threads: Annotated[int, typer.Option(help="0 lets torch decide.")] = 0,
    output: Path = REPOSITORY / "benchmarks/results/training_speed.json",
) -> None:
    """Measure and write what was measured."""
    if threads:
        torch.set_num_threads(threads)
    on = device()
    images = at_hand(on, load_folder(clean, 24))
    report: dict[str, Any] = {
        "benchmark": "training_speed",
        "command": " ".join(
            [
                "python benchmarks/training_speed.py",
                *["--compiled"] * compiled,
                *(f"--backbone {b}" for b in backbone or []),
            ]
        ),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "device": torch.cuda.get_device_name(on) if on.type == "cuda" else machine()["cpu"],
        "threads": torch.get_num_threads(),
        "arithmetic": trained_in(on),
        "batch": batch,
        "steps": steps,
        "unshuffle": unshuffle,
        "drawing": drawn(images, batch, steps, on),
        "networks": {},
    }
    for name in backbone or BACKBONES:
        network = build(name, unshuffle, 0)  # type: ignore[arg-type]  # the keys of BACKBONES
        figures = trained(network, images, batch, steps)
        if compiled:
            figures |= compared_with_compiled(network, images, batch, steps)
        report["networks"][name] = figures
        typer.echo(f"{name}: {json.dumps(figures)}")
    output.write_text(json.dumps(report, indent=2) + "\n")
    typer.echo(f"Wrote {output}.")


def timed(works: Sequence[Callable[[int], object]], times: int) -> list[list[float]]:
    """Seconds of so many runs of each, in turns, after one that does not count; each until the device is done."""

    def once(work: Callable[[int], object], run: int) -> float:
        started = time.perf_counter()
        work(run)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    rounds = [[once(work, run) for work in works] for run in range(times + 1)]
    return [list(of_one) for of_one in zip(*rounds[1:], strict=True)]


class Product:
    """A large product of matrices in the arithmetic of training: what the device can do."""

    def __init__(self, on: torch.device) -> None:
        self.side = 8192 if on.type == "cuda" else 4096
        size, dtype = (self.side, self.side), DTYPES[trained_in(on)]
        self.one, self.other = (torch.randn(size, device=on, dtype=dtype) for _ in range(2))

    def compute(self, _: int) -> Tensor:
        return self.one @ self.other

    def flops(self) -> int:
        """Additions and multiplications."""
        return 2 * self.side**3


def drawn(images: list[Tensor], batch: int, steps: int, on: torch.device) -> dict[str, float]:
    """Samples a second: each alone, a batch as on this device, and a batch as on an accelerator."""

    def draw(chance: Chance) -> AuxiliaryBatch:
        return auxiliary_batch(images, TASKS, 64, chance)

    def alone(run: int) -> None:
        for sample in range(batch):
            draw(chance_of(0, f"speed/{run}", range(sample, sample + 1), on))

    def here(run: int) -> None:
        draw(chance_of(0, f"speed/{run}", range(batch), on))

    def together(run: int) -> None:
        draw(Together(batch, torch.Generator().manual_seed(run), torch.Generator(on).manual_seed(run)))

    each, own, all_at_once = (round(batch / median(took), 1) for took in timed([alone, here, together], 4 * steps))
    return {"alone_per_s": each, "as_here_per_s": own, "together_per_s": all_at_once}


def trained(network: SameSize, images: list[Tensor], batch: int, steps: int) -> dict[str, float]:
    """Samples a second of whole steps and of the network alone; the operations of one, and the share of the peak.

    The peak is measured meanwhile: on a machine that is shared it is not the same from one minute to the next.
    """
    on = device()
    network.to(on)
    schedule, optimizer = TransferSchedule(steps + 1, batch), adam(network, 1e-4)
    at_hand = auxiliary_batch(images, TASKS, schedule.crop, chance_of(0, "speed", range(batch), on))
    with FlopCounterMode(display=False) as counter:
        learn(network, at_hand)
    flops = counter.get_total_flops() / batch

    def alone(_: int) -> None:
        learn(network, at_hand)
        optimizer.step()

    def whole(run: int) -> None:
        transfer_step(network, optimizer, images, TASKS, UNIFORM, schedule, 0, run)

    product = Product(on)
    alone_s, whole_s, product_s = (median(each) for each in timed([alone, whole, product.compute], steps))
    peak = product.flops() / product_s
    return {
        "gflops_per_sample": round(flops / 1e9, 1),
        "alone_per_s": round(batch / alone_s, 2),
        "whole_per_s": round(batch / whole_s, 2),
        "peak_tflops_per_s": round(peak / 1e12, 2),
        "share_of_peak": round(flops * batch / whole_s / peak, 3),
    }


def compared_with_compiled(network: SameSize, images: list[Tensor], batch: int, steps: int) -> dict[str, float]:
    """Steps with a batch at hand by `torch.compile`, in turns with those without, and what the first one takes."""
    on, optimizer = device(), adam(network, 1e-4)
    at_hand = auxiliary_batch(images, TASKS, 64, chance_of(0, "speed", range(batch), on))
    compiled = torch.compile(network)

    def step(forward: Callable[[Tensor], Tensor]) -> None:
        learn(network, at_hand, forward)
        optimizer.step()

    started = time.perf_counter()
    step(compiled)
    first_s = time.perf_counter() - started
    plain, faster = timed([lambda _: step(network), lambda _: step(compiled)], steps)
    return {"compile_s": round(first_s, 1), "compiled_over_plain": round(median(plain) / median(faster), 3)}


def learn(network: SameSize, batch: AuxiliaryBatch, forward: Callable[[Tensor], Tensor] | None = None) -> None:
    """Loss and gradient, as a step of transfer computes them."""
    forward = network if forward is None else forward
    with autocast(batch.clean.device):
        loss, _ = transfer_loss(forward, batch, UNIFORM, len(batch.task))  # type: ignore[arg-type]  # torch.compile's is a module, too.
    network.zero_grad()
    loss.backward()


if __name__ == "__main__":
    typer.run(measure)
