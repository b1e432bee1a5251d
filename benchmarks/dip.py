"""Deep image prior on unseen images of every target, as in the paper's Table 2; it needs no pairs.

`python benchmarks/dip.py [--scale quick|standard]` fits a network to each image anew. Interrupted, it goes on where it
was.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from benchmarks.devices import REPOSITORY, middle, real_devices
from benchmarks.trials import Trials, one_thread
from ml.dip import DipSchedule, deep_image_prior
from ml.images import from_uint8
from ml.metrics import psnr, ssim
from ml.pairs import TargetPair
from ml.precision import device

# Images of each target, side of the middle of each, and after how many steps it is stopped.
SCALES: Final[dict[str, tuple[int, int, tuple[int, ...]]]] = {
    "smoke": (1, 64, (2,)),
    "quick": (3, 256, (300, 600, 1_200)),
    "standard": (20, 512, (600, 1_200, 2_400)),
}


def measure(
    scale: Annotated[Literal["smoke", "quick", "standard"], typer.Option(help="How much to restore.")] = "quick",
    targets: Annotated[Path, typer.Option(help="Folder of real targets.")] = REPOSITORY / "../shared/data/pairs",
    seed: int = 0,
    output: Annotated[Path | None, typer.Option(help="Default: benchmarks/results/dip-SCALE.json.")] = None,
) -> None:
    """Restore every image once for each number of steps."""
    one_thread()
    images, side, stops = SCALES[scale]
    path = output or REPOSITORY / f"benchmarks/results/dip-{scale}.json"
    about = {"benchmark": "dip", "command": f"python benchmarks/dip.py --scale {scale}", "images": images, "side": side}
    trials = Trials(path, about | {"seed": seed, "stops": list(stops)})
    for target in real_devices(targets, 1, images):
        for pair in target.test:
            for steps in stops:
                schedule = replace(DipSchedule(), steps=steps)
                trials.measure(
                    {"target": target.name, "image": pair.name, "steps": steps},
                    lambda pair=pair, schedule=schedule: restored(pair, side, schedule, seed),
                )
    typer.echo(f"Wrote {path}.")


def restored(pair: TargetPair, side: int, schedule: DipSchedule, seed: int) -> dict[str, float]:
    """One image, before and after."""
    clean, distorted = (from_uint8(middle(image, side)) for image in (pair.clean, pair.distorted))
    result = deep_image_prior(distorted.to(device()), schedule, seed).cpu()
    return {
        "input_psnr": psnr(distorted, clean),
        "input_ssim": ssim(distorted, clean),
        "psnr": psnr(result, clean),
        "ssim": ssim(result, clean),
    }


if __name__ == "__main__":
    typer.run(measure)
