"""A virtual camera: makes demo pairs from scikit-image's bundled photographs. Synthetic, and said to be so.

Real pairs may not be shipped, and the demo must work without a download. So photographs that scikit-image carries
inside its wheel play the clean images, and a simulated camera takes them again: lens blur, colour filter array,
photon and read noise, demosaicing, sharpening, tone curve, JPEG. None of the service's auxiliary distortions has
this chain, so the demo's target is new to the service; but it is simulated, and says nothing about a real device.
"""

import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal

Floats = NDArray[np.float64]  # images: (h, w) or (h, w, 3), linear light or sRGB-encoded, in [0, 1]
Bytes = NDArray[np.uint8]  # images as stored: (h, w, 3)


@dataclass(frozen=True)
class VirtualCamera:
    """What the simulated device does to the light. The defaults cost clearly visible detail."""

    defocus_px: float = 1.3  # radius of the blur disc, green
    astigmatism_px: tuple[float, float] = (1.1, 0.7)  # standard deviations along and across the axis
    axis_deg: float = 25.0
    focus_shift: tuple[float, float, float] = (1.08, 1.0, 1.18)  # blur of red, green, blue, relative to green
    full_well_e: float = 1800.0  # electrons at white; fewer means more photon noise
    read_noise_e: float = 5.0
    sharpen_amount: float = 0.7
    sharpen_sigma_px: float = 1.4
    jpeg_quality: int = 85

    def capture(self, clean: Bytes, rng: np.random.Generator) -> Bytes:
        """Photograph an sRGB image (h, w, 3) with this camera; the answer has the same size."""
        if clean.ndim != 3 or clean.shape[2] != 3 or clean.dtype != np.uint8:
            raise ValueError(f"clean must be uint8 of shape (h, w, 3), got {clean.dtype} of shape {clean.shape}")
        light = to_linear(clean / 255.0)
        sensor = mosaic(self._optics(light))
        raw = self._expose(sensor, rng)
        developed = to_srgb(np.clip(demosaic(raw), 0.0, 1.0))
        return self._compress(self._sharpen(developed))

    def _optics(self, light: Floats) -> Floats:
        kernels = [point_spread(self.defocus_px * k, self.astigmatism_px, self.axis_deg) for k in self.focus_shift]
        channels = [ndimage.convolve(light[..., c], kernel, mode="mirror") for c, kernel in enumerate(kernels)]
        return np.stack(channels, axis=-1)

    def _expose(self, sensor: Floats, rng: np.random.Generator) -> Floats:
        """Photons arrive one by one (Poisson), and reading them out adds a little Gaussian noise."""
        electrons = rng.poisson(np.clip(sensor, 0.0, 1.0) * self.full_well_e)
        return np.asarray((electrons + rng.normal(0.0, self.read_noise_e, sensor.shape)) / self.full_well_e)

    def _sharpen(self, image: Floats) -> Floats:
        """Unsharp masking as cameras do it, strong enough to leave a halo along edges."""
        smooth = ndimage.gaussian_filter(image, sigma=(self.sharpen_sigma_px, self.sharpen_sigma_px, 0.0))
        return np.asarray(np.clip(image + self.sharpen_amount * (image - smooth), 0.0, 1.0))

    def _compress(self, image: Floats) -> Bytes:
        file = io.BytesIO()
        Image.fromarray(to_bytes(image)).save(file, "JPEG", quality=self.jpeg_quality, subsampling="4:2:0")
        return np.asarray(Image.open(file))


def to_linear(srgb: Floats) -> Floats:
    """Undo the sRGB tone curve (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Floats) -> Floats:
    """Apply the sRGB tone curve (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def to_bytes(image: Floats) -> Bytes:
    return np.rint(image * 255.0).astype(np.uint8)


def point_spread(defocus_px: float, astigmatism_px: tuple[float, float], axis_deg: float) -> Floats:
    """How the lens spreads a point: a defocus disc smeared by a tilted Gaussian. (n, n) with n odd, sum 1."""
    radius = int(np.ceil(defocus_px + 3.0 * max(astigmatism_px)))
    size, fine = 2 * radius + 1, 5  # computed on a five times finer grid, so that a small disc keeps its true radius
    grid = (np.arange(size * fine) + 0.5) / fine - size / 2  # pixels from the centre
    y, x = np.meshgrid(grid, grid, indexing="ij")
    disc = (np.hypot(x, y) <= defocus_px).astype(np.float64)
    axis = np.deg2rad(axis_deg)
    along, across = x * np.cos(axis) + y * np.sin(axis), y * np.cos(axis) - x * np.sin(axis)
    gaussian = np.exp(-0.5 * ((along / astigmatism_px[0]) ** 2 + (across / astigmatism_px[1]) ** 2))
    spread = signal.fftconvolve(disc, gaussian, mode="same")
    kernel = spread.reshape(size, fine, size, fine).sum(axis=(1, 3))
    return np.asarray(kernel / kernel.sum())


def mosaic(light: Floats) -> Floats:
    """What sits behind an RGGB colour filter array: one of the three colours per pixel. (h, w, 3) → (h, w)."""
    sensor = light[..., 1].copy()
    sensor[0::2, 0::2] = light[0::2, 0::2, 0]
    sensor[1::2, 1::2] = light[1::2, 1::2, 2]
    return sensor


# The linear filters of Malvar, He and Cutler, "High-quality linear interpolation for demosaicing of Bayer-patterned
# color images" (ICASSP 2004), Fig. 2: a bilinear estimate corrected by the gradient of the colour that was measured.
_GREEN: Final = np.array(
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]], dtype=np.float64
)
_ALONG_ROW: Final = np.array(
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]], dtype=np.float64
)
_DIAGONAL: Final = np.array(
    [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]], dtype=np.float64
)


