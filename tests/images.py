"""Small real images for tests: crops of a photograph that scikit-image carries, clean and distorted."""

import io

import numpy as np
from PIL import Image
from skimage import data


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def image_pairs(count: int, side: int = 96) -> list[tuple[str, bytes, bytes]]:
    """Crops of a photograph, clean and with noise; (name, clean, distorted) as encoded files."""
    photograph = data.astronaut()
    random = np.random.default_rng(0)
    pairs = []
    for index in range(count):
        top, left = 40 * index % 300, 70 * index % 300
        clean = photograph[top : top + side, left : left + side]
        noisy = np.clip(clean + random.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
        pairs.append((f"crop{index}", png(clean), png(noisy)))
    return pairs
