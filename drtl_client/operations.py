"""`client.operations`: single images on their way through a model."""

import time
from collections.abc import Callable
from typing import Final, TypeAlias

from drtl_client.documents import Operation
from drtl_client.errors import WaitedTooLong
from drtl_client.flow import Flow, Request, Sleep, Stream, fetch, send
from drtl_client.images import Restored
from drtl_client.methods import AsyncResource, Resource, async_iterating, awaiting, blocking, iterating
from drtl_client.pages import paged
from drtl_client.paths import segment

OperationRef: TypeAlias = Operation | str
OnProgress: TypeAlias = Callable[[float], None]  # 0…1
FIRST_LOOK_S: Final = 0.05
LOOK_EVERY_S: Final = 1.0


def _path(operation: OperationRef, rest: str = "") -> str:
    return f"/v1/operations/{segment('operation', operation if isinstance(operation, str) else operation.id)}{rest}"


def get(operation: OperationRef) -> Flow[Operation]:
    """How far the image is."""
    return Operation.of((yield from fetch(Request("GET", _path(operation)))))


def wait(
    operation: OperationRef, *, timeout_s: float | None = None, on_progress: OnProgress | None = None
) -> Flow[Operation]:
    """The operation once it has ended, however it has. Raises WaitedTooLong."""
    began, pause_s = time.monotonic(), FIRST_LOOK_S
    while not (found := (yield from get(operation))).ended:
        if on_progress is not None and found.progress is not None:
            on_progress(found.progress)
        if timeout_s is not None and time.monotonic() - began > timeout_s:
            raise WaitedTooLong(f"the image is not done within {timeout_s:g} s")
        yield Sleep(pause_s)
        pause_s = min(LOOK_EVERY_S, 1.5 * pause_s)
    return found


def list_operations(*, state: str | None = None, limit: int | None = None) -> Stream[Operation]:
    """Images, the newest first, page by page as they are asked for: at most `limit`, or all."""
    yield from paged("/v1/operations", Operation.of, {} if state is None else {"state": state}, limit)


def result(operation: OperationRef) -> Flow[Restored]:
    """The restored image. Raises NotReady before it is done, and the problem that it failed with."""
    return Restored.of((yield from send(Request("GET", _path(operation, "/result")))))


def cancel(operation: OperationRef) -> Flow[Operation]:
    """Ask it to stop; asking twice is the same."""
    return Operation.of((yield from fetch(Request("POST", _path(operation, "/cancel")))))


class Operations(Resource):
    """Single images on their way through a model."""

    get = blocking(get)
    list = iterating(list_operations)
    wait = blocking(wait)
    result = blocking(result)
    cancel = blocking(cancel)


class AsyncOperations(AsyncResource):
    """Single images on their way through a model."""

    get = awaiting(get)
    list = async_iterating(list_operations)
    wait = awaiting(wait)
    result = awaiting(result)
    cancel = awaiting(cancel)
