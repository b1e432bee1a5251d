"""What goes over the wire, typed, with an example for each."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.api import examples
from app.core.batches import Tally
from app.core.tables import Batch, Dataset, Job, JobEvent, ModelVersion, Operation
from app.doctor.report import summary

T = TypeVar("T")

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
REFERENCE_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}(@([a-z][a-z0-9._-]{0,62}|[1-9][0-9]{0,8}))?$"
RESERVED_NAME = "auto"  # Where a model is asked for, it leaves the choice to the service.
LARGEST_INTEGER = 2**31 - 1  # What every database can compare.
JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
Phase = Literal["validating", "embedding", "transferring", "fine_tuning", "evaluating", "registering"]

DatasetId = Annotated[str, Field(pattern=r"^ds_[0-9a-f]{1,36}$", examples=[examples.DATASET["id"]])]
JobIdPath = Annotated[str, Path(pattern=r"^job_[0-9a-f]{1,36}$", examples=[examples.JOB["id"]])]
BatchIdPath = Annotated[str, Path(pattern=r"^batch_[0-9a-f]{1,34}$", examples=[examples.BATCH["id"]])]
OperationIdPath = Annotated[str, Path(pattern=r"^op_[0-9a-f]{1,36}$", examples=[examples.OPERATION["id"]])]
ModelNamePath = Annotated[str, Path(pattern=NAME_PATTERN, examples=["scanner"])]


class Wire(BaseModel):
    """Refuses what it does not know: a misspelt option must not be ignored."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, protected_namespaces=())


class Reported(BaseModel):
    """Written by the method, which may say more than is promised here."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Page(BaseModel, Generic[T]):
    """A page of a list; where `next` is not null, pass it as `after` to get the following page."""

    items: list[T]
    next: str | None = None


# Datasets

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

    fix: Fixes = []


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


# Jobs


def _digits_as_number(value: object) -> object:
    """Form fields are strings, which a literal number does not take."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value


def _not_reserved(name: str) -> str:
    if name == RESERVED_NAME:
        raise ValueError(f"{name!r} is reserved for letting the service choose a model")
    return name


class JobOptions(Wire):
    """What to train. Only `name` must be given."""

    name: Annotated[str, AfterValidator(_not_reserved)] = Field(
        pattern=NAME_PATTERN,
        description=f"The name of the model to make; any but `{RESERVED_NAME}`.",
        examples=["scanner"],
        json_schema_extra={"not": {"const": RESERVED_NAME}},
    )
    new_version: bool = Field(False, description="Allow the name of an existing model, and add a version to it.")
    preset: Literal["quick", "standard", "paper"] = Field("quick", description="How long to train.")
    scheme: Literal["auto", "baseline", "pretrain", "drtl-pretrain"] = Field(
        "auto", description="`auto` lets several ways to start race on held-out pairs; the others are the paper's."
    )
    backbone: Literal["vdsr", "dncnn", "rcan", "rdn"] = Field(
        "vdsr", description="The network to train; `rcan` and `rdn` are some twenty-five times as large as the others."
    )
    unshuffle: Annotated[Literal[1, 2, 4] | None, BeforeValidator(_digits_as_number)] = Field(
        None, description="Pixel-unshuffle factor; at least the scale of the pairs. Null: 2, or more if need be."
    )
    init: Literal["prior", "scratch"] = Field("prior", description="Start from the prior, or as the paper does.")
    seed: int = Field(0, ge=0, le=2**53 - 1)
    transfer_steps: int | None = Field(None, ge=0, le=1_000_000, description="Null: the preset's.")
    finetune_steps: int | None = Field(None, ge=1, le=1_000_000, description="Null: the preset's.")
    loss: Literal["l1", "shift_tolerant"] = Field(
        "l1", description="Of fine-tuning. `shift_tolerant` forgives pairs that lie up to a pixel off each other."
    )
    fix: Fixes = []
    allow_rejects: bool = Field(False, description="Train on pairs that the doctor rejects, too.")


