"""The life of a webhook's message: pending → delivered | failed. Written with the event that it tells of, sent later.

Like a job's, every transition is guarded by the token of a lease, and none commits. Messages about one job go to one
webhook in order: a later one is not ready before the earlier one has ended. What is sent on request, or again,
keeps no order and holds up nobody.
"""

import json
import random
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, CursorResult, Update, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.core import webhooks
from app.core.errors import Conflict, NotFound
from app.core.settings import Settings
from app.core.tables import Job, JobEvent, Webhook, WebhookAttempt, WebhookDelivery, database_now, utc_ago, utc_now

PER_WEBHOOK: Final = 2  # requests at a time to one receiver
GROWTH: Final = 3.0  # of the time since the message was first due, from attempt to attempt
LONGEST_PAUSE_S: Final = 4 * 3600.0
JITTER: Final = 0.2  # of a pause, so that receivers that come back do not meet everything at once
LONGEST_WAIT_ASKED_FOR_S: Final = 3600.0
GONE: Final = 410
_PUBLISHED: Final = "published_deliveries"


@dataclass(frozen=True)
class Claim:
    """The right to send one message once."""

    delivery_id: str
    token: str
    attempt: int
    event: str
    body: str
    webhook: Webhook
    taken_at: datetime  # by the database's clock, which the message is signed with


