"""`client.models`: the registry, and a model at work."""

import os
from pathlib import Path
from typing import Final

import httpx

from drtl_client import operations
from drtl_client.documents import Alias, ModelVersion, ModelVersions, Operation
from drtl_client.downloads import saved
from drtl_client.errors import NotFound
from drtl_client.flow import Flow, Request, Stream, fetch, send
from drtl_client.images import ImageInput, Restored, as_part
from drtl_client.jobs import fields_of
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
from drtl_client.pages import paged

PRODUCTION: Final = "production"
WAIT_S: Final = 60  # In one request; what takes longer is asked for again.


def list_models(*, limit: int | None = None) -> Stream[ModelVersions]:
    """Models by name, page by page as they are asked for: at most `limit`, or all."""
    yield from paged("/v1/models", ModelVersions.of, {}, limit)


def get(name: str) -> Flow[ModelVersions]:
    """A model's versions and aliases, by its name alone."""
    return ModelVersions.of((yield from fetch(Request("GET", f"/v1/models/{name}"))))


def number(reference: str) -> Flow[int]:
    """The version behind `name@version`, `name@alias`, or `name`: the one in production, or else the newest."""
    name, _, wanted = reference.partition("@")
    if wanted.isdecimal():
        return int(wanted)
    model = yield from get(name)
    if not wanted:
        return model.aliases.get(PRODUCTION, model.versions[0])
    if wanted not in model.aliases:
        raise NotFound(404, {"type": "/problems/not-found", "detail": f"{name} has no alias {wanted!r}."})
    return model.aliases[wanted]


def version(reference: str) -> Flow[ModelVersion]:
    """The version with its card: data, γ, metrics, seed, prior, code and licence."""
    found = yield from number(reference)
    path = f"/v1/models/{reference.partition('@')[0]}/versions/{found}"
    return ModelVersion.of((yield from fetch(Request("GET", path))))


def promote(reference: str, alias: str = PRODUCTION) -> Flow[Alias]:
    """Let the alias point at this version. `production` is what requests use that name no version."""
    found = yield from number(reference)
    path = f"/v1/models/{reference.partition('@')[0]}/aliases/{alias}"
    return Alias.of((yield from fetch(Request("PUT", path, json={"version": found}))))


def download(reference: str, path: str | os.PathLike[str] = ".", *, onnx: bool = False) -> Flow[Path]:
    """Write the weights to the path, or into it where it is a folder, as safetensors or as ONNX; returns the file."""
    name, found = reference.partition("@")[0], (yield from number(reference))
    kind = "onnx" if onnx else "weights"
    file = f"{name}-v{found}.{'onnx' if onnx else 'safetensors'}"
    return (yield from saved(Request("GET", f"/v1/models/{name}/versions/{found}/{kind}"), path, name=file))


def _post(reference: str, image: ImageInput, prefer: str, accept: str, options: dict[str, str]) -> Flow[httpx.Response]:
    request = Request(
        "POST",
        f"/v1/models/{reference}/super-resolve",
        params=options,
        headers={"Accept": accept, "Prefer": prefer},
        parts=(as_part("image", image),),
        read_timeout_s=3 * WAIT_S,
    )
    return (yield from send(request))


def super_resolve(
    reference: str,
    /,
    image: ImageInput,
    *,
    accept: str = "image/png",
    timeout_s: float | None = None,
    **options: str | float | bool | None,
) -> Flow[Restored]:
    """Restore an image: a path, bytes, a Pillow image, or an array of height, width and channels.

    `accept` chooses the format of the result; `options` are the service's, by its names (precision, outscale, …). An
    image that takes long is waited for, `timeout_s` at most. Raises NotFound, BadImage, WaitedTooLong and others.
    """
    response = yield from _post(reference, image, f"wait={WAIT_S}", accept, fields_of(options))
    if response.status_code == 202:
        accepted = Operation.of(response.json())
        yield from operations.wait(accepted, timeout_s=timeout_s)
        return (yield from operations.result(accepted))
    return Restored.of(response)


def submit(
    reference: str, /, image: ImageInput, *, accept: str = "image/png", **options: str | float | bool | None
) -> Flow[Operation]:
    """As super_resolve, but without waiting: the operation's result can be fetched when it has ended."""
    response = yield from _post(reference, image, "respond-async", accept, fields_of(options))
    return Operation.of(response.json())


class Model(Resource):
    """One model or version, by `name`, `name@alias` or `name@version`. Making one asks the service nothing."""

    super_resolve = blocking_about(super_resolve)
    submit = blocking_about(submit)
    version = blocking_about(version)
    promote = blocking_about(promote)
    download = blocking_about(download)

    @property
    def card(self) -> dict[str, object]:
        """The model card of the version, fetched each time."""
        return self.version().card


class AsyncModel(AsyncResource):
    """One model or version, by `name`, `name@alias` or `name@version`."""

    super_resolve = awaiting_about(super_resolve)
    submit = awaiting_about(submit)
    version = awaiting_about(version)
    promote = awaiting_about(promote)
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
