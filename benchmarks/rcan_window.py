"""Measures windows for RCAN against pooling over the whole image, on real pairs, as a Markdown table.

A short RCAN with the mechanics of the published one is trained on pairs of every target folder first, unless
`--weights` exists. Run it as `python -m benchmarks.rcan_window PAIRS`, where PAIRS/*/{train,test}/{clean,distorted}.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from ml.backbones import SameSize, rcan
from ml.backbones.windows import Window
from ml.finetune import FinetuneSchedule, finetune_step
from ml.images import from_uint8, load_folder
from ml.metrics import psnr
from ml.optimizer import adam
from ml.pairs import TargetPair

WINDOWS = [Window(64, 8), Window(64, 16), Window(128, 16), Window(192, 16), Window(192, 32)]
SIDE = 416  # Of the test crops; no multiple of the larger cores, so that windows are cut off as well.
UNSHUFFLE = 2


def pairs(target: Path, part: str, count: int) -> list[TargetPair]:
    clean, distorted = (load_folder(target / part / kind)[:count] for kind in ("clean", "distorted"))
    return [TargetPair(str(index), *both) for index, both in enumerate(zip(clean, distorted, strict=True))]


def trained(network: SameSize, targets: list[Path], steps: int, weights: Path) -> SameSize:
    """The network, trained on ten pairs of each target together, or loaded."""
    if weights.exists():
        network.load_state_dict(load_file(weights))
        return network
    together = [pair for target in targets for pair in pairs(target, "train", 10)]
    schedule = FinetuneSchedule(steps, batch=6, learning_rate=1e-3, decay="cosine")
    optimizer = adam(network, schedule.learning_rate)
    for step in range(steps):
        finetune_step(network, optimizer, together, schedule, seed=0, step=step)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, weights)
    return network


def jump_at_borders(image: Float[Tensor, "3 h w"], core: int) -> tuple[float, float]:
    """Mean absolute step between neighbours in grey levels: over the borders of cores, and elsewhere."""
    at, elsewhere = [], []
    for steps in (image.diff(dim=1), image.diff(dim=2).transpose(1, 2)):
        rows = steps.abs().mean(dim=(0, 2)) * 255  # (h − 1)
        border = torch.zeros(len(rows), dtype=torch.bool)
        border[core - 1 :: core] = True
        at.append(rows[border])
        elsewhere.append(rows[~border])
    return float(torch.cat(at).mean()), float(torch.cat(elsewhere).mean())


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of targets with train/ and test/.")],
    weights: Annotated[Path, typer.Option(help="Where the trained weights are kept.")] = Path(
        "rcan-window.safetensors"
    ),
    steps: int = 300,
    groups: int = 3,
    blocks: Annotated[int, typer.Option(help="In each group.")] = 3,
    width: int = 32,
    images: Annotated[int, typer.Option(help="Test images of each target.")] = 1,
) -> None:
    """Train if need be, then compare."""
    targets = sorted(path for path in folder.iterdir() if path.is_dir())
    torch.manual_seed(0)
    network = rcan(UNSHUFFLE, groups=groups, blocks=blocks, width=width, reduction=width // 4)
    network = trained(network, targets, steps, weights).eval()
    network.window = None
    tested = {target.name: pairs(target, "test", images) for target in targets}
    crops = {
        name: [(from_uint8(p.distorted)[:, :SIDE, :SIDE], from_uint8(p.clean)[:, :SIDE, :SIDE]) for p in found]
        for name, found in tested.items()
    }
    with torch.inference_mode():
        whole = {name: [network(distorted[None])[0] for distorted, _ in found] for name, found in crops.items()}
        typer.echo(
            f"| core + margin | pixels computed | {' | '.join(crops)} | step at borders / elsewhere | added step |"
        )
        typer.echo(f"|---|---|{'---|' * len(crops)}---|---|")
        given = [sum(psnr(d, c) for d, c in found) / len(found) for found in crops.values()]
        typer.echo(f"| input | – | {' | '.join(f'{value:.2f} dB' for value in given)} | – | – |")
        reached = [
            sum(psnr(result, clean) for result, (_, clean) in zip(whole[name], found, strict=True)) / len(found)
            for name, found in crops.items()
        ]
        typer.echo(f"| whole image | 1.00 × | {' | '.join(f'{value:.3f} dB' for value in reached)} | – | – |")
        for window in WINDOWS:
            network.window = window
            cells, ratios, added = [], [], []
            for (name, found), best in zip(crops.items(), reached, strict=True):
                results = [network(distorted[None])[0] for distorted, _ in found]
                quality = sum(psnr(r, clean) for r, (_, clean) in zip(results, found, strict=True)) / len(found)
                cells.append(f"{quality - best:+.3f} dB")
                for result, unseamed in zip(results, whole[name], strict=True):
                    at, elsewhere = jump_at_borders(result, window.core)
                    at_whole, elsewhere_whole = jump_at_borders(unseamed, window.core)
                    ratios.append(at / elsewhere / (at_whole / elsewhere_whole))
                    added.append(jump_at_borders(result - unseamed, window.core)[0])
            cost = (1 + 2 * window.margin / window.core) ** 2
            typer.echo(
                f"| {window.core} + {window.margin} | {cost:.2f} × | {' | '.join(cells)} "
                f"| {sum(ratios) / len(ratios):.4f} | {sum(added) / len(added):.3f} levels |"
            )


if __name__ == "__main__":
    typer.run(main)
