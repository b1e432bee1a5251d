"""`/v1/webhooks`: addresses that hear of jobs, and what was sent to them."""

import threading
from typing import Annotated, Final

from fastapi import APIRouter, Body, Path, Query, Response

from app.api import examples
from app.api.deps import LimitQuery, ReadSessionDep, ServicesDep, SessionDep
from app.api.problems import problems
from app.api.schemas.webhooks import (
    DeliveryOut,
    DeliveryState,
    Rotation,
    WebhookChange,
    WebhookIn,
    WebhookOut,
    WebhookWithSecret,
)
from app.api.schemas.wire import Page
from app.core import deliveries, webhooks
from app.core.errors import BadRequest, BadWebhookUrl, Conflict, NotFound, OverQuota, Unavailable, Unprocessable
from app.core.settings import Settings

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

WEBHOOK_ID = r"^wh_[0-9a-f]{1,36}$"
DELIVERY_ID = r"^msg_[0-9a-f]{1,35}$"
WebhookId = Annotated[str, Path(pattern=WEBHOOK_ID, examples=[examples.WEBHOOK["id"]])]
OptionalRotation = Annotated[Rotation | None, Body(examples=[{"keep_previous_s": 86_400}])]
DeliveryId = Annotated[str, Path(pattern=DELIVERY_ID, examples=[examples.DELIVERY["id"]])]


LOOK_UPS: Final = threading.BoundedSemaphore(8)


def require_receiver(url: str, settings: Settings) -> None:
    """Raise BadWebhookUrl unless messages could be sent there, or Unavailable where too many names are looked up.

    Names whose servers do not answer take the resolver many seconds each, and its caller's thread with them, of which
    everybody else needs some.
    """
    if not LOOK_UPS.acquire(blocking=False):
        raise Unavailable("Too many names are being looked up at this moment.", retry_after_s=5)
    try:
        webhooks.receivers(settings).check(url)
    finally:
        LOOK_UPS.release()


@router.post("", status_code=201, responses=problems(BadRequest, OverQuota, Conflict, BadWebhookUrl, Unprocessable))
def create_webhook(
    asked: WebhookIn, services: ServicesDep, session: SessionDep, response: Response
) -> WebhookWithSecret:
    """Have your jobs' events sent to an address. The secret that they are signed with is shown this once.

    Messages follow the Standard Webhooks specification: verify `webhook-signature`, answer with any 2xx within seconds,
    and expect a message twice now and then, under the same `webhook-id`.
    """
    require_receiver(asked.url, services.settings)
    made = webhooks.register(session, services.settings, asked.url, asked.events, asked.description)
    session.commit()
    response.headers["Location"] = f"/v1/webhooks/{made.id}"
    response.headers["Cache-Control"] = "no-store"
    return WebhookWithSecret.with_secret(made, webhooks.secret(made, services.settings))


@router.get(
    "",
    responses={
        **problems(Unprocessable),
        200: {"content": {"application/json": {"example": {"items": [examples.WEBHOOK], "next": None}}}},
    },
)
def list_webhooks(
    session: ReadSessionDep,
    limit: LimitQuery = 20,
    after: Annotated[str | None, Query(pattern=WEBHOOK_ID, description="The `next` of the page before.")] = None,
) -> Page[WebhookOut]:
    """List webhooks, newest first."""
    found = webhooks.list_webhooks(session, limit, after)
    following = found[-1].id if len(found) == limit else None
    return Page(items=[WebhookOut.of(webhook) for webhook in found], next=following)


@router.get("/{webhook_id}", responses=problems(NotFound))
def get_webhook(webhook_id: WebhookId, session: ReadSessionDep) -> WebhookOut:
    """A webhook: what it hears of, and whether it still does."""
    return WebhookOut.of(webhooks.get(session, webhook_id))


