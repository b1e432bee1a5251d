"""Pairs, and what the doctor says of them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.api import examples
from app.api.schemas.wire import DatasetId, Wire
from app.core.tables import Dataset
from app.doctor.report import summary

Fix = Literal["swap", "crop", "align", "match_colour"]


def _listed(value: object) -> object:
    """Form fields and query parameters hold lists as words between commas."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


Fixes = Annotated[
    list[Fix],
    BeforeValidator(_listed),
    Field(
        description="Mends pairs that need it: `align` (shift, turn, size), `crop` (the same by whole pixels only, "
        "and unequal sizes), `match_colour`, `swap` (sides that were swapped). In a form or query, between commas."
    ),
]


def _present_verdict(value: object) -> object:
    """Rows of version 0.1.0 have other words."""
    words = {"shifted": "fixable", "unlike": "reject", "identical": "reject"}
    return words.get(value, value) if isinstance(value, str) else value


class DatasetOptions(Wire):
    """How to store uploaded pairs."""

    fix: Fixes = Field([])


class ImageOut(BaseModel):
    format: str
    width: int = Field(description="Pixels, after the EXIF orientation.")
    height: int


class Shift(BaseModel):
    x: float = Field(description="Pixels of the clean image, to the right.")
    y: float = Field(description="Pixels of the clean image, down.")


class SharpnessOut(BaseModel):
    clean: float = Field(description="Detail at edges, in levels of 255.")
    distorted: float
    order: Literal["right", "swapped", "equal"] = Field(
        description="Whether the image given as clean is the cleaner one; `equal` where that cannot be told."
    )


class ClippingOut(BaseModel):
    clean: float = Field(description="Share of pixels that are black or white to the last level in some channel.")
    distorted: float


class FindingOut(BaseModel):
    """Something about a pair that a person should know."""

    code: Literal[
        "identical",
        "blank",
        "unrelated",
        "swapped",
        "shifted",
        "rotated",
        "scaled",
        "colour",
        "grey_clean",
        "grey_distorted",
        "little_texture",
        "clipped",
        "duplicate",
    ]
    severity: Literal["error", "warning", "note"]
    sentence: str
    fix: Fix | None = Field(description="What would mend it; pass it as `fix` with the upload.")


class PairFigures(BaseModel):
    """What a look at a pair says, of the central 1024×1024 pixels. Fields may be null in reports of older versions."""

    clean: ImageOut
    distorted: ImageOut
    psnr_db: float | None = Field(description="Of the distorted image against the clean one; null for equal images.")
    aligned_psnr_db: float | None = Field(
        None,
        description="That, and what laying the clean image onto the distorted one gains on the central 384×384 pixels.",
    )
    shift_px: Shift = Field(description="How far the distorted image lies off the clean one, at its centre.")
    rotation_deg: float | None = Field(None, description="By how much the distorted image is turned, clockwise.")
    scale_factor: float | None = Field(None, description="By how much what the distorted image shows is enlarged.")
    correlation: float | None = Field(None, description="Of the two images' structure, aligned; 1 is the same scene.")
    gain: list[float] | None = Field(
        None, description="Of R, G and B: distorted ≈ gain · clean + offset, in levels of 255."
    )
    offset: list[float] | None = None
    colour_difference: float | None = Field(None, description="What gain and offset change on average, in levels.")
    sharpness: SharpnessOut | None = None
    texture: float | None = Field(None, description="Share of the clean image that shows any structure.")
    clipping: ClippingOut | None = None
    duplicates: list[str] = Field([], description="Pairs that show the same.")
    verdict: Annotated[Literal["good", "fixable", "reject"], BeforeValidator(_present_verdict)] = Field(
        description="Can it be trained on as it is, better after a fix, or not at all?"
    )
    note: str = Field(description="The verdict in plain words.")
    findings: list[FindingOut] = []


class FixedOut(BaseModel):
    """What was done to a pair, and what it was before."""

    applied: list[Fix]
    originals: dict[Literal["clean", "distorted"], str] = Field(description="SHA-256 of the files as they came.")
    before: PairFigures


class PairOut(PairFigures):
    """A pair as it is stored; where it was mended, `fixed` has what it was before."""

    name: str
    scale: int = Field(description="How many times larger the clean image is.")
    fixed: FixedOut | None = None


class DatasetOut(BaseModel):
    """A stored set of few-shot pairs."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DATASET]})

    id: DatasetId
    created_at: datetime
    scale: int = Field(description="How many times larger the clean images are; one number for all pairs.")
    summary: str = Field(description="What the reports say together, in plain words.")
    pairs: list[PairOut]

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetOut":
        pairs = [PairOut(name=pair.name, **pair.report) for pair in dataset.pairs]
        said = summary([pair.model_dump() for pair in pairs])
        return cls(id=dataset.id, created_at=dataset.created_at, scale=dataset.scale, summary=said, pairs=pairs)
