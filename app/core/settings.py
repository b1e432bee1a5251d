"""Everything an operator can set, read once from `DRTL_*` environment variables."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.logs import LogFormat


class Settings(BaseSettings):
    """The service's configuration. Sizes are in bytes or pixels, times in seconds, as the names say."""

    model_config = SettingsConfigDict(env_prefix="DRTL_", frozen=True)

    data_dir: Path = Field(Path.home() / ".drtl", description="Database, blobs and broker files of the embedded mode.")
    database_url: str = Field("", description="SQLAlchemy URL; empty means SQLite in `data_dir`.")
    broker_url: str = Field(
        "redis://127.0.0.1:6379/0", description="Redis or Valkey; `drtl up` starts one and sets this."
    )
    blob_dir: Path | None = Field(None, description="Folder for images and weights, shared by all processes.")

    host: str = "127.0.0.1"
    port: int = Field(
        8000, ge=0, le=65535, description="Taken if free; otherwise `drtl up` picks a free one and says so."
    )

    log_format: LogFormat = Field("text", description="`text` for people, `json` for programs: an object a line.")
    require_keys: Literal["auto", "always", "never"] = Field(
        "auto", description="`auto`: as soon as there is a key, and for everybody who does not come over loopback."
    )
    key_requests_per_minute: int = Field(6000, ge=0, description="Of a key without a limit of its own; 0 is no limit.")
    key_unfinished_jobs: int = Field(20, ge=0, description="Jobs of an owner that wait or run at a time; as above.")
    key_pairs: int = Field(100, ge=0, description="Pairs in a dataset; as above.")
    key_megapixels_per_day: int = Field(100_000, ge=0, description="Sent in to be restored, by an owner; as above.")
    key_stored_bytes: int = Field(100 * 2**30, ge=0, description="Uploaded files kept for an owner; as above.")

    max_upload_bytes: int = Field(2**30, description="Largest request body.")
    max_image_bytes: int = Field(2**30, description="Largest image file to restore.")
    max_image_pixels: int = Field(200_000_000, description="Largest image by decoded pixels, sent in or restored.")
    max_pair_bytes: int = Field(64 * 2**20, description="Largest image file of a pair, also inside a zip.")
    max_pair_pixels: int = Field(64_000_000, description="Largest image of a pair by decoded pixels.")
    max_batch_images: int = Field(1000, ge=1, description="Most images of a batch.")
    upload_stall_s: float = Field(30.0, description="An upload that sends nothing for this long is given up.")
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
    reconcile_every_s: float = 3.0
    sweep_every_s: float = Field(60.0, description="How often what has outlived its retention is removed.")
    checkpoint_every_s: float = 10.0
    max_attempts: int = 4
    cancel_grace_s: float = Field(10.0, description="After this a cancelled job's process is killed.")
    wait_s: float = Field(120.0, description="How long a request waits for its image before the answer is 202.")
    upload_retention_s: float = 7 * 86_400.0
    result_retention_s: float = 3_600.0
    orphan_grace_s: float = Field(3_600.0, description="Age at which a blob that no row names is removed.")

    training_threads: int = Field(os.cpu_count() or 1, ge=1)
    inference_threads: int = Field(max(1, (os.cpu_count() or 2) // 2), ge=1)
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

    @model_validator(mode="after")
    def _fill_derived(self) -> Self:
        if not self.database_url:
            object.__setattr__(self, "database_url", f"sqlite:///{self.data_dir / 'drtl.sqlite3'}")
        if self.blob_dir is None:
            object.__setattr__(self, "blob_dir", self.data_dir / "blobs")
        return self


@lru_cache
def settings() -> Settings:
    """The process's settings, read from the environment at first use."""
    return Settings()
