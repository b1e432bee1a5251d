"""Refuses request bodies that are too large or that stall, while they stream in."""

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.core.errors import TooLarge
from app.core.settings import Settings

SMALL_BYTES = 1 << 20


class BodyLimit:
    """ASGI middleware. Only POST brings images, so every other body is held to a mebibyte.

    A declared `Content-Length` is judged before a byte is read; a body without one is cut off where it is too long.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.settings.max_upload_bytes if scope["method"] == "POST" else SMALL_BYTES
        detail = f"A request may have at most {limit} bytes."
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        received = 0
        complete = declared == "0" and "transfer-encoding" not in headers

        async def send_and_close(message: Message) -> None:
            """An answer to half a request ends the connection: nobody reads the rest, however long it goes on."""
            if message["type"] == "http.response.start" and not complete:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if not declared.isdecimal() or int(declared) > limit:
            response = problems.answer(problems.problem_of(TooLarge(detail)), scope["path"])
            await response(scope, receive, send_and_close)
            return

        async def receive_within_limits() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()  # Only the news that the client has gone can still come.
            try:
                with anyio.fail_after(self.settings.upload_stall_s):
                    message = await receive()
            except TimeoutError:
                stalled = f"The upload sent nothing for {self.settings.upload_stall_s:g} s."
                raise HTTPException(408, stalled) from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > limit:
                raise HTTPException(413, detail)
            return message

        await self.app(scope, receive_within_limits, send_and_close)
