"""Refuses request bodies that are too large, that stall, or that trickle, while they stream in."""

import random
import re
import time
from typing import Final

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.core.errors import TooLarge
from app.core.settings import Settings

SMALL_BYTES: Final = 1 << 20
UPLOADS: Final = re.compile(r"/v1/(?:jobs|datasets|batches|models/[^/]+/super-resolve)/?")
SPREAD: Final = 0.5  # Of the patience, so that a thousand clients that stall together are refused one after the other.


class BodyLimit:
    """ASGI middleware. Few calls take images, so every other body is held to a mebibyte.

    Their bodies are read, parsed even, before anybody has asked who sends them: FastAPI does so for every call that
    takes JSON.
    A declared `Content-Length` is judged before a byte is read; a body without one is cut off where it is too long.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        brings_images = scope["method"] == "POST" and UPLOADS.fullmatch(scope["path"]) is not None
        limit = self.settings.max_upload_bytes if brings_images else SMALL_BYTES
        stall_s = self.settings.upload_stall_s * random.uniform(1.0, 1.0 + SPREAD)
        detail = f"A request may have at most {limit} bytes."
        stalled = f"The upload sent nothing for {self.settings.upload_stall_s:g} s."
        trickled = f"The upload is slower than {self.settings.upload_bytes_per_s} bytes per second."
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        received = 0
        waited_s = 0.0
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
            nonlocal received, waited_s, complete
            if complete:
                return await receive()  # Only the news that the client has gone can still come.
            # What the service does with a part of the body meanwhile is not the client's time.
            patience_s = stall_s + received / self.settings.upload_bytes_per_s - waited_s
            began = time.monotonic()
            try:
                with anyio.fail_after(min(stall_s, max(0.0, patience_s))):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, stalled if patience_s >= stall_s else trickled) from None
            waited_s += time.monotonic() - began
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > limit:
                raise HTTPException(413, detail)
            return message

        await self.app(scope, receive_within_limits, send_and_close)
