"""Lists that come in pages, as one stream."""

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from drtl_client.flow import Emit, Json, Request, Stream, fetch

T = TypeVar("T")

LARGEST_PAGE: Final = 100


def paged(path: str, of: Callable[[Json], T], params: Mapping[str, str], limit: int | None) -> Stream[T]:
    """The items behind the path, at most `limit` of them; a page is fetched when its first item is wanted."""
    left, after = limit, None
    while left is None or left > 0:
        size = LARGEST_PAGE if left is None else min(left, LARGEST_PAGE)
        where = {"limit": str(size), **params} | ({} if after is None else {"after": after})
        page = yield from fetch(Request("GET", path, where))
        for item in page["items"]:
            yield Emit(of(item))
        after = page["next"]
        if after is None:
            return
        left = None if left is None else left - len(page["items"])
