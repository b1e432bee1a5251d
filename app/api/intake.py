"""Takes in images that shall be restored: judges each, chooses the format of its answer, keeps it, makes its row."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy.orm import Session

from app.api.deps import Services
from app.api.images import ImageFacts, check_header
from app.api.quotas import count_pixels
from app.api.schemas.restoring import OutputFormat, RestoreOptions
from app.api.uploads import UploadedFile
from app.core import repository
from app.core.errors import NotFound, RefusedFile, ServiceError
from app.core.owners import view_of
from app.core.settings import Settings
from app.core.tables import ModelVersion, Operation
from app.core.turns import work

AUTO: Final = "auto"  # Instead of a model: the one whose training distortion is nearest to the image's.
MEDIA_TYPES: Final[dict[OutputFormat, str]] = {
    "png": "image/png",
    "webp": "image/webp",
    "jpeg": "image/jpeg",
    "tiff": "image/tiff",
}
IMAGE_TYPES: Final = (*MEDIA_TYPES.values(), "image/bmp")  # What is taken in.
OWN_FORMAT: Final[dict[str, OutputFormat]] = {"PNG": "png", "WEBP": "webp", "JPEG": "jpeg", "TIFF": "tiff"}


def resolve(session: Session, model: str) -> ModelVersion | None:
    """The version that `model` means, or None where a worker shall choose one of the promoted. Raises NotFound."""
    if model == AUTO:
        if not repository.promoted_models(session):
            raise NotFound("No model is promoted yet, so there is none to choose from.")
        return None
    name, _, reference = model.partition("@")
    version = repository.resolve_model(session, name, reference or None)
    if version.owner != view_of(session).owner:  # An admin's key sees it, but the image would not be its owner's.
        raise NotFound(f"You have no model named {name!r}; restore with a key of its owner.")
    return version


def offered(image: ImageFacts) -> list[OutputFormat]:
    """The formats of an answer, the image's own first: it is what a client gets that has no preference."""
    own = OWN_FORMAT.get(image.format, "png")
    return sorted(MEDIA_TYPES, key=lambda output: output != own)


def examine(file: UploadedFile, options: RestoreOptions, model: ModelVersion | None, settings: Settings) -> ImageFacts:
    """Raise unless the file looks like an image of an accepted format, which may also be enlarged as far as asked.

    Its pixels are for the worker to judge: decoding them here would cost the api memory and time.
    """
    # A model of scale 2 makes four pixels of one. What a model yet to be chosen makes is for its worker to judge.
    largest = max(1.0, _scale(model), options.outscale or 0.0)
    max_pixels = int(settings.max_image_pixels / largest**2)
    try:
        with file.open() as stream:
            return check_header(stream, max_pixels)
    except ServiceError as error:
        raise type(error)(error.detail, pointer=file.name, files=[RefusedFile(file.name, error.detail)]) from error


def _scale(model: ModelVersion | None) -> int:
    return 1 if model is None else int(model.card.get("scale", 1))


def take_in(
    file: UploadedFile,
    options: RestoreOptions,
    choose: Callable[[ImageFacts], OutputFormat],
    model: ModelVersion | None,
    services: Services,
    *,
    durable: bool = True,
) -> tuple[Operation, int]:
    """Keep a good image, and make the row that names it, with the work that it is; the caller gives it its turn.

    `choose` says in which format the image is answered. What `examine` or `choose` raises is raised, and nothing kept;
    QuotaExhausted, too.
    """
    image = examine(file, options, model, services.settings)
    pixels = image.width * image.height
    chosen = choose(image)
    count_pixels(services.queue, services.owner, services.limits, pixels)
    asked: dict[str, Any] = {"output": chosen, **options.model_dump(include=set(RestoreOptions.model_fields))}
    with file.open() as stream:
        blob = services.storage.put(stream, durable=durable)
    operation = Operation(
        model_name=None if model is None else model.name,
        model_version=None if model is None else model.version,
        input_blob=blob,
        options=asked,
        pixels=pixels,
        stored_bytes=file.size,
    )
    return operation, work(pixels, _scale(model), ensemble=options.explain or options.ensemble > 1)
