"""What a person at the terminal is told when something fails: the reason, and the next step."""

from typing import Final

from drtl_client import errors

NEXT_STEP: Final[tuple[tuple[type[errors.DRTLError], str], ...]] = (
    (errors.NoService, "start one with: drtl up, or name one with --url"),
    (errors.Unreachable, "is it running? start one with: drtl up"),
    (errors.NoFolder, "give the folder that holds clean/ and distorted/"),
    (errors.BadFolder, "put clean images in clean/ and the others in distorted/, with the same names"),
    (errors.NameTaken, "choose another --name, or add a version to the model with --new-version"),
    (errors.NotReady, "it comes within seconds of the start; follow the job with: drtl jobs watch JOB"),
    (errors.NotFound, "see what there is with: drtl jobs list, drtl models list, drtl datasets list"),
    (errors.ModelDeleted, "see what there is with: drtl models list"),
    (errors.BadWebhookUrl, "receivers are public and speak HTTPS, unless the operator allows a network of their own"),
    (errors.BadArchive, "make the zip anew; for a training with clean/ and distorted/ in it, for a batch with images"),
    (errors.BadImage, "mend these files or leave them out, then send the rest"),
    (errors.TooLarge, "send less at once, or ask the operator for a higher limit"),
    (errors.Unauthorized, "give your key with --key, or in DRTL_KEY"),
    (errors.Forbidden, "ask the operator for a key with more rights"),
    (errors.StorageFull, "the operator has to make room on the service's disk; then send it again"),
    (errors.Unavailable, "see what does not answer with: curl URL/readyz"),
)
NEXT_STEP_OF_PAIRS: Final = {  # By what it is about them.
    "names": "give the two images of a pair the same name, one in clean/ and one in distorted/",
    "count": "put more pairs into the folder, or leave some out",
    "sizes": "bring the images to sizes that fit, or leave them out; those of nearly equal sizes: -o fix=crop",
    "files": "mend these files or leave them out, then send the rest",
    "rejected": "see more with: drtl pairs check DIR; mend them (-o fix=align,match_colour,swap), leave them out, or "
    "insist with -o allow_rejects=true",
    None: "see why with: drtl pairs check DIR",
}


class CommandFailed(Exception):
    """Something that the person at the terminal can act on; `hint` is the next step where there is one."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def next_step(error: Exception) -> str | None:
    """What to do about it, where something can be done."""
    if isinstance(error, CommandFailed):
        return error.hint
    if isinstance(error, errors.BadPairs):
        return NEXT_STEP_OF_PAIRS.get(error.cause, NEXT_STEP_OF_PAIRS[None])
    return next((step for kind, step in NEXT_STEP if isinstance(error, kind)), None)