@dataclass(frozen=True)
class Answer:
    """What came of an attempt: a status, or an error where there was none."""

    seconds: float
    status: int | None = None
    error: str | None = None
    excerpt: str | None = None
    retry_after_s: float | None = None

    @property
    def is_good(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


# ---- written


def publish(session: Session, event: JobEvent) -> None:
    """Write a message for every webhook of the job's owner that wants to hear of the event."""
    name = webhooks.EVENT_OF_KIND.get(event.kind)
    if name is None:
        return
    found = (
        select(Webhook.id, Webhook.events, Job.owner, Job.name, Job.state, Job.attempt)
        .join(Job, Job.owner == Webhook.owner)
        .where(Job.id == event.job_id, Webhook.disabled_at.is_(None))
    )
    # The others are not held: whoever claims passes over what is.
    wanting = [row.id for row in session.execute(found) if name in row.events]
    if not wanting:
        return
    # One that is being deleted or disabled is waited for, and not found: a message of it would break the job's own
    # transaction, or be sent all the same.
    held = found.where(Webhook.id.in_(wanting)).with_for_update(read=True, of=Webhook)
    listening = [row for row in session.execute(held) if name in row.events]
    if not listening:
        return
    session.flush()  # Gives the event its id and its time.
    for row in listening:
        told = {"job_id": event.job_id, "name": row.name, "state": row.state, "attempt": row.attempt}
        add(
            session,
            row.id,
            name,
            {**event.payload, **told},
            owner=row.owner,
            job_id=event.job_id,
            sequence=event.id,
        )


def add(session: Session, webhook_id: str, event: str, data: dict[str, Any], **columns: Any) -> WebhookDelivery:
    """Write a message that is due at once."""
    body = {"type": event, "timestamp": utc_now().isoformat(timespec="milliseconds"), "data": data}
    now = database_now()
    delivery = WebhookDelivery(
        webhook_id=webhook_id, event=event, body=json.dumps(body), due_at=now, pending_since=now, **columns
    )
    session.add(delivery)
    session.info[_PUBLISHED] = True
    return delivery


def has_published(session: Session) -> bool:
    """Whether messages have been written in this session since this was last asked; then somebody should be woken."""
    return bool(session.info.pop(_PUBLISHED, False))


def ping(session: Session, webhook: Webhook) -> WebhookDelivery:
    """Write a message that tells of nothing. Raises Conflict for a disabled webhook."""
    require_enabled(webhook)
    delivery = add(session, webhook.id, webhooks.PING, {"webhook_id": webhook.id}, owner=webhook.owner)
    session.flush()
    session.refresh(delivery)
    return delivery


def redeliver(session: Session, webhook: Webhook, delivery: WebhookDelivery) -> None:
    """Send it once more, under the same id, however it had ended. Raises Conflict where it is on its way anyway."""
    require_enabled(webhook)
    again = update(WebhookDelivery).where(WebhookDelivery.id == delivery.id, WebhookDelivery.state != "pending")
    now = database_now()
    if not _changed(
        session, again.values(state="pending", sequence=None, due_at=now, pending_since=now, finished_at=None)
    ):
        raise Conflict("The delivery has not ended yet.")
    session.info[_PUBLISHED] = True
    session.refresh(delivery)


def require_enabled(webhook: Webhook) -> None:
    if webhook.disabled_at is not None:
        raise Conflict("The webhook is disabled. Enable it first.")


# ---- sent


def _is_free() -> ColumnElement[bool]:
    return or_(WebhookDelivery.lease_until.is_(None), WebhookDelivery.lease_until < database_now())


def _is_ready() -> ColumnElement[bool]:
    """Due, in nobody's hands, and no earlier message of its job to its webhook is on its way."""
    earlier = aliased(WebhookDelivery)
    same = (earlier.webhook_id == WebhookDelivery.webhook_id) & (earlier.job_id == WebhookDelivery.job_id)
    before = select(earlier.id).where(same, earlier.sequence < WebhookDelivery.sequence, earlier.state == "pending")
    due = (WebhookDelivery.state == "pending") & (WebhookDelivery.due_at <= database_now())
    return and_(due, _is_free(), ~before.exists())


def claim(session: Session, lease_s: float, at_most: int) -> list[Claim]:
    """Take messages that are ready, at most `PER_WEBHOOK` of a webhook's at a time, whoever sends them.

    The owner with the fewest on their way is served first, so that nobody's thousand failing receivers, however slow,
    hold up another's only one.
    """
    rank = func.row_number().over(
        partition_by=WebhookDelivery.webhook_id, order_by=(WebhookDelivery.due_at, WebhookDelivery.id)
    )
    columns = (WebhookDelivery.id, WebhookDelivery.webhook_id, WebhookDelivery.owner, WebhookDelivery.due_at)
    ranked = select(*columns, rank.label("rank")).where(_is_ready()).subquery()
    ready = session.execute(select(ranked).where(ranked.c.rank <= PER_WEBHOOK).order_by(ranked.c.due_at)).all()
    if not ready:
        return []
    wanted = select(Webhook).where(Webhook.id.in_({row.webhook_id for row in ready}))
    # Whoever claims at this moment has its webhooks to itself. (SQLite has one writer and no such clause.)
    mine = {row.id: row for row in session.scalars(wanted.with_for_update(key_share=True, skip_locked=True))}
    by_webhook, by_owner = _in_flight(session)
    chosen: list[Claim] = []
    candidates = [row for row in ready if row.webhook_id in mine]
    while candidates and len(chosen) < at_most:
        row = min(candidates, key=lambda row: by_owner[row.owner])  # The first of equals: the one due longest.
        candidates.remove(row)
        if by_webhook[row.webhook_id] >= PER_WEBHOOK:
            continue
        if (taken := _take(session, row.id, mine[row.webhook_id], lease_s)) is not None:
            by_webhook[row.webhook_id] += 1
            by_owner[row.owner] += 1
            chosen.append(taken)
    return chosen


def _in_flight(session: Session) -> tuple[Counter[str], Counter[str]]:
    """How many messages are being sent, by webhook and by owner."""
    held = (WebhookDelivery.state == "pending") & (WebhookDelivery.lease_until >= database_now())
    counted = select(WebhookDelivery.webhook_id, WebhookDelivery.owner, func.count()).where(held)
    by_webhook, by_owner = Counter[str](), Counter[str]()
    for webhook_id, owner, number in session.execute(
        counted.group_by(WebhookDelivery.webhook_id, WebhookDelivery.owner)
    ):
        by_webhook[webhook_id] += number
        by_owner[owner] += number
    return by_webhook, by_owner


def _take(session: Session, delivery_id: str, webhook: Webhook, lease_s: float) -> Claim | None:
    token = secrets.token_hex(16)
    taken = update(WebhookDelivery).where(
        WebhookDelivery.id == delivery_id, WebhookDelivery.state == "pending", _is_free()
    )
    taken = taken.values(attempt=WebhookDelivery.attempt + 1, lease_token=token, lease_until=database_now() + lease_s)
    wanted = (WebhookDelivery.attempt, WebhookDelivery.event, WebhookDelivery.body, utc_ago().label("now"))
    row = session.execute(taken.returning(*wanted), execution_options={"synchronize_session": False}).first()
    return None if row is None else Claim(delivery_id, token, row.attempt, row.event, row.body, webhook, row.now)


def note(session: Session, claim: Claim, answer: Answer, settings: Settings) -> str | None:
    """Write what came of the attempt: the new state of the message, None where the lease was lost.

    A message that fails waits, longer each time; one that has failed for too long is given up. A webhook that says that
    it is gone, or to which nothing has been delivered for very long, is disabled.
    """
    # The webhook's row is locked first, here as by whoever claims, so that nobody waits in a circle.
    webhook = session.get(Webhook, claim.webhook.id, with_for_update={"key_share": True}, populate_existing=True)
    mine = (WebhookDelivery.id == claim.delivery_id, WebhookDelivery.lease_token == claim.token)
    pending_since = session.scalar(select(WebhookDelivery.pending_since).where(*mine))
    if webhook is None or pending_since is None:
        return None
    values: dict[str, Any] = {"lease_token": None, "lease_until": None}
    if answer.is_good:
        values |= {"state": "delivered", "finished_at": utc_ago()}
    else:
        now = session.scalars(select(database_now())).one()
        due_at = now + pause_s(settings.webhook_retry_s, now - pending_since, answer.retry_after_s)
        if due_at - pending_since > settings.webhook_patience_s:
            values |= {"state": "failed", "finished_at": utc_ago()}
        else:
            values |= {"due_at": due_at}
    if not _changed(session, update(WebhookDelivery).where(*mine).values(values)):
        return None
    session.add(
        WebhookAttempt(
            delivery_id=claim.delivery_id,
            number=claim.attempt,
            seconds=answer.seconds,
            status=answer.status,
            error=answer.error,
            excerpt=answer.excerpt,
        )
    )
    _note_health(session, webhook, answer, settings.webhook_disable_after_s)
    if webhook.disabled_at is not None and not answer.is_good:
        return "failed"  # With all that was to be sent there.
    return str(values.get("state", "pending"))


def _note_health(session: Session, webhook: Webhook, answer: Answer, disable_after_s: float) -> None:
    if webhook.disabled_at is not None:
        return
    if answer.is_good:
        webhook.failing_since = None
        return
    now = session.scalars(select(utc_ago())).one()
    webhook.failing_since = webhook.failing_since or now
    if answer.status == GONE:
        webhooks.disable(session, webhook, "The receiver answered 410 Gone.")
    elif (now - webhook.failing_since).total_seconds() > disable_after_s:
        since = webhook.failing_since.isoformat(timespec="seconds")
        webhooks.disable(session, webhook, f"Nothing has been delivered since {since}.")


def pause_s(first_s: float, elapsed_s: float, asked_for_s: float | None = None) -> float:
    """How long to wait after a failed attempt, `elapsed_s` after the message was first due; seconds.

    Each attempt is made when three times as much time has passed as at the one before, until the pauses are four hours
    long. The receiver may ask for a longer one.
    """
    grown = min(max(first_s, elapsed_s * (GROWTH - 1)), LONGEST_PAUSE_S)
    asked = min(asked_for_s or 0.0, LONGEST_WAIT_ASKED_FOR_S)
    return max(grown, asked) * random.uniform(1.0, 1.0 + JITTER)


def _changed(session: Session, statement: Update) -> bool:
    result = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)
    return bool(result.rowcount)


