"""The side-by-side picture: input, result and clean, whole and at three times the size where there is most to see."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from app.failures import CommandFailed

ZOOM: Final = 3
PANEL_PX: Final = 480  # widest panel; larger images are shown smaller in the upper row, never in the zoomed one
GAP_PX: Final = 12
LABEL_PX: Final = 34
INK: Final = (30, 30, 30)
PAPER: Final = (255, 255, 255)
MARK: Final = (255, 196, 0)


@dataclass(frozen=True)
class Panel:
    """One image of the picture with the words above it."""

    label: str
    image: Image.Image


@dataclass(frozen=True)
class Score:
    """How near an image is to the clean one: PSNR in dB over RGB, infinite for equal images; SSIM of Wang et al."""

    psnr: float
    ssim: float

    def __str__(self) -> str:
        return f"{self.psnr:.2f} dB · SSIM {self.ssim:.3f}"


def read_rgb(path: Path, like: Image.Image | None = None) -> Image.Image:
    """An image as RGB, brought by bicubic interpolation to the size of `like`. Raises CommandFailed for no image."""
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except OSError as error:  # Also what Pillow raises for damage.
        raise CommandFailed(f"{path} cannot be read as an image: {error.strerror or error}") from error
    return rgb.resize(like.size, Image.Resampling.BICUBIC) if like is not None and like.size != rgb.size else rgb


def score(image: Image.Image, clean: Image.Image) -> Score:
    a, b = np.asarray(clean), np.asarray(image)
    ssim = structural_similarity(a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    with np.errstate(divide="ignore"):
        return Score(float(peak_signal_noise_ratio(a, b)), float(ssim))


def busiest_box(clean: Image.Image, width: int, height: int) -> tuple[int, int, int, int]:
    """The window of the clean image with most fine detail: chosen without a look at the result."""
    grey: NDArray[np.float64] = np.asarray(clean.convert("L"), dtype=np.float64)
    detail = np.abs(grey - ndimage.gaussian_filter(grey, 2.0))
    total = np.pad(np.minimum(detail, np.quantile(detail, 0.98)).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(int(windows.argmax()), windows.shape)
    return int(left), int(top), int(left) + width, int(top) + height


def side_by_side(panels: list[Panel], clean: Image.Image) -> Image.Image:
    """Whole images above, the same detail of each below. All panels have the clean image's size."""
    shrink = min(1.0, PANEL_PX / clean.width)
    width, height = round(clean.width * shrink), round(clean.height * shrink)
    zoomed = width // ZOOM, min(height, width) // ZOOM  # in pixels of the images themselves
    box = busiest_box(clean, min(zoomed[0], clean.width), min(zoomed[1], clean.height))
    lower = (box[3] - box[1]) * ZOOM
    size = (len(panels) * (width + GAP_PX) + GAP_PX, LABEL_PX + height + GAP_PX + lower + GAP_PX)
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(11, min(17, width // 20)))
    for position, panel in enumerate(panels):
        x = GAP_PX + position * (width + GAP_PX)
        draw.text((x, LABEL_PX / 2), panel.label, fill=INK, font=font, anchor="lm")
        whole = panel.image if shrink == 1.0 else panel.image.resize((width, height), Image.Resampling.LANCZOS)
        picture.paste(whole, (x, LABEL_PX))
        corners = [x + box[0] * shrink, LABEL_PX + box[1] * shrink, x + box[2] * shrink, LABEL_PX + box[3] * shrink]
        draw.rectangle(corners, outline=MARK, width=2)
        detail = panel.image.crop(box)
        detail = detail.resize((detail.width * ZOOM, detail.height * ZOOM), Image.Resampling.NEAREST)
        picture.paste(detail, (x, LABEL_PX + height + GAP_PX))
    return picture
