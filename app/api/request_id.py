"""`X-Request-ID`: every request has one, the client's own or a fresh one; logs, messages and answers carry it."""

import logging
import re
import secrets
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.metrics import route_of
from app.core import logs, tracing

log = logging.getLogger(__name__)

HEADER: Final = "X-Request-ID"
PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # Asked every few seconds; traces would be full of them.
ACCEPTABLE: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)  # Anything else could forge log lines.


class RequestId:
    """ASGI middleware. With `says_each` it logs a line for every request, once it has been answered.

    An error that comes after a complete answer ends here: `Unforeseen` has logged it, and the server would do so again.
    """

    def __init__(self, app: ASGIApp, *, says_each: bool) -> None:
        self.app = app
        self.says_each = says_each

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER, "")
        request_id = given if ACCEPTABLE.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        began = time.perf_counter()
        status = 0
        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)

        parent = tracing.carried_in(headers)
        probe = scope["path"] in PROBES
        traced: AbstractContextManager[tracing.Span] = (
            nullcontext(tracing.SILENT) if probe else tracing.span(scope["method"], parent, "SERVER")
        )
        try:
            with logs.about(request_id=request_id), traced as span:
                try:
                    await self.app(scope, receive, send_with_id)
                finally:
                    self._tell(scope, span, request_id, status, time.perf_counter() - began)
        except Exception:
            if not answered:
                raise

    def _tell(self, scope: Scope, span: tracing.Span, request_id: str, status: int, seconds: float) -> None:
        """Say what came of the request: to its span, and where wanted in a line."""
        span.update_name(f"{scope['method']} {route_of(scope)}")
        for name, value in (
            ("http.request.method", scope["method"]),
            ("http.route", route_of(scope)),
            ("http.response.status_code", status),
            ("drtl.request_id", request_id),
        ):
            span.set_attribute(name, value)
        if self.says_each:
            facts = {
                "method": scope["method"],
                "route": route_of(scope),
                "status": status,
                "seconds": round(seconds, 4),
            }
            # The path may hold what a client wrote, and the query what it wants to keep: neither is logged.
            log.info("%s %s: %d", scope["method"], facts["route"], status, extra={"facts": facts})