@router.patch("/{webhook_id}", responses=problems(BadRequest, NotFound, BadWebhookUrl, Unprocessable))
def change_webhook(
    webhook_id: WebhookId, asked: WebhookChange, services: ServicesDep, session: SessionDep
) -> WebhookOut:
    """Change what is given, and leave the rest. `enabled` brings a webhook back that was disabled for failing."""
    changes = asked.model_dump(exclude_none=True)
    webhook = webhooks.get_to_change(session, webhook_id)
    if "url" in changes:
        session.commit()  # Names are looked up without a transaction; meanwhile the webhook may be changed or deleted.
        require_receiver(changes["url"], services.settings)
        webhook = webhooks.get_to_change(session, webhook_id)
    webhooks.change(session, webhook, changes)
    session.commit()
    return WebhookOut.of(webhook)


@router.delete("/{webhook_id}", status_code=204, responses=problems(NotFound))
def delete_webhook(webhook_id: WebhookId, session: SessionDep) -> None:
    """Forget a webhook, what was sent to it, and what was to be sent."""
    session.delete(webhooks.get(session, webhook_id))
    session.commit()


@router.post("/{webhook_id}/secret", responses=problems(BadRequest, NotFound, Conflict, Unprocessable))
def rotate_secret(
    webhook_id: WebhookId,
    services: ServicesDep,
    session: SessionDep,
    response: Response,
    asked: OptionalRotation = None,
) -> WebhookWithSecret:
    """Get another secret. Messages carry a signature by each of the two until the one before has run out."""
    webhook = webhooks.get_to_change(session, webhook_id)
    webhooks.rotate(webhook, services.settings, (asked or Rotation()).keep_previous_s)
    session.commit()
    response.headers["Cache-Control"] = "no-store"
    return WebhookWithSecret.with_secret(webhook, webhooks.secret(webhook, services.settings))


@router.post("/{webhook_id}/ping", status_code=202, responses=problems(NotFound, Conflict))
def ping_webhook(webhook_id: WebhookId, services: ServicesDep, session: SessionDep, response: Response) -> DeliveryOut:
    """Send a message of type `ping`, to see whether it arrives; look at the delivery at the `Location` header."""
    delivery = deliveries.ping(session, webhooks.get_to_change(session, webhook_id))
    session.commit()
    services.queue.send_webhooks()
    response.headers["Location"] = f"/v1/webhooks/{webhook_id}/deliveries/{delivery.id}"
    return DeliveryOut.of(delivery)


@router.get(
    "/{webhook_id}/deliveries",
    responses={
        **problems(NotFound, Unprocessable),
        200: {"content": {"application/json": {"example": {"items": [examples.DELIVERY], "next": None}}}},
    },
)
def list_deliveries(
    webhook_id: WebhookId,
    session: ReadSessionDep,
    limit: LimitQuery = 20,
    after: Annotated[str | None, Query(pattern=DELIVERY_ID, description="The `next` of the page before.")] = None,
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.", examples=["failed"])] = None,
) -> Page[DeliveryOut]:
    """What was sent to a webhook or will be, newest first, with every attempt. It is forgotten after some days."""
    webhooks.get(session, webhook_id)
    found = deliveries.list_deliveries(session, webhook_id, limit, after, state)
    following = found[-1].id if len(found) == limit else None
    return Page(items=[DeliveryOut.of(delivery) for delivery in found], next=following)


@router.get("/{webhook_id}/deliveries/{delivery_id}", responses=problems(NotFound))
def get_delivery(webhook_id: WebhookId, delivery_id: DeliveryId, session: ReadSessionDep) -> DeliveryOut:
    """A message, whether it has arrived, and what came of every attempt."""
    return DeliveryOut.of(deliveries.get(session, webhook_id, delivery_id))


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202, responses=problems(NotFound, Conflict)
)
def redeliver(
    webhook_id: WebhookId, delivery_id: DeliveryId, services: ServicesDep, session: SessionDep
) -> DeliveryOut:
    """Send a message that has ended once more, under the same `webhook-id`. It keeps no order with others."""
    webhook, delivery = webhooks.get_to_change(session, webhook_id), deliveries.get(session, webhook_id, delivery_id)
    deliveries.redeliver(session, webhook, delivery)
    session.commit()
    services.queue.send_webhooks()
    return DeliveryOut.of(delivery)
