"""`client.models`: the registry, and a model at work."""

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import httpx

from drtl_client import operations
from drtl_client.documents import Alias, ModelVersion, ModelVersions, Operation
from drtl_client.downloads import saved, written
from drtl_client.errors import NotFound, NotReady
from drtl_client.flow import Flow, Request, Sleep, Stream, fetch, send
from drtl_client.images import HowRestored, ImageInput, Restored, as_part
from drtl_client.methods import (
    AsyncResource,
    Resource,
    async_iterating,
    awaiting,
    awaiting_about,
    blocking,
    blocking_about,
    iterating,
)
from drtl_client.operations import OnProgress
from drtl_client.options import Option, fields_of
from drtl_client.pages import paged
from drtl_client.paths import segment

PRODUCTION: Final = "production"
WAIT: Final = "wait=10"  # RFC 7240: the image if it is done in 10 s, else an operation to follow.
ANSWERING_S: Final = 180.0  # Longer than a service waits that does not know the preference.


def _path(name: str, rest: str = "") -> str:
    return f"/v1/models/{segment('model', name)}{rest}"


def list_models(*, limit: int | None = None) -> Stream[ModelVersions]:
    """Models by name, page by page as they are asked for: at most `limit`, or all."""
    yield from paged("/v1/models", ModelVersions.of, {}, limit)


def get(name: str) -> Flow[ModelVersions]:
    """A model's versions and aliases, by its name alone."""
    return ModelVersions.of((yield from fetch(Request("GET", _path(name)))))


def number(reference: str) -> Flow[int]:
    """The version behind `name@version`, `name@alias`, or `name` (the one in production), as super_resolve takes it.

    Raises NotFound.
    """
    name, _, wanted = reference.partition("@")
    if wanted.isdecimal():
        return int(wanted)
    aliases = (yield from get(name)).aliases
    if (wanted or PRODUCTION) not in aliases:
        what = f"no alias {wanted!r}" if wanted else "no version in production"
        raise NotFound(404, {"type": "/problems/not-found", "detail": f"The model {name!r} has {what}."})
    return aliases[wanted or PRODUCTION]


def newest(reference: str) -> Flow[int]:
    """The same, but for a name alone the newest version."""
    if "@" in reference:
        return (yield from number(reference))
    return (yield from get(reference)).versions[0]


def version(reference: str) -> Flow[ModelVersion]:
    """The version, or for a name alone the newest, with its card: data, γ, metrics, seed, prior, code and licence."""
    found = yield from newest(reference)
    path = _path(reference.partition("@")[0], f"/versions/{found}")
    return ModelVersion.of((yield from fetch(Request("GET", path))))


def promote(reference: str, alias: str = PRODUCTION) -> Flow[Alias]:
    """Let the alias point at this version, or for a name alone at the newest.

    `production` is what requests use that name no version.
    """
    found = yield from newest(reference)
    path = _path(reference.partition("@")[0], f"/aliases/{segment('alias', alias)}")
    return Alias.of((yield from fetch(Request("PUT", path, json={"version": found}))))


def delete(reference: str) -> Flow[None]:
    """Forget this version, or for a name alone the model with all its versions; with the aliases that point there.

    Raises Conflict while a job would add a version to a model that is to be forgotten whole.
    """
    name, whole = reference.partition("@")[0], "@" not in reference
    path = _path(name) if whole else _path(name, f"/versions/{(yield from number(reference))}")
    yield from send(Request("DELETE", path, repeatable=False))


def download(
    reference: str, path: str | os.PathLike[str] = ".", *, onnx: bool = False, wait_s: float = 300.0
) -> Flow[Path]:
    """Write the weights to the path, or into it where it is a folder, as safetensors or as ONNX; returns the file.

    An ONNX file that has to be made first is waited for. Raises NotReady where that takes more than `wait_s`.
    """
    name, found = reference.partition("@")[0], (yield from number(reference))
    file = f"{name}-v{found}.{'onnx' if onnx else 'safetensors'}"
    request = Request("GET", _path(name, f"/versions/{found}/{'onnx' if onnx else 'weights'}"))
    began = time.monotonic()
    while True:
        try:
            return (yield from saved(request, path, name=file))
        except NotReady as early:
            if time.monotonic() - began > wait_s:
                raise
            yield Sleep(early.retry_after_s or 1.0)


