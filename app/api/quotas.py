"""Holds every key to its limits: requests, jobs, pairs, pixels, bytes."""

from typing import Final

from sqlalchemy.orm import Session
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import usage
from app.core.errors import Forbidden, OverQuota, QuotaExhausted, TooManyRequests
from app.core.keys import Limits
from app.core.queue import Queue
from app.core.shares import PRIORITIES, Priority
from app.core.usage import DAY_S, MINUTE_S, Window

WINDOW: Final = "rate_window"  # In the request's state.
JOB_RETRY_S: Final = 10


def rate_headers(window: Window) -> dict[str, str]:
    """What is left of the requests of this minute (draft-ietf-httpapi-ratelimit-headers-10)."""
    return {
        "RateLimit-Policy": f'"requests";q={window.limit};w={window.seconds}',
        "RateLimit": f'"requests";r={window.left};t={window.resets_in_s}',
    }


def count_request(queue: Queue, key_id: str, limits: Limits) -> Window | None:
    """Count a request of the key. Raises TooManyRequests; None where the key has no limit."""
    if not limits.requests_per_minute:
        return None
    window = usage.count(queue, "requests", key_id, 1, limits.requests_per_minute, MINUTE_S)
    if window.exceeded:
        raise TooManyRequests(
            f"The key may make {window.limit} requests in a minute.",
            retry_after_s=window.resets_in_s,
            headers=rate_headers(window),
        )
    return window


def require_room_for_a_job(session: Session, limits: Limits | None) -> None:
    """Raise QuotaExhausted where the owner has as many unfinished jobs as the key may have."""
    if limits is None or not limits.unfinished_jobs:
        return
    if usage.unfinished_jobs(session) >= limits.unfinished_jobs:
        raise QuotaExhausted(
            f"You have {limits.unfinished_jobs} unfinished jobs, which is as many as the key may have.",
            retry_after_s=JOB_RETRY_S,
        )


def require_priority(limits: Limits | None, wanted: Priority) -> None:
    """Raise Forbidden where the key may not make its jobs so urgent: if everybody could, nothing would be."""
    if limits is not None and PRIORITIES.index(wanted) > PRIORITIES.index(limits.priority):
        raise Forbidden(f"The key may give its jobs priority {limits.priority} at most.", pointer="/priority")


def require_room_for_pairs(session: Session, limits: Limits | None, pairs: int, size_bytes: int) -> None:
    """Raise OverQuota where these are too many pairs, or where their files are more than the key may keep."""
    if limits is None:
        return
    if limits.pairs and pairs > limits.pairs:
        raise OverQuota(f"The key may have {limits.pairs} pairs in a dataset; these are {pairs}.")
    require_room_for_bytes(session, limits, size_bytes)


def require_room_for_bytes(session: Session, limits: Limits | None, size_bytes: int) -> None:
    """Raise OverQuota where the files, with those that are kept already, are more than the key may keep."""
    if limits is None or not limits.stored_bytes:
        return
    kept = usage.stored_bytes(session)
    if kept + size_bytes > limits.stored_bytes:
        raise OverQuota(
            f"The key may keep {limits.stored_bytes} bytes of uploads; {kept} are kept, and these are {size_bytes}."
        )


def take_room_for_bytes(session: Session, limits: Limits | None, size_bytes: int) -> None:
    """As `require_room_for_bytes`, and nobody takes the owner's room meanwhile until this transaction ends.

    Files are kept before there is a row of them, so each upload looks twice: early, that what has no room is not kept
    at all, and once more where the row is added. The files that no row names are swept up later.
    """
    if limits is not None and limits.stored_bytes:
        usage.count_alone(session)
        require_room_for_bytes(session, limits, size_bytes)


def count_pixels(queue: Queue, owner: str, limits: Limits | None, pixels: int) -> None:
    """Count pixels that are sent in to be restored. Raises QuotaExhausted where they are more than are left today.

    What is refused for that is counted, too: a large image that no longer fits ends the day for small ones.
    """
    if limits is None or not limits.megapixels_per_day:
        return
    window = usage.count(queue, "pixels", owner, pixels, limits.megapixels_per_day * 1_000_000, DAY_S)
    if window.exceeded:
        raise QuotaExhausted(
            f"The key may have {limits.megapixels_per_day} megapixels restored in a day (UTC).",
            retry_after_s=window.resets_in_s,
        )


class RateHeaders:
    """Tells every client of a limited key what it has left, on whatever it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and (window := state.get(WINDOW)) is not None:
                MutableHeaders(scope=message).update(rate_headers(window))
            await send(message)

        await self.app(scope, receive, send_with_headers)
