"""What is lost when an image is stored: by JPEG, by colour at a lower resolution, by few levels."""

import torch
import torch.nn.functional as F

from ml.chance import Amount, Source
from ml.distortions.jpeg_arithmetic import RGB, YCBCR, compressed_by_arithmetic
from ml.distortions.kinds import Image, beside, by_amount
from ml.distortions.resampling import shrunk
from ml.images import jpeg as compressed_by_pillow
from ml.placement import like, places


def coarse_colour(image: Image, factor: float) -> Image:
    """Cb and Cr at 1 / factor of the resolution, averaged on the way down and bilinear on the way up; Y is untouched.

    A factor of 2 is 4:2:0. Strong colours next to sharp edges may leave [0, 1].
    Source: ITU-T T.871 (JFIF), which places the coarse samples in the middle of those that they stand for.
    """
    height, width = image.shape[-2:]
    planes = torch.einsum("yc,...chw->...yhw", like(image, YCBCR), image).reshape(-1, 3, height, width)  # (b, 3, h, w)
    small = (shrunk(height, factor), shrunk(width, factor))
    coarse = F.interpolate(planes[:, 1:], small, mode="area")
    colour = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    rebuilt = torch.cat([planes[:, :1], colour], dim=1)  # (b, 3, h, w)
    return torch.einsum("cy,byhw->bchw", like(image, RGB), rebuilt).reshape(image.shape)


def quantized(image: Image, levels: Amount) -> Image:
    """The nearest of `levels` equally spaced values from 0 to 1, each channel by itself.

    y = round(x (n − 1)) / (n − 1); no dithering.
    """
    highest = beside(levels - 1, image)
    return (image.clamp(0, 1) * highest).round() / highest


def compressed(image: Image, quality: Amount) -> Image:
    """JPEG with 4:2:0, at the nearest whole quality of 1…100: by Pillow, or on an accelerator by arithmetic there.

    A quality above 100 leaves an image uncompressed.
    """
    images = image.reshape(-1, *image.shape[-3:])  # (b, 3, h, w)
    of_each = torch.as_tensor(quality, dtype=torch.float64).expand(len(images))  # (b)
    own = [place for place, each in enumerate(of_each.tolist()) if each <= 100]
    qualities = [round(of_each[place].item()) for place in own]
    if not own:
        return image
    result = images.clone()
    if image.device.type == "cpu":
        for place, each in zip(own, qualities, strict=True):
            result[place] = compressed_by_pillow(images[place], each)
    else:
        at = places(own, images)
        result[at] = compressed_by_arithmetic(images[at], qualities)
    return result.reshape(image.shape)


def jpeg(image: Image, strength: Amount, source: Source) -> Image:
    """JPEG with 4:2:0 and quality 100 − 90 · strength. Not compressed at zero: even 100 loses colour."""
    return compressed(image, 100 - 90 * strength)


def chroma_subsampling(image: Image, strength: Amount, source: Source) -> Image:
    """Colour at 1 / (1 + 7 · strength) of the resolution: 4:2:0 at a seventh, 8×8 blocks at most. The range is ours."""
    return by_amount(coarse_colour, image, 1 + 7 * strength)


def quantize(image: Image, strength: Amount, source: Source) -> Image:
    """8 − 6 · strength bits: from 256 levels down to 4. At zero the 256 that every file has. The range is ours."""
    levels = torch.as_tensor(2 ** (8 - 6 * strength), dtype=torch.float64).round()
    return quantized(image, levels if levels.ndim else levels.item())
