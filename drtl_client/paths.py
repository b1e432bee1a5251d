"""Ids and names as callers give them, on their way into a path."""

from urllib.parse import quote

from drtl_client.errors import NotFound


def segment(kind: str, named: str) -> str:
    """The id or name as one segment of a path, whatever characters it has.

    Raises NotFound, and nothing is asked, for one that would lead elsewhere. Quoting does not help against a slash:
    servers take %2F for one.
    """
    if named in {"", ".", ".."} or "/" in named:
        raise NotFound(404, {"type": "/problems/not-found", "detail": f"There is no {kind} {named!r}."})
    return quote(named, safe="@", errors="replace")
