"""libvips as this library uses it: four decoders for files of strangers, one thread, nothing cached."""

import os
from typing import Final

# Read by libvips when it first has to keep a whole image aside, as for one that must be turned. Beyond this it does so
# in a file in TMPDIR, whose pages the kernel can take back.
os.environ.setdefault("VIPS_DISC_THRESHOLD", "32m")

import pyvips

LOADERS: Final = ("Png", "Jpeg", "Webp", "Tiff", "Raw")


def _harden() -> None:
    """Leave no way into the other decoders, and let no file or pixel outlive the reader that asked for it."""
    pyvips.block_untrusted_set(True)
    pyvips.operation_block_set("VipsForeignLoad", True)
    for loader in LOADERS:
        pyvips.operation_block_set(f"VipsForeignLoad{loader}", False)
    pyvips.cache_set_max(0)
    pyvips.concurrency_set(1)  # Threads belong to the network; decoding is a small share and gains little from them.


_harden()

__all__ = ["pyvips"]