def super_resolve(
    reference: str,
    /,
    image: ImageInput,
    *,
    accept: str = "image/png",
    timeout_s: float | None = None,
    on_progress: OnProgress | None = None,
    **options: Option,
) -> Flow[Restored]:
    """Restore an image: a path, bytes, a Pillow image, or an array of height, width and channels.

    `accept` chooses the format of the result; `options` are the service's, by its names (precision, outscale, …). An
    image that takes long is followed: `on_progress` hears how far it is, 0…1, and `timeout_s` is how long it may take.
    Raises NotFound, BadImage, WaitedTooLong and others.
    """
    response = yield from send(_request(reference, image, WAIT, accept, options))
    if response.status_code != 202:
        return Restored.of(response)
    accepted = _accepted(response)
    yield from operations.wait(accepted, timeout_s=timeout_s, on_progress=on_progress)
    return (yield from operations.result(accepted))


def super_resolve_to(
    reference: str,
    /,
    path: str | os.PathLike[str],
    image: ImageInput,
    *,
    accept: str = "image/png",
    timeout_s: float | None = None,
    on_progress: OnProgress | None = None,
    **options: Option,
) -> Flow[HowRestored]:
    """As super_resolve, but write the result to the path, a piece at a time. Raises OSError, too."""
    response = yield from send(_request(reference, image, WAIT, accept, options), stream=True)
    if response.status_code == 202:
        accepted = _accepted(response)
        yield from operations.wait(accepted, timeout_s=timeout_s, on_progress=on_progress)
        response = yield from send(Request("GET", f"/v1/operations/{accepted}/result"), stream=True)
    yield from written(response, Path(path))
    return HowRestored.of(response)


def submit(
    reference: str,
    /,
    image: ImageInput,
    *,
    accept: str = "image/png",
    idempotency_key: str | None = None,
    **options: Option,
) -> Flow[Operation]:
    """As super_resolve, but without waiting: the operation's result can be fetched when it has ended.

    The request carries an Idempotency-Key, so that the image is restored once however often it has to be sent.
    """
    key = idempotency_key or str(uuid.uuid4())
    request = _request(reference, image, "respond-async", accept, options, {"Idempotency-Key": key})
    return Operation.of((yield from fetch(request)))


def _accepted(response: httpx.Response) -> str:
    """The id of the operation that a 202 names."""
    return str(response.headers["Location"]).rpartition("/")[2]


def _request(
    reference: str,
    image: ImageInput,
    prefer: str,
    accept: str,
    options: dict[str, Option],
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Request:
    return Request(
        "POST",
        _path(reference, "/super-resolve"),
        params=fields_of(options),
        headers={"Accept": accept, "Prefer": prefer, **headers},
        parts=(as_part("image", image),),
        read_timeout_s=ANSWERING_S,
    )


class Model(Resource):
    """One model or version, by `name`, `name@alias` or `name@version`. Making one asks the service nothing."""

    super_resolve = blocking_about(super_resolve)
    super_resolve_to = blocking_about(super_resolve_to)
    submit = blocking_about(submit)
    number = blocking_about(number)
    version = blocking_about(version)
    promote = blocking_about(promote)
    delete = blocking_about(delete)
    download = blocking_about(download)

    @property
    def card(self) -> dict[str, object]:
        """The model card of the version, fetched each time."""
        return self.version().card


class AsyncModel(AsyncResource):
    """One model or version, by `name`, `name@alias` or `name@version`."""

    super_resolve = awaiting_about(super_resolve)
    super_resolve_to = awaiting_about(super_resolve_to)
    submit = awaiting_about(submit)
    number = awaiting_about(number)
    version = awaiting_about(version)
    promote = awaiting_about(promote)
    delete = awaiting_about(delete)
    download = awaiting_about(download)


class Models(Resource):
    """Registered models; `client.models["scanner@2"]` is one of them."""

    list = iterating(list_models)
    get = blocking(get)

    def __getitem__(self, reference: str) -> Model:
        return Model(self._transport, reference)


class AsyncModels(AsyncResource):
    """Registered models; `client.models["scanner@2"]` is one of them."""

    list = async_iterating(list_models)
    get = awaiting(get)

    def __getitem__(self, reference: str) -> AsyncModel:
        return AsyncModel(self._transport, reference)
