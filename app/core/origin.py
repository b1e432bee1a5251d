"""The request that work came from, kept in the work's row: whoever takes it up, however often, it is that request's."""

from typing import Any, Final

from app.core import logs, tracing

REQUEST_ID: Final = "request_id"


def current() -> dict[str, Any]:
    """Id and trace (W3C Trace Context) of the request that is being answered, as far as there are any."""
    request_id = logs.request_id()
    return ({} if request_id is None else {REQUEST_ID: request_id}) | tracing.carrier()
