"""Chooses the media type of an answer by the request's `Accept` header (RFC 9110 §12.5.1)."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Header

from app.core.errors import NotAcceptable

# OpenAPI has the media types of an answer say this, and wants it ignored among the parameters.
AcceptHeader = Annotated[list[str] | None, Header(include_in_schema=False)]


def preferred(accept_lines: Sequence[str] | None, offered: Sequence[str]) -> str:
    """The media type among `offered` that the client likes best; the first where it does not care.

    Several lines of the header are one list (RFC 9110 §5.3). Raises NotAcceptable where it wants none of them.
    """
    accept = ", ".join(accept_lines or []) or "*/*"
    wishes = [_wish(part) for part in accept.split(",") if part.strip()]
    ranked = [(_quality(media_type, wishes), -place, media_type) for place, media_type in enumerate(offered)]
    quality, _, best = max(ranked)
    if quality <= 0:
        raise NotAcceptable(f"Available are {', '.join(offered)}; the request accepts {accept}.", pointer="Accept")
    return best


def _wish(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return media_range, quality


def _quality(media_type: str, wishes: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that covers the media type, 0 where none does."""
    for media_range in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        for wished, quality in wishes:
            if wished == media_range:
                return quality
    return 0.0
