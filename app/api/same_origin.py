"""Keeps pages of other origins from making a visitor's browser change anything here."""

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import answer, problem_of
from app.core.errors import CrossOrigin

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class SameOrigin:
    """Refuses a request that changes something if a browser says that a page of another origin has sent it.

    Browsers say so by `Sec-Fetch-Site`, older ones by `Origin`; programs send neither, and pass.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE and is_foreign(Headers(scope=scope)):
            refusal = CrossOrigin("The request was sent by a page of another origin.", pointer="Origin")
            await answer(problem_of(refusal), scope["path"])(scope, receive, send)
            return
        await self.app(scope, receive, send)


def is_foreign(headers: Headers) -> bool:
    """Whether a browser has sent the request for a page of another origin, be it of the same site."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in {"same-origin", "none"}:
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    # The scheme is left out: behind a proxy that ends TLS, this service cannot know its own. What follows it is a host
    # as browsers write it in `Host`, and nothing else (RFC 6454, 6.2), so that there is nothing to take apart.
    _, _, host = origin.partition("://")
    return not host or host != headers.get("host")
