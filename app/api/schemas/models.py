"""Registered models."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.api import examples
from app.api.schemas.wire import LARGEST_INTEGER, Wire
from app.core.tables import ModelVersion


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
