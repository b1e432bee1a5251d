"""The final resize of a finished image, as a pipeline that streams."""

from typing import Final

import numpy as np

from ml.libvips import pyvips

LINEAR_BELOW: Final = 0.04045  # of the encoded value, and as a linear one
LINEAR_SLOPE: Final = 12.92


def resized(image: pyvips.Image, width: int, height: int, *, is_light: bool = True) -> pyvips.Image:
    """The image at another size by Lanczos3, in its own pixel type, with alpha straight as it came.

    Shrinking averages light, so it is done on linear values (IEC 61966-2-1); on encoded ones fine bright detail would
    darken. Enlarging is done on encoded values, where the kernel overshoots alike on both sides of an edge; on linear
    ones it would draw dark halos. The sRGB curve is used whatever the profile: all that matters is that averaging
    takes place near linear light, and the same curve leads back. Colours are weighted by their alpha meanwhile, so
    that what is transparent does not bleed into what is not. Values that are no light, as a trust map's, are averaged
    as they are.
    """
    if (width, height) == (image.width, image.height):
        return image
    kind, interpretation, has_alpha = image.format, image.interpretation, image.bands in {2, 4}
    brightest = 255 if kind == "uchar" else 65535
    linear = is_light and width * height < image.width * image.height
    count = image.bands - has_alpha

    def scaled(part: pyvips.Image) -> pyvips.Image:
        return part.resize(width / image.width, vscale=height / image.height, kernel="lanczos3")

    colours = image[0:count]
    colours = colours.maplut(_to_linear(brightest)) if linear else colours / brightest
    if has_alpha:
        opacity = image[count] / brightest
        weighted = scaled((colours * opacity).bandjoin(opacity))
        opacity = _clamped(weighted[count])
        colours = (opacity > 0).ifthenelse(weighted[0:count] / opacity, 0)
    else:
        opacity, colours = None, scaled(colours)
    colours = _clamped(colours)
    if linear:
        colours = _to_encoded(colours)
    if opacity is not None:
        colours = colours.bandjoin(opacity)
    return (colours * brightest).rint().cast(kind).copy(interpretation=interpretation)


def _clamped(image: pyvips.Image) -> pyvips.Image:
    positive = (image > 0).ifthenelse(image, 0)
    return (positive < 1).ifthenelse(positive, 1)


def _to_linear(brightest: int) -> pyvips.Image:
    encoded = np.arange(brightest + 1) / brightest
    linear = np.where(encoded <= LINEAR_BELOW, encoded / LINEAR_SLOPE, ((encoded + 0.055) / 1.055) ** 2.4)
    table = linear.astype(np.float32)
    return pyvips.Image.new_from_memory(table.tobytes(), len(table), 1, 1, "float")


def _to_encoded(linear: pyvips.Image) -> pyvips.Image:
    curve = linear ** (1 / 2.4) * 1.055 - 0.055
    return (linear <= LINEAR_BELOW / LINEAR_SLOPE).ifthenelse(linear * LINEAR_SLOPE, curve)
