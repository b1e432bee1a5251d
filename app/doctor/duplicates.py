"""Pairs that show the same scene: they teach twice what one teaches, and a held-out one would be known by heart."""

import base64
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

ALIKE: Final = 0.7  # Correlation of fingerprints; set by `benchmarks/doctor.py`.


def alike(fingerprints: Sequence[str]) -> list[list[int]]:
    """For each fingerprint, the places of the others that look the same."""
    if not fingerprints:
        return []
    decoded = np.stack([np.frombuffer(base64.b64decode(each), np.int8) for each in fingerprints]).astype(np.float64)
    norms = np.linalg.norm(decoded, axis=1, keepdims=True)
    unit: NDArray[np.float64] = decoded / np.maximum(norms, 1e-9)
    same = unit @ unit.T >= ALIKE
    np.fill_diagonal(same, val=False)
    return [[int(place) for place in np.flatnonzero(row)] for row in same]
