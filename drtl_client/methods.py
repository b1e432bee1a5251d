"""Makes methods of flows, so that blocking and awaiting clients share each call's signature, documentation and body."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from drtl_client.flow import Flow, Stream
from drtl_client.transports import AsyncTransport, Transport

P = ParamSpec("P")
T = TypeVar("T")


class Resource:
    """A part of a blocking client. `subject` is what its calls are about, where it is one thing."""

    def __init__(self, transport: Transport, subject: str = "") -> None:
        self._transport = transport
        self.subject = subject


class AsyncResource:
    """A part of an awaiting client."""

    def __init__(self, transport: AsyncTransport, subject: str = "") -> None:
        self._transport = transport
        self.subject = subject


def blocking(flow: Callable[P, Flow[T]]) -> Callable[Concatenate[Resource, P], T]:
    """The flow as a method that returns its result."""

    def method(self: Resource, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._transport.run(flow(*args, **kwargs))

    return _described(method, flow)


def blocking_about(flow: Callable[Concatenate[str, P], Flow[T]]) -> Callable[Concatenate[Resource, P], T]:
    """The same for a flow whose first argument is the resource's subject."""

    def method(self: Resource, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._transport.run(flow(self.subject, *args, **kwargs))

    return _described(method, flow, about=True)


def iterating(stream: Callable[P, Stream[T]]) -> Callable[Concatenate[Resource, P], Iterator[T]]:
    """The stream as a method that returns an iterator."""

    def method(self: Resource, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._transport.iterate(stream(*args, **kwargs))

    return _described(method, stream)


def awaiting(flow: Callable[P, Flow[T]]) -> Callable[Concatenate[AsyncResource, P], Awaitable[T]]:
    """The flow as a method to be awaited."""

    async def method(self: AsyncResource, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._transport.run(flow(*args, **kwargs))

    return _described(method, flow)


def awaiting_about(
    flow: Callable[Concatenate[str, P], Flow[T]],
) -> Callable[Concatenate[AsyncResource, P], Awaitable[T]]:
    """The same for a flow whose first argument is the resource's subject."""

    async def method(self: AsyncResource, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._transport.run(flow(self.subject, *args, **kwargs))

    return _described(method, flow, about=True)


def async_iterating(stream: Callable[P, Stream[T]]) -> Callable[Concatenate[AsyncResource, P], AsyncIterator[T]]:
    """The stream as a method that returns an asynchronous iterator."""

    def method(self: AsyncResource, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._transport.iterate(stream(*args, **kwargs))

    return _described(method, stream)


M = TypeVar("M", bound=Callable[..., Any])


def _described(method: M, flow: Callable[..., Any], *, about: bool = False) -> M:
    """Give the method its flow's name, documentation and arguments, for `help` and for editors."""
    signature = inspect.signature(flow)
    arguments = list(signature.parameters.values())[about:]
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__name__ = flow.__name__
    method.__doc__ = flow.__doc__
    method.__signature__ = inspect.Signature([itself, *arguments])  # type: ignore[attr-defined]  # inspect looks there
    return method
