"""What the user is told about an exception that ended their work."""

import secrets
from dataclasses import dataclass

from app.core.errors import ServiceError
from app.core.full_disk import is_disk_full
from ml.images import UnusableCleanImages
from ml.precision import is_out_of_memory
from ml.prior import UnusablePrior
from ml.tiling import OutOfMemory


@dataclass(frozen=True)
class Failure:
    """`code` is stable, `message` is for the user; an unforeseen failure is one that an operator must look at."""

    code: str
    message: str
    foreseen: bool


def diagnose(error: Exception, *, bad_value: str) -> Failure:
    """Classify an exception of `ml` or of the storage. `bad_value` is the code for a ValueError: the user's mistake."""
    if isinstance(error, OutOfMemory) or is_out_of_memory(error):
        return Failure("out-of-memory", "Memory ran out. Smaller images or fewer pairs need less.", foreseen=True)
    if is_disk_full(error):
        return Failure(
            "storage-full", "The service's storage is full, so the result could not be kept.", foreseen=False
        )
    if isinstance(error, ServiceError):
        return Failure(error.code, error.detail, foreseen=True)
    if isinstance(error, ValueError):
        return Failure(bad_value, str(error), foreseen=True)
    if isinstance(error, UnusablePrior):
        message = (
            "The prior that this service starts from cannot be used. Its operator finds the reason in the training "
            "worker's log; DRTL_PRIOR_PATH names the file, and `drtl prior train` makes a new one."
        )
        return Failure("prior-unusable", message, foreseen=False)
    if isinstance(error, UnusableCleanImages):
        message = (
            "The clean images that this service learns from cannot be used. Its operator finds the reason in the "
            "training worker's log; DRTL_CLEAN_DIR names the folder."
        )
        return Failure("clean-images-unusable", message, foreseen=False)
    reference = secrets.token_hex(4)
    return Failure("internal", f"Something failed on our side (reference {reference}).", foreseen=False)
