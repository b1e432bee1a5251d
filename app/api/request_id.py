"""`X-Request-ID`: every request has one, the client's own or a fresh one; logs, messages and answers carry it."""

import logging
import re
import secrets
import time
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.metrics import route_of
from app.core import logs

log = logging.getLogger(__name__)

HEADER: Final = "X-Request-ID"
ACCEPTABLE: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)  # Anything else could forge log lines.


class RequestId:
    """ASGI middleware. With `says_each` it logs a line for every request, once it has been answered."""

    def __init__(self, app: ASGIApp, *, says_each: bool) -> None:
        self.app = app
        self.says_each = says_each

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if ACCEPTABLE.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with logs.about(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            finally:
                if self.says_each:
                    facts = {
                        "method": scope["method"],
                        "route": route_of(scope),
                        "status": status,
                        "seconds": round(time.perf_counter() - began, 4),
                    }
                    # The path may hold what a client wrote, and the query what it wants to keep: neither is logged.
                    log.info("%s %s: %d", scope["method"], facts["route"], status, extra={"facts": facts})
