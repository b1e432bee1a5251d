"""The service itself."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api import examples


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