class JobFromDataset(JobOptions):
    """A job on pairs that were uploaded before."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB_FROM_DATASET]})

    dataset_id: DatasetId


class JobError(BaseModel):
    code: str | None
    message: str | None


class Quality(Reported):
    psnr: float | None = Field(None, description="dB, pixel against pixel")
    ssim: float | None = None
    aligned_psnr: float | None = Field(None, description="dB after the shift of up to two pixels that fits best")
    steps: int | None = Field(None, description="Fine-tuning steps behind it.")


class PairQuality(Reported):
    name: str
    input_psnr: float | None = None
    baseline_psnr: float | None = None
    result_psnr: float | None = None
    input_ssim: float | None = None
    result_ssim: float | None = None
    input_aligned_psnr: float | None = None
    result_aligned_psnr: float | None = None


class CandidateOut(Reported):
    name: str
    psnr: float | None = None
    steps: int | None = None
    stopped_early: bool | None = None


class Metrics(Reported):
    """Measured on held-out pairs (or halves, where pairs are few): the input, the baseline, the chosen model."""

    protocol: Literal["pairs", "halves"]
    held_out: list[str]
    input: Quality
    baseline: Quality
    result: Quality
    chosen: str
    gain_db: float
    per_pair: list[PairQuality] = []
    candidates: list[CandidateOut] = []
    seconds: dict[str, float] = {}


class ModelReference(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    name: str
    version: int
    reference: str = Field(description="`name@version`, as the super-resolve path takes it.")


class JobOut(BaseModel):
    """A few-shot training, from the queue to the registered model."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB]}, protected_namespaces=())

    id: str
    name: str = Field(description="The name of the model that it makes.")
    dataset_id: str
    options: JobOptions
    state: JobState
    phase: Phase | None
    progress: float = Field(ge=0, le=1, description="Of the whole job.")
    eta_s: float | None = Field(description="Seconds to go, where known.")
    attempt: int = Field(description="How often a worker has begun it; above 1 after an interruption.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    verdict: Literal["gain", "no_gain"] | None = Field(
        description="Whether the model beats leaving images as they are."
    )
    explanation: str | None
    metrics: Metrics | None
    model: ModelReference | None = Field(description="The registered model, once the job has succeeded.")
    error: JobError | None = Field(description="Why the job failed, if it did.")

    @classmethod
    def of(cls, job: Job) -> "JobOut":
        model = None
        if job.model_version is not None:
            reference = f"{job.name}@{job.model_version}"
            model = ModelReference(name=job.name, version=job.model_version, reference=reference)
        error = None if job.error_code is None else JobError(code=job.error_code, message=job.error_message)
        fields = {name: getattr(job, name) for name in cls.model_fields if name not in {"model", "error"}}
        return cls.model_validate({**fields, "model": model, "error": error})


class EventOut(BaseModel):
    """Something that happened to a job. `kind` says what the payload holds."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.EVENT]})

    id: int = Field(description="Grows with time; pass it as `after`, or as `Last-Event-ID`, to get what came later.")
    job_id: str
    created_at: datetime
    kind: str = Field(
        description="`started`, `progress`, `graph`, `preview`, `requeued`, `cancelling`, `succeeded`, `failed` or "
        "`cancelled`."
    )
    payload: dict[str, Any]

    @classmethod
    def of(cls, event: JobEvent) -> "EventOut":
        fields = {name: getattr(event, name) for name in cls.model_fields}
        if event.kind == "preview":
            # Each look has an address of its own, since browsers keep the image that they have.
            fields["payload"] = event.payload | {"url": f"/v1/jobs/{event.job_id}/preview?event={event.id}"}
        return cls.model_validate(fields)


# The relation graph


class GraphFacts(Reported):
    target: str = Field(description="The id of the target's node.")
    metric: str
    verdict: Literal["related", "unrelated"]
    sentence: str = Field(description="What the graph says, in plain words.")
    prior: str = Field(description="The version of the prior whose distortions are compared with.")
    ranking: list[str] = Field(description="Auxiliary distortions by falling γ.")
    projection: str


class GraphNode(Reported):
    """A distortion. γ and what follows from it belong to auxiliary nodes only."""

    id: str
    kind: Literal["auxiliary", "target"]
    x: float
    y: float
    psnr_db: float = Field(description="Mean strength of the distortion.")
    gamma: float | None = Field(None, description="Cosine with the target's node.")
    gamma_std: float | None = Field(None, description="Its spread over the few-shot pairs.")
    gamma_min: float | None = None
    gamma_max: float | None = None
    rank: int | None = None
    weight: float | None = Field(None, description="γ clamped at 0 and normalised to sum 1.")
    samples: list[tuple[float, float]] = []


class GraphLink(Reported):
    source: str
    target: str
    cosine: float


class GraphOut(BaseModel):
    """The relation graph in node-link form, as `networkx.node_link_graph` loads it; `edges` equals `links`."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.GRAPH]})

    directed: bool
    multigraph: bool
    graph: GraphFacts
    nodes: list[GraphNode]
    links: list[GraphLink]
    edges: list[GraphLink]


