"""Answers an error that nobody has foreseen, where the metric, the request's id and its log line still hear of it."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import unforeseen

log = logging.getLogger(__name__)


class Unforeseen:
    """ASGI middleware, which belongs just inside of `RequestMetrics` and `RequestId`.

    The framework answers such errors, too, but outside of all middleware: no metric counts them there, and neither the
    answer nor the traceback has an id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception:
            log.exception("an error that nobody has foreseen")
            if not begun:
                await unforeseen(scope["path"])(scope, receive, send)
            # It goes on: the request's span tells its type, and an answer that breaks off must not look complete.
            raise
