"""Trainings: what may be asked for, and what became of it."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.api import examples
from app.api.schemas.as_stored import AsStored
from app.api.schemas.datasets import Fixes
from app.api.schemas.wire import (
    NAME_PATTERN,
    RESERVED_NAME,
    DatasetId,
    JobError,
    JobState,
    Reported,
    Wire,
    digits_as_number,
)
from app.core.shares import Priority
from app.core.tables import Job, JobEvent

Phase = Literal["validating", "embedding", "transferring", "fine_tuning", "evaluating", "registering"]


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
    preset: Literal["draft", "quick", "standard", "paper"] = Field(
        "quick",
        description="How long to train; `draft` only fits the prior to the pairs, in a fraction of the time. A network "
        "that the prior does not know is not refused, but trained from nothing in as few steps.",
    )
    scheme: Literal["auto", "baseline", "pretrain", "maml", "drtl-pretrain", "drtl-maml"] = Field(
        "auto", description="`auto` lets several ways to start race on held-out pairs; the others are the paper's."
    )
    backbone: Literal["vdsr", "vdsr-small", "dncnn", "rcan", "rdn"] = Field(
        "vdsr",
        description="The network to train; `vdsr-small` computes half as much as `vdsr`, `rcan` and `rdn` 25 times.",
    )
    unshuffle: Annotated[Literal[1, 2, 4] | None, BeforeValidator(digits_as_number)] = Field(
        None, description="Pixel-unshuffle factor; at least the scale of the pairs. Null: 2, or more if need be."
    )
    init: Literal["prior", "scratch"] = Field("prior", description="Start from the prior, or as the paper does.")
    seed: int = Field(0, ge=0, le=2**53 - 1)
    transfer_steps: int | None = Field(None, ge=0, le=1_000_000, description="Null: the preset's.")
    finetune_steps: int | None = Field(None, ge=1, le=1_000_000, description="Null: the preset's.")
    loss: Literal["l1", "shift_tolerant"] = Field(
        "l1", description="Of fine-tuning. `shift_tolerant` forgives pairs that lie up to a pixel off each other."
    )
    select: Literal["paper", "all", "top-k"] = Field(
        "paper",
        description="Which known distortions to learn from: the paper's seven, all, or the `top_k` best by `prefer`.",
    )
    prefer: Literal["transferability", "likeness"] = Field(
        "transferability",
        description="Which auxiliary tasks a guided transfer prefers: those whose experts gain most on the pairs, or "
        "those most like the target by γ, as the paper does.",
    )
    guidance: Literal["weight", "sample"] = Field(
        "sample", description="How that acts: it weighs the tasks' losses, or says how often each is drawn."
    )
    temperature: float | None = Field(
        None,
        ge=1e-3,
        le=100,
        description="τ of softmax(·/τ), in dB for `transferability`. Null: 0.1 dB; for `likeness` γ as it is.",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        le=1_000,
        description="Only so many tasks take part, the best by `prefer`: of schemes that the relation guides, and with "
        "`select: top-k` of all that transfer. All take part where nothing tells which is best. Null: all, and seven "
        "with `select: top-k`.",
    )
    maml_order: Literal["first", "second"] | None = Field(
        None,
        description="Whether the outer gradient of `maml` and `drtl-maml` looks through the inner. Null: the preset's.",
    )
    inner_rate: float | None = Field(
        None, ge=0, le=1, description="Learning rate of the inner step of `maml` and `drtl-maml`. Null: the preset's."
    )
    linear_probe: bool = Field(
        True,
        description="What is fine-tuned straight from the prior begins with a last layer fitted to the pairs in "
        "closed form, and a draft ends with one.",
    )
    priority: Priority = Field(
        "normal",
        description="`high` goes before the owner's other jobs and gets a larger share of the workers, `low` the "
        "reverse; none waits for ever. A key may be limited to less than `high`.",
    )
    fix: Fixes = Field([])
    allow_rejects: bool = Field(False, description="Train on pairs that the doctor rejects, too.")


class JobFromDataset(JobOptions):
    """A job on pairs that were uploaded before."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB_FROM_DATASET]})

    dataset_id: DatasetId


class Quality(Reported):
    psnr: float | None = Field(None, description="dB, pixel against pixel")
    ssim: float | None = None
    aligned_psnr: float | None = Field(None, description="dB after the shift of up to two pixels that fits best")
    psnr_y: float | None = Field(None, description="dB, of the luma of ITU-R BT.601 in its narrow range")
    ssim_y: float | None = Field(None, description="of the same luma")
    lpips: float | None = Field(None, description="Perceptual distance, where the operator has its weights.")
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
    input_lpips: float | None = None
    result_lpips: float | None = None


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
    per_pair: list[PairQuality] = Field([])
    candidates: list[CandidateOut] = Field([])
    seconds: dict[str, float] = Field({})


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
    options: Annotated[dict[str, Any], AsStored(JobOptions)]
    state: JobState
    phase: Phase | None
    progress: float = Field(ge=0, le=1, description="Of the whole job.")
    eta_s: float | None = Field(description="Seconds to go, where known.")
    queue_position: int | None = Field(
        description="While it waits: about the how-manieth it is to be begun, 1 being the next. Null in lists."
    )
    attempt: int = Field(description="How often a worker has begun it; above 1 after an interruption.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    verdict: Literal["gain", "no_gain"] | None = Field(
        description="Whether the model beats leaving images as they are."
    )
    explanation: str | None
    metrics: Metrics | None
    model: ModelReference | None = Field(
        description="What it has registered, once it has succeeded; it may have been deleted since."
    )
    error: JobError | None = Field(description="Why the job failed, if it did.")

    @classmethod
    def of(cls, job: Job, queue_position: int | None = None) -> "JobOut":
        model = None
        if job.model_version is not None:
            reference = f"{job.name}@{job.model_version}"
            model = ModelReference(name=job.name, version=job.model_version, reference=reference)
        error = None if job.error_code is None else JobError(code=job.error_code, message=job.error_message)
        made = {"model": model, "error": error, "queue_position": queue_position}
        fields = {name: getattr(job, name) for name in cls.model_fields if name not in made}
        return cls.model_validate({**fields, **made})


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
