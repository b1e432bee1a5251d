"""An answer that is streamed from something that has to be closed."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class Closable(Protocol):
    """An open file, or a spool of them."""

    def close(self) -> None: ...


class OwningResponse(StreamingResponse):
    """Streams chunks of what it owns, and closes that in any case: a client may be gone before the first is sent."""

    def __init__(
        self, owned: Closable, chunks: Iterator[bytes], status: int, headers: Mapping[str, str], media_type: str
    ) -> None:
        super().__init__(chunks, status, headers, media_type)
        self._owned = owned

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._owned.close()