# Models


class ModelOut(BaseModel):
    """A model: all versions under one name, and the aliases that point at some of them."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MODEL]})

    name: str
    versions: list[int] = Field(description="Newest first.")
    aliases: dict[str, int] = Field(description="`production` is used where a request names no version.")
    created_at: datetime = Field(description="When the newest version was registered.")


class VersionOut(BaseModel):
    """A trained model with its card: data, γ, metrics, seed, prior, code and licence."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.VERSION]})

    name: str
    version: int
    created_at: datetime
    job_id: str
    aliases: list[str]
    weights_sha256: str
    card: dict[str, Any]

    @classmethod
    def of(cls, model: ModelVersion, aliases: dict[str, int]) -> "VersionOut":
        return cls(
            name=model.name,
            version=model.version,
            created_at=model.created_at,
            job_id=model.job_id,
            aliases=[alias for alias, version in aliases.items() if version == model.version],
            weights_sha256=model.weights_blob,
            card=model.card,
        )


class AliasIn(Wire):
    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 2}]})

    version: int = Field(ge=1, le=LARGEST_INTEGER)


class AliasOut(Wire):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "scanner", "alias": "production", "version": 2}]}
    )

    name: str
    alias: str
    version: int


# Super-resolution


OutputFormat = Literal["png", "webp", "jpeg", "tiff"]
ModelReferenceIn = Annotated[
    str,
    Field(
        pattern=REFERENCE_PATTERN,
        description=(
            "`name` for the version in `production`, `name@alias` or `name@version`; or `auto` for the promoted model "
            "whose training distortion is nearest to the image's."
        ),
        examples=["scanner"],
    ),
]


class RestoreOptions(Wire):
    """How to restore an image. Every option has a default."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Arithmetic; `auto` takes the fastest that the device does well."
    )
    outscale: float | None = Field(
        None,
        gt=0,
        le=8,
        allow_inf_nan=False,
        description="Final size, relative to the input's. Without it, the size that the model makes.",
        examples=[2.0],
    )
    ensemble: Annotated[Literal[1, 8], BeforeValidator(_digits_as_number)] = Field(
        1, description="8: the mean over the eight flips and rotations of the image; eight times the work."
    )
    explain: bool = Field(False, description="Also map, for every pixel, how far the result can be trusted.")
    metadata: Literal["keep", "strip"] = Field(
        "keep", description="Whether EXIF, XMP and resolution stay. Colour profiles always do."
    )
    quality: int | None = Field(
        None, ge=1, le=100, description="Of JPEG and WebP; the others lose nothing.", examples=[90]
    )


class OperationOptions(RestoreOptions):
    output: OutputFormat = Field("png", description="The format of the restored image.")


class BatchOptions(RestoreOptions):
    output: OutputFormat | None = Field(
        None, description="The format of the restored images. Null: each its own, and PNG for BMP.", examples=["png"]
    )


class BatchIn(BatchOptions):
    """What to do with the images of a batch. Only `model` must be given."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "scanner", "output": "png"}]})

    model: ModelReferenceIn


