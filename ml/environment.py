"""`python -m ml.environment [PRIOR]`: what this Python can do, as one JSON document; for `drtl doctor`."""

import json
import sys
from pathlib import Path
from typing import Any


def describe(prior: Path | None) -> dict[str, Any]:
    """Versions of what is loaded, the accelerator, and the prior; a value under `errors` says what does not work."""
    told: dict[str, Any] = {"errors": {}}
    try:
        import torch

        from ml.precision import device

        told |= {"torch": torch.__version__, "device": device().type}
    except (ImportError, OSError, RuntimeError) as error:
        told["errors"]["torch"] = str(error)
        return told
    try:
        from ml.libvips import pyvips

        told["libvips"] = ".".join(str(pyvips.version(part)) for part in range(3))
    except (ImportError, OSError, RuntimeError) as error:
        told["errors"]["libvips"] = str(error)
    try:
        from ml.prior import load_prior

        told["prior"] = load_prior(prior).version
    except (ImportError, OSError, RuntimeError) as error:
        told["errors"]["prior"] = str(error)
    return told


if __name__ == "__main__":
    print(json.dumps(describe(Path(sys.argv[1]) if len(sys.argv) > 1 else None)))