# ---- looked at


def get(session: Session, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    delivery = session.get(WebhookDelivery, delivery_id)
    if delivery is None or delivery.webhook_id != webhook_id:
        raise NotFound(f"Webhook {webhook_id} has no delivery {delivery_id}.")
    return delivery


def list_deliveries(
    session: Session, webhook_id: str, limit: int, after: str | None, state: str | None
) -> Sequence[WebhookDelivery]:
    """Those of a webhook, newest first; `after` is the last id of the page before."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if after is not None:
        query = query.where(WebhookDelivery.id < after)
    if state is not None:
        query = query.where(WebhookDelivery.state == state)
    return session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(limit)).all()


def overdue_s(session: Session) -> float:
    """For how long the message that is ready longest has been; 0 where none is."""
    since = session.scalar(select(func.min(WebhookDelivery.due_at)).where(_is_ready()))
    return 0.0 if since is None else max(0.0, session.scalars(select(database_now())).one() - since)


def are_ready(session: Session) -> bool:
    """Whether there is anything to send."""
    return session.scalar(select(WebhookDelivery.id).where(_is_ready()).limit(1)) is not None


def pending(session: Session) -> int:
    """How many messages have neither arrived nor been given up."""
    waiting = select(func.count()).select_from(WebhookDelivery).where(WebhookDelivery.state == "pending")
    return session.scalar(waiting) or 0