class RestoreSeconds(Reported):
    decode: float | None = None
    restore: float | None = None
    encode: float | None = None


class RestoreFacts(Reported):
    """How an image was restored."""

    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    depth: int | None = Field(None, description="Bits per channel.")
    tile: int | None = Field(None, description="Side of the tiles, pixels.")
    tiles: int | None = None
    precision: str | None = None
    fallback_tiles: int | None = Field(None, description="Tiles computed again in fp32, for want of range.")
    match: float | None = Field(
        None, description="How close the image's distortion is to what the model was trained on, in 0…1."
    )
    match_word: str | None = Field(None, description="`close`, `near` or `far`.")
    match_note: str | None = Field(None, description="The same in a sentence.")
    seconds: RestoreSeconds | None = None


class OperationOut(BaseModel):
    """One image on its way through a model."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.OPERATION]})

    id: str
    batch: str | None = Field(description="The batch that it is part of.")
    position: int | None = Field(description="Its place in the batch, from 0.")
    name: str | None = Field(description="The name that the file came with in the batch.")
    state: JobState
    progress: float = Field(ge=0, le=1)
    model: str | None = Field(description="`name@version`; null until one is chosen where `auto` was asked for.")
    options: OperationOptions
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    facts: RestoreFacts | None = Field(description="How it was restored, once it has succeeded.")
    result: str | None = Field(description="Where the image is, once there is one.")
    trust: str | None = Field(description="Where the trust map is, once there is one.")
    error: JobError | None

    @classmethod
    def of(cls, operation: Operation) -> "OperationOut":
        path = f"/v1/operations/{operation.id}"
        named = operation.model_name is not None
        failed = operation.state == "failed"
        return cls.model_validate(
            {
                "id": operation.id,
                "batch": operation.batch_id,
                "position": operation.position,
                "name": operation.file_name,
                "state": operation.state,
                "progress": operation.progress,
                "model": f"{operation.model_name}@{operation.model_version}" if named else None,
                "options": operation.options,
                "created_at": operation.created_at,
                "started_at": operation.started_at,
                "finished_at": operation.finished_at,
                "facts": operation.result,
                "result": f"{path}/result" if operation.output_blob is not None else None,
                "trust": f"{path}/trust" if operation.trust_blob is not None else None,
                "error": JobError(code=operation.error_code, message=operation.error_message) if failed else None,
            }
        )


class Counts(BaseModel):
    """How many images of a batch are in each state."""

    total: int
    queued: int = 0
    running: int = 0
    cancelling: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class BatchOut(BaseModel):
    """Many images sent at once. It has succeeded if any of them has; `counts` says how many have not."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BATCH]})

    id: str
    state: JobState
    progress: float = Field(ge=0, le=1, description="By pixels.")
    counts: Counts
    model: str = Field(description="As it was asked for.")
    options: BatchOptions
    created_at: datetime
    finished_at: datetime | None
    result: str = Field(description="Where the zip of the restored images is, once the batch has ended.")

    @classmethod
    def of(cls, batch: Batch, tally: Tally) -> "BatchOut":
        return cls.model_validate(
            {
                "id": batch.id,
                "state": tally.state(batch),
                "progress": tally.progress,
                "counts": {"total": tally.total, **tally.counts},
                "model": batch.model,
                "options": batch.options,
                "created_at": batch.created_at,
                "finished_at": tally.finished_at if tally.ended else None,
                "result": f"/v1/batches/{batch.id}/result",
            }
        )


class BatchWithItems(BatchOut):
    """A batch with a page of its images; where `next` is not null, pass it as `after` to get the following page."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BATCH_WITH_ITEMS]})

    items: list[OperationOut] = Field(description="In the order in which they were sent.")
    next: int | None = None


# Health


class Health(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"]


class Readiness(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.READY]})

    status: Literal["ready"]
    checks: dict[str, Literal["ok"]]


class SessionOut(BaseModel):
    """How long the cookie that came along stands in for the key."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"expires_in_s": 3600}]})

    expires_in_s: int | None = Field(description="None where no key is needed.", examples=[3600])
