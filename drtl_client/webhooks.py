"""`client.webhooks`: addresses that hear of jobs. Receivers verify what they hear with `drtl_client.signatures`."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from drtl_client.documents import Delivery, Webhook
from drtl_client.flow import Flow, Request, Stream, fetch, send
from drtl_client.methods import AsyncResource, Resource, async_iterating, awaiting, blocking, iterating
from drtl_client.pages import paged
from drtl_client.paths import segment

WebhookRef: TypeAlias = Webhook | str
DeliveryRef: TypeAlias = Delivery | str


def _path(webhook: WebhookRef, rest: str = "") -> str:
    return f"/v1/webhooks/{segment('webhook', webhook if isinstance(webhook, str) else webhook.id)}{rest}"


def create(url: str, *, events: Sequence[str] | None = None, description: str = "") -> Flow[Webhook]:
    """Have jobs' events sent to the URL: those named, or all. Its `secret` is there this once.

    Raises BadWebhookUrl.
    """
    body: dict[str, Any] = {"url": url, "description": description}
    if events is not None:
        body["events"] = list(events)
    return Webhook.of((yield from fetch(Request("POST", "/v1/webhooks", json=body, repeatable=False))))


def get(webhook: WebhookRef) -> Flow[Webhook]:
    """What it hears of, and whether it still does."""
    return Webhook.of((yield from fetch(Request("GET", _path(webhook)))))


def list_webhooks(*, limit: int | None = None) -> Stream[Webhook]:
    """Webhooks, the newest first, page by page as they are asked for: at most `limit`, or all."""
    yield from paged("/v1/webhooks", Webhook.of, {}, limit)


def change(
    webhook: WebhookRef,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    description: str | None = None,
    enabled: bool | None = None,
) -> Flow[Webhook]:
    """Change what is given. Disabling gives up what is on its way. Raises BadWebhookUrl."""
    wanted = None if events is None else list(events)
    given = {"url": url, "events": wanted, "description": description, "enabled": enabled}
    changes = {name: value for name, value in given.items() if value is not None}
    return Webhook.of((yield from fetch(Request("PATCH", _path(webhook), json=changes))))


def delete(webhook: WebhookRef) -> Flow[None]:
    """Forget it, with all that was sent or was to be sent."""
    yield from send(Request("DELETE", _path(webhook), repeatable=False))


def rotate(webhook: WebhookRef, *, keep_previous_s: int = 86_400) -> Flow[Webhook]:
    """Get another `secret`. For so long, messages carry a signature by the one before, too."""
    body = {"keep_previous_s": keep_previous_s}
    return Webhook.of((yield from fetch(Request("POST", _path(webhook, "/secret"), json=body, repeatable=False))))


def ping(webhook: WebhookRef) -> Flow[Delivery]:
    """Have a message of type `ping` sent."""
    return Delivery.of((yield from fetch(Request("POST", _path(webhook, "/ping"), repeatable=False))))


def deliveries(webhook: WebhookRef, *, state: str | None = None, limit: int | None = None) -> Stream[Delivery]:
    """What was sent or will be, the newest first: `pending`, `delivered` or `failed`, or all."""
    params = {} if state is None else {"state": state}
    yield from paged(_path(webhook, "/deliveries"), Delivery.of, params, limit)


def delivery(webhook: WebhookRef, delivery: DeliveryRef) -> Flow[Delivery]:
    """A message with every attempt."""
    return Delivery.of((yield from fetch(Request("GET", _path(webhook, f"/deliveries/{_segment(delivery)}")))))


def redeliver(webhook: WebhookRef, delivery: DeliveryRef) -> Flow[Delivery]:
    """Have a message sent once more, under the same id. Raises Conflict while it is on its way."""
    path = _path(webhook, f"/deliveries/{_segment(delivery)}/redeliver")
    return Delivery.of((yield from fetch(Request("POST", path, repeatable=False))))


def _segment(delivery: DeliveryRef) -> str:
    return segment("delivery", delivery if isinstance(delivery, str) else delivery.id)


class Webhooks(Resource):
    """Addresses that hear of jobs."""

    create = blocking(create)
    get = blocking(get)
    list = iterating(list_webhooks)
    change = blocking(change)
    delete = blocking(delete)
    rotate = blocking(rotate)
    ping = blocking(ping)
    deliveries = iterating(deliveries)
    delivery = blocking(delivery)
    redeliver = blocking(redeliver)


class AsyncWebhooks(AsyncResource):
    """Addresses that hear of jobs."""

    create = awaiting(create)
    get = awaiting(get)
    list = async_iterating(list_webhooks)
    change = awaiting(change)
    delete = awaiting(delete)
    rotate = awaiting(rotate)
    ping = awaiting(ping)
    deliveries = async_iterating(deliveries)
    delivery = awaiting(delivery)
    redeliver = awaiting(redeliver)