def demosaic(raw: Floats) -> Floats:
    """Fill in the two colours that each pixel of an RGGB sensor did not measure. (h, w) → (h, w, 3)."""
    # "mirror" leaves out the edge pixel itself, so that the filter array's pattern goes on across the border.
    green, along_row, along_column, diagonal = (
        ndimage.convolve(raw, kernel / 8.0, mode="mirror") for kernel in (_GREEN, _ALONG_ROW, _ALONG_ROW.T, _DIAGONAL)
    )
    image = np.stack([raw, raw, raw], axis=-1)
    for red, blue, row, column in ((0, 2, 0, 0), (2, 0, 1, 1)):  # the same at red sites and, colours swapped, at blue
        here = np.s_[row::2, column::2]
        image[..., 1][here] = green[here]
        image[..., blue][here] = diagonal[here]
        beside, below = np.s_[row::2, 1 - column :: 2], np.s_[1 - row :: 2, column::2]  # the green sites next to it
        image[..., red][beside] = along_row[beside]
        image[..., red][below] = along_column[below]
    return image


@dataclass(frozen=True)
class Crop:
    """A part of one bundled photograph, (left, top, right, bottom) in pixels after shrinking it by `shrink`."""

    photograph: str
    shrink: float
    box: tuple[int, int, int, int]


# One crop a photograph, so that held-out pairs show what no training pair shows. Shrunk because the bundled files are
# themselves a little soft or compressed, and clean should be clean.
TRAINING: Final = {
    "brick": Crop("brick.png", 0.7, (0, 0, 358, 358)),
    "camera": Crop("camera.png", 0.75, (0, 0, 384, 384)),
    "cat": Crop("chelsea.png", 0.8, (0, 0, 360, 240)),
    "coffee": Crop("coffee.png", 0.85, (0, 0, 510, 340)),
    "galaxies": Crop("hubble_deep_field.jpg", 0.6, (140, 80, 460, 400)),
    "gravel": Crop("gravel.png", 0.7, (0, 0, 358, 358)),
    "motorcycle": Crop("motorcycle_left.png", 0.85, (60, 40, 600, 400)),
    "retina": Crop("retina.jpg", 0.5, (20, 190, 340, 510)),
    "rocket": Crop("rocket.jpg", 0.8, (40, 20, 512, 340)),
    "tissue": Crop("ihc.png", 0.75, (0, 0, 384, 384)),
}
UNSEEN: Final = ("astronaut", Crop("astronaut.png", 0.8, (0, 0, 408, 408)))


def photograph(crop: Crop) -> Bytes:
    """Read the crop from the files inside scikit-image's wheel; nothing is downloaded."""
    with (resources.files("skimage") / "data" / crop.photograph).open("rb") as file, Image.open(file) as image:
        size = (round(image.width * crop.shrink), round(image.height * crop.shrink))
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS).crop(crop.box))


@dataclass(frozen=True)
class DemoPairs:
    """Few-shot pairs to train on, and one pair of a photograph that none of them shows."""

    folder: Path  # with clean/ and distorted/
    unseen_clean: Path
    unseen_distorted: Path


def demo_pairs(folder: Path, seed: int, camera: VirtualCamera | None = None) -> DemoPairs:
    """Write the demo's pairs below `folder` as PNG. The same seed gives the same images."""
    camera = camera or VirtualCamera()
    rng = np.random.default_rng(seed)
    for name, crop in sorted(TRAINING.items()):
        _write_pair(folder, name, photograph(crop), camera, rng)
    name, crop = UNSEEN
    clean, distorted = _write_pair(folder / "unseen", name, photograph(crop), camera, rng)
    return DemoPairs(folder, clean, distorted)


def _write_pair(
    folder: Path, name: str, clean: Bytes, camera: VirtualCamera, rng: np.random.Generator
) -> tuple[Path, Path]:
    written = []
    for kind, image in (("clean", clean), ("distorted", camera.capture(clean, rng))):
        path = folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        written.append(path)
    return written[0], written[1]
