"""Webhooks of an owner: making, changing, disabling them, and the secrets that they sign with. Nothing here commits."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.core.errors import Conflict, NotFound, OverQuota
from app.core.owners import view_of
from app.core.receivers import Receivers, parsed_networks
from app.core.settings import Settings
from app.core.tables import Webhook, WebhookDelivery, new_id, utc_ago, utc_now
from app.core.webhook_signatures import fingerprint, secret_of

# What of a job's events is told, and by which name. Not its progress: that is for whoever watches.
EVENT_OF_KIND: Final = {
    "started": "job.started",
    "graph": "job.graph_ready",
    "requeued": "job.requeued",
    "succeeded": "job.succeeded",
    "failed": "job.failed",
    "cancelled": "job.cancelled",
}
PING: Final = "ping"  # What is sent on request, whatever the webhook's events are.


def receivers(settings: Settings) -> Receivers:
    """Where this service may send to."""
    return Receivers(parsed_networks(settings.webhook_networks), settings.webhook_http)


def register(session: Session, settings: Settings, url: str, events: Sequence[str], description: str) -> Webhook:
    """A new webhook. Raises OverQuota where the owner has as many as they may, Conflict where no secret can be made."""
    require_key(settings)
    owner = view_of(session).owner
    kept = session.scalar(select(func.count()).select_from(Webhook).where(Webhook.owner == owner)) or 0
    if kept >= settings.max_webhooks:
        raise OverQuota(f"You have {kept} webhooks, and may have {settings.max_webhooks}.")
    webhook = Webhook(id=new_id("wh"), url=url, events=list(events), description=description)
    webhook.key_fingerprint = fingerprint(settings.webhook_key)
    webhook.generation = 1
    session.add(webhook)
    session.flush()
    return webhook


def require_key(settings: Settings) -> None:
    """Raise Conflict where there is nothing to derive secrets from."""
    if not settings.webhook_key:
        raise Conflict("This service has no DRTL_WEBHOOK_KEY, without which webhooks cannot be signed.")


def secret(webhook: Webhook, settings: Settings) -> str:
    """The webhook's present secret."""
    return secret_of(settings.webhook_key, webhook.id, webhook.generation)


def active_secrets(webhook: Webhook, settings: Settings, now: datetime) -> list[str]:
    """The secrets to sign with at that moment, the present one first; none where the service's key is another now."""
    if fingerprint(settings.webhook_key) != webhook.key_fingerprint:
        return []
    generations = [webhook.generation]
    if webhook.previous_secret_until is not None and webhook.previous_secret_until > now:
        generations.append(webhook.generation - 1)
    return [secret_of(settings.webhook_key, webhook.id, generation) for generation in generations]


def rotate(webhook: Webhook, settings: Settings, keep_previous_s: int) -> None:
    """Give the webhook another secret; the one before signs for so long, too. Raises Conflict."""
    require_key(settings)
    known = webhook.key_fingerprint == fingerprint(settings.webhook_key)
    webhook.generation += 1
    webhook.key_fingerprint = fingerprint(settings.webhook_key)
    until = utc_now() + timedelta(seconds=keep_previous_s)
    webhook.previous_secret_until = until if known and keep_previous_s else None


def change(session: Session, webhook: Webhook, changes: dict[str, Any]) -> None:
    """Set what is given of `url`, `events`, `description` and `enabled`."""
    for name in ("url", "events", "description"):
        if name in changes:
            setattr(webhook, name, changes[name])
    match changes.get("enabled"):
        case True:
            webhook.disabled_at = webhook.disabled_reason = webhook.failing_since = None
        case False if webhook.disabled_at is None:
            disable(session, webhook, "It was disabled by request.")


def disable(session: Session, webhook: Webhook, reason: str) -> None:
    """Send nothing any more: what is on its way is given up, and what happens from now on is not noted."""
    webhook.disabled_at, webhook.disabled_reason = session.scalars(select(utc_ago())).one(), reason
    pending = (WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.state == "pending")
    given_up = {"state": "failed", "finished_at": utc_ago(), "lease_token": None, "lease_until": None}
    session.execute(
        update(WebhookDelivery).where(*pending).values(given_up), execution_options={"synchronize_session": False}
    )


def get(session: Session, webhook_id: str) -> Webhook:
    webhook = session.get(Webhook, webhook_id)
    if webhook is None:
        raise NotFound(f"There is no webhook {webhook_id}.")
    return webhook


def get_to_change(session: Session, webhook_id: str) -> Webhook:
    """The webhook as it is now; nobody else changes or deletes it before the transaction ends. Raises NotFound."""
    # Its deliveries may be written meanwhile; `publish` waits to see whether it is still there and enabled.
    webhook = session.get(Webhook, webhook_id, with_for_update={"key_share": True}, populate_existing=True)
    if webhook is None:
        raise NotFound(f"There is no webhook {webhook_id}.")
    return webhook


def list_webhooks(session: Session, limit: int, after: str | None) -> Sequence[Webhook]:
    """Newest first; `after` is the last id of the page before."""
    query = select(Webhook).order_by(Webhook.id.desc()).limit(limit)
    return session.scalars(query.where(Webhook.id < after) if after is not None else query).all()
