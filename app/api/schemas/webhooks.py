"""Webhooks and what was sent to them."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.api import examples
from app.api.schemas.wire import Wire
from app.core.tables import Webhook, WebhookDelivery

EventType = Literal["job.started", "job.graph_ready", "job.requeued", "job.succeeded", "job.failed", "job.cancelled"]
DeliveryState = Literal["pending", "delivered", "failed"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)

Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        description="Where to send; `https://` unless the operator allows more, at a public address.",
        examples=[examples.WEBHOOK["url"]],
    ),
]


def _each_once(events: list[EventType]) -> list[EventType]:
    return list(dict.fromkeys(events))


Events = Annotated[
    list[EventType],
    AfterValidator(_each_once),
    Field(min_length=1, max_length=len(EVENT_TYPES), description="What to tell of.", examples=[["job.succeeded"]]),
]
Description = Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$", examples=["The lab's queue"])]


class WebhookIn(Wire):
    model_config = ConfigDict(json_schema_extra={"examples": [{"url": examples.WEBHOOK["url"]}]})

    url: Url
    events: Events = Field(list(EVENT_TYPES))
    description: Description = ""


class WebhookChange(Wire):
    """What is not given, or null, stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: bool | None = Field(
        None, description="Enabling forgets why it was disabled; disabling gives up what is on its way."
    )


class WebhookOut(BaseModel):
    """An address that hears of your jobs."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.WEBHOOK]}, from_attributes=True)

    id: str
    created_at: datetime
    url: str
    events: list[EventType]
    description: str
    enabled: bool
    failing_since: datetime | None = Field(description="The first failure since the last success.")
    disabled_at: datetime | None
    disabled_reason: str | None
    previous_secret_until: datetime | None = Field(description="Until then, the secret before signs as well.")

    @classmethod
    def of(cls, webhook: Webhook) -> "WebhookOut":
        return cls.model_validate(fields_of(webhook))


class WebhookWithSecret(WebhookOut):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.WEBHOOK_WITH_SECRET]})

    secret: str = Field(description="What the messages are signed with. Shown this once.")

    @classmethod
    def with_secret(cls, webhook: Webhook, secret: str) -> "WebhookWithSecret":
        return cls.model_validate({**fields_of(webhook), "secret": secret})


def fields_of(webhook: Webhook) -> dict[str, Any]:
    kept = {name: getattr(webhook, name) for name in WebhookOut.model_fields if name != "enabled"}
    return {**kept, "enabled": webhook.disabled_at is None}


class Rotation(Wire):
    model_config = ConfigDict(json_schema_extra={"examples": [{"keep_previous_s": 86_400}]})

    keep_previous_s: int = Field(
        86_400, ge=0, le=30 * 86_400, description="For so long, messages carry a signature by the secret before, too."
    )


class AttemptOut(BaseModel):
    """A request to the receiver: the status that it answered with, or why there is none."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    created_at: datetime
    seconds: float
    status: int | None
    error: str | None
    excerpt: str | None = Field(description="The beginning of the answer's body.")


class DeliveryOut(BaseModel):
    """A message on its way to a webhook. Its `id` is the message's `webhook-id`."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DELIVERY]})

    id: str
    webhook_id: str
    event: EventType | Literal["ping"]
    job_id: str | None
    state: DeliveryState
    created_at: datetime
    finished_at: datetime | None
    next_attempt_at: datetime | None = Field(description="Where it is pending; later if an earlier one is, too.")
    message: dict[str, Any] = Field(description="The body, as JSON.")
    attempts: list[AttemptOut]

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> "DeliveryOut":
        due = datetime.fromtimestamp(delivery.due_at, UTC) if delivery.state == "pending" else None
        names = ("id", "webhook_id", "event", "job_id", "state", "created_at", "finished_at", "attempts")
        made = {name: getattr(delivery, name) for name in names}
        return cls.model_validate(
            {**made, "next_attempt_at": due, "message": json.loads(delivery.body)}, from_attributes=True
        )
