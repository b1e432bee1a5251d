"""Everything an operator can set, read once from `DRTL_*` environment variables."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, FilePath, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.logs import LogFormat
from app.core.receivers import parsed_networks
from app.core.shares import Priority

CORES: Final = os.cpu_count() or 1
MIN_KEY_CHARACTERS: Final = 32


def _shared(cores: int, workers: int | None) -> int:
    """The threads of each worker where all of them work at once."""
    return max(1, cores // (workers or 1))


class BadSettings(Exception):
    """Variables of the environment that cannot be used, and why, in a line; without their values."""


class Settings(BaseSettings):
    """The service's configuration. Sizes are in bytes or pixels, times in seconds, as the names say."""

    # Values are left out of complaints: some are secrets.
    model_config = SettingsConfigDict(
        env_prefix="DRTL_", env_ignore_empty=True, allow_inf_nan=False, frozen=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(Path.home() / ".drtl", description="Database, blobs and broker files of the embedded mode.")
    database_url: str = Field("", description="SQLAlchemy URL; empty means SQLite in `data_dir`.")
    broker_url: str = Field(
        "redis://127.0.0.1:6379/0", description="Redis or Valkey; `drtl up` starts one and sets this."
    )
    blob_dir: Path | None = Field(None, description="Folder for images and weights, shared by all processes.")
    blob_url: str = Field(
        "",
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w!.*'()/-]*)?)?$",
        description="`s3://bucket/prefix` keeps them there instead; `AWS_*` variables say where that is, and who asks.",
    )

    host: str = "127.0.0.1"
    port: int = Field(
        8000, ge=0, le=65535, description="Taken if free; otherwise `drtl up` picks a free one and says so."
    )

    log_format: LogFormat = Field("text", description="`text` for people, `json` for programs: an object a line.")
    require_keys: Literal["auto", "always", "never"] = Field(
        "auto",
        description="`auto`: as soon as there is a key, and for everybody who does not come over loopback. `never` is "
        "for behind a proxy that authenticates: whoever reaches the service may use it, and so may any page in a "
        "browser that does, by rebinding a name.",
    )
    key_requests_per_minute: int = Field(6000, ge=0, description="Of a key without a limit of its own; 0 is no limit.")
    key_unfinished_jobs: int = Field(20, ge=0, description="Jobs of an owner that wait or run at a time; as above.")
    key_pairs: int = Field(100, ge=0, description="Pairs in a dataset; as above.")
    key_megapixels_per_day: int = Field(100_000, ge=0, description="Sent in to be restored, by an owner; as above.")
    key_stored_bytes: int = Field(100 * 2**30, ge=0, description="Uploaded files kept for an owner; as above.")

    key_priority: Priority = Field("normal", description="The highest priority that a key may give its jobs.")

    max_upload_bytes: int = Field(2**30, description="Largest request body.")
    max_image_bytes: int = Field(2**30, description="Largest image file to restore.")
    max_image_pixels: int = Field(200_000_000, description="Largest image by decoded pixels, sent in or restored.")
    max_pair_bytes: int = Field(64 * 2**20, description="Largest image file of a pair, also inside a zip.")
    max_pair_pixels: int = Field(64_000_000, description="Largest image of a pair by decoded pixels.")
    max_batch_images: int = Field(1000, ge=1, description="Most images of a batch.")
    upload_stall_s: float = Field(30.0, description="An upload that sends nothing for this long is given up.")
    upload_bytes_per_s: int = Field(
        1000, ge=1, description="An upload that is slower than this on the whole is given up, too."
    )
    download_stall_s: float = Field(30.0, gt=0, description="An answer that nobody reads for this long is given up.")
    request_head_s: float = Field(15.0, gt=0, description="For a connection to send the head of a request.")
    max_connections: int = Field(
        10_000, ge=1, description="Of an api process; another one ends the one that has been idle for longest."
    )
    idempotency_in_flight_s: float = Field(
        120.0, description="A keyed request unanswered for this long was left by a process that died."
    )
    idempotency_retention_s: float = Field(86_400.0, description="Age at which an Idempotency-Key may be used anew.")
    min_pair_side: int = Field(64, description="Shortest side of an image that can be trained on.")
    min_pairs: int = 2
    max_pairs: int = 100
    max_scale: int = Field(4, description="Largest clean:distorted size ratio.")

    examiners: int = Field(2, ge=1, description="How many processes look at uploaded pairs, while there are any.")
    examination_s: float = Field(30.0, gt=0, description="An image that takes longer to decode and examine is refused.")

    lease_s: float = Field(15.0, description="A worker that does not renew its lease for this long has lost the job.")
    heartbeat_s: float = 2.0
    reconcile_every_s: float = 2.0
    sweep_every_s: float = Field(60.0, description="How often what has outlived its retention is removed.")
    checkpoint_every_s: float = 10.0
    checkpoint_share: float = Field(
        0.05, gt=0, le=1, description="Most of a training's time that saving its state may take."
    )
    max_attempts: int = 4
    cancel_grace_s: float = Field(2.0, description="After this a cancelled job's process is killed.")
    wait_s: float = Field(120.0, description="How long a request waits for its image before the answer is 202.")
    upload_retention_s: float = 7 * 86_400.0
    result_retention_s: float = 3_600.0
    progress_retention_s: float = Field(
        30 * 86_400.0, gt=0, description="Age at which events that only tell of a job's progress are removed."
    )
    orphan_grace_s: float = Field(3_600.0, description="Age at which a blob that no row names is removed.")

    webhook_key: str = Field(
        "", repr=False, description="Secret that webhooks' secrets are made of; `drtl up` keeps one in its folder."
    )
    webhook_networks: str = Field(
        "", description="Networks (CIDR, between commas) that receivers may be in though they are not public."
    )
    webhook_http: bool = Field(False, description="Allow receivers without TLS.")
    webhook_ca_file: FilePath | None = Field(None, description="Certificates to trust besides the public ones, as PEM.")
    max_webhooks: int = Field(20, ge=0, description="Most webhooks of an owner.")
    webhook_timeout_s: float = Field(15.0, gt=0, description="From looking the receiver up to its answer's status.")
    webhook_retry_s: float = Field(5.0, gt=0, description="Pause after the first failed attempt; then it grows.")
    webhook_patience_s: float = Field(86_400.0, ge=0, description="A delivery that fails for this long is given up.")
    webhook_disable_after_s: float = Field(
        5 * 86_400.0, gt=0, description="A webhook is disabled when nothing has been delivered for this long."
    )
    webhook_retention_s: float = Field(7 * 86_400.0, description="Age at which ended deliveries are removed.")

    training_workers: int = Field(1, ge=1, description="How many jobs `drtl up` trains at a time.")
    inference_workers: int = Field(1, ge=1, description="How many processes of `drtl up` restore images.")
    training_threads: int = Field(
        default_factory=lambda given: _shared(CORES, given.get("training_workers")),
        ge=1,
        description="Of each training.",
    )
    inference_threads: int = Field(
        default_factory=lambda given: _shared(CORES // 2, given.get("inference_workers")),
        ge=1,
        description="Of each inference worker.",
    )
    devices: str = Field(
        "", description="Accelerators for trainings, as CUDA_VISIBLE_DEVICES would name them; empty means all."
    )
    jobs_per_device: int = Field(1, ge=1, description="Trainings that an accelerator has at a time.")
    training_devices: int = Field(1, ge=1, le=8, description="Accelerators (or, without any, processes) of a training.")
    warm_model_bytes: int = Field(
        2**30,
        ge=1,
        description="Weights that the inference worker keeps loaded; the model unused for longest makes room.",
    )
    clean_dir: Path | None = Field(
        None, description="Folder of clean images that transfer may use (DIV2K or your own)."
    )
    prior_path: Path | None = Field(None, description="Prior bundle; empty means the one that ships with the project.")
    lpips_weights: Path | None = Field(
        None, description="Torchvision's AlexNet or VGG-16, for LPIPS in the metrics of jobs; without it there is none."
    )

    @field_validator("webhook_key")
    @classmethod
    def _hard_to_guess(cls, key: str) -> str:
        if key and len(key) < MIN_KEY_CHARACTERS:
            raise ValueError(f"give at least {MIN_KEY_CHARACTERS} random characters")
        return key

    @field_validator("webhook_networks")
    @classmethod
    def _readable(cls, networks: str) -> str:
        parsed_networks(networks)
        return networks

    @model_validator(mode="after")
    def _fill_derived(self) -> Self:
        if not self.database_url:
            object.__setattr__(self, "database_url", f"sqlite:///{self.data_dir / 'drtl.sqlite3'}")
        if self.blob_dir is None:
            object.__setattr__(self, "blob_dir", self.data_dir / "blobs")
        return self


@lru_cache
def settings() -> Settings:
    """The process's settings, read from the environment at first use. Raises BadSettings."""
    return read_settings()


def read_settings(**others: Any) -> Settings:
    """The settings of the environment, and `others` instead of them. Raises BadSettings."""
    try:
        return Settings(**others)
    except ValidationError as error:
        said = [
            f"DRTL_{str(each['loc'][0]).upper()}: {_in_words(each)}"
            for each in error.errors()
            if each["loc"] and each["type"] != "default_factory_not_called"
        ]
        raise BadSettings("; ".join(said) or str(error)) from None


def _in_words(error: ErrorDetails) -> str:
    """What is wrong with a value, for people; the library's words where ours say no more."""
    limits = error.get("ctx", {})
    match error["type"]:
        case "int_parsing" | "int_from_float" | "int_parsing_size":
            return "a whole number is needed"
        case "float_parsing" | "finite_number":
            return "a number is needed"
        case "bool_parsing":
            return "true or false is needed"
        case "greater_than_equal":
            return f"it must be at least {limits['ge']:g}"
        case "greater_than":
            return f"it must be more than {limits['gt']:g}"
        case "less_than_equal":
            return f"it must be at most {limits['le']:g}"
        case "literal_error":
            return f"it must be {limits['expected']}"
        case "path_not_file":
            return "there is no such file"
        case "string_pattern_mismatch":  # Only one setting has a pattern.
            return "s3://bucket/prefix is needed"
        case "value_error":  # Of ours, before which the library puts what it is.
            return str(limits["error"])
    return error["msg"]
