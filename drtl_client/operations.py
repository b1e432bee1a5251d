"""`client.operations`: single images on their way through a model."""

import time
from typing import Final, TypeAlias

from drtl_client.documents import Operation
from drtl_client.errors import WaitedTooLong
from drtl_client.flow import Flow, Request, Sleep, fetch, send
from drtl_client.images import Restored
from drtl_client.methods import AsyncResource, Resource, awaiting, blocking

OperationRef: TypeAlias = Operation | str
LOOK_EVERY_S: Final = 0.25


def _path(operation: OperationRef, rest: str = "") -> str:
    return f"/v1/operations/{operation if isinstance(operation, str) else operation.id}{rest}"


def get(operation: OperationRef) -> Flow[Operation]:
    """How far the image is."""
    return Operation.of((yield from fetch(Request("GET", _path(operation)))))


def wait(operation: OperationRef, *, timeout_s: float | None = None) -> Flow[Operation]:
    """The operation once it has ended, however it has. Raises WaitedTooLong."""
    began = time.monotonic()
    while not (found := (yield from get(operation))).ended:
        if timeout_s is not None and time.monotonic() - began > timeout_s:
            raise WaitedTooLong(f"the image is not done within {timeout_s:g} s")
        yield Sleep(LOOK_EVERY_S)
    return found


def result(operation: OperationRef) -> Flow[Restored]:
    """The restored image. Raises NotReady before it is done, and the problem that it failed with."""
    return Restored.of((yield from send(Request("GET", _path(operation, "/result")))))


def cancel(operation: OperationRef) -> Flow[Operation]:
    """Ask it to stop; asking twice is the same."""
    return Operation.of((yield from fetch(Request("POST", _path(operation, "/cancel")))))


class Operations(Resource):
    """Single images on their way through a model."""

    get = blocking(get)
    wait = blocking(wait)
    result = blocking(result)
    cancel = blocking(cancel)


class AsyncOperations(AsyncResource):
    """Single images on their way through a model."""

    get = awaiting(get)
    wait = awaiting(wait)
    result = awaiting(result)
    cancel = awaiting(cancel)
