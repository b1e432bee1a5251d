"""`client.jobs`: few-shot trainings."""

import time
import uuid
from typing import Any, Final, TypeAlias

from drtl_client.documents import Job, Relation
from drtl_client.errors import DRTLError, NotReady, Unavailable, Unreachable, WaitedTooLong
from drtl_client.events import Event, EventStream
from drtl_client.flow import Emit, Flow, OnUpload, Request, Sleep, Stream, fetch, read, send
from drtl_client.methods import (
    AsyncResource,
    Resource,
    async_iterating,
    awaiting,
    blocking,
    iterating,
)
from drtl_client.options import Option, fields_of
from drtl_client.pages import paged
from drtl_client.pairs import PairsInput, as_parts, dataset_id, model_name
from drtl_client.paths import segment

JobRef: TypeAlias = Job | str
SILENT_S: Final = 45.0  # The service says something every 15 s.
LOOK_EVERY_S: Final = 0.5
ANSWERING_UPLOAD_S: Final = 180.0  # Every image is decoded and measured before the answer.


def _path(job: JobRef, rest: str = "") -> str:
    return f"/v1/jobs/{segment('job', job if isinstance(job, str) else job.id)}{rest}"


def create(
    pairs: PairsInput,
    *,
    name: str | None = None,
    preset: str = "quick",
    seed: int = 0,
    new_version: bool = False,
    idempotency_key: str | None = None,
    on_upload: OnUpload | None = None,
    **options: Option,
) -> Flow[Job]:
    """Upload pairs and start training on them.

    `pairs` is a folder with clean/ and distorted/, a zip of such, a list of (clean, distorted) images, or a dataset or
    its id. `name` is the model's, by default the folder's. `options` are further options of the job by the service's
    names; one that it does not know is refused. The request carries an Idempotency-Key, so that it makes one job
    however often it has to be sent. Raises BadFolder, BadPairs, NameTaken and other problems.
    """
    asked: dict[str, Option] = {
        "name": name or model_name(pairs),
        "preset": preset,
        "seed": seed,
        "new_version": new_version,
        **options,
    }
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    if (uploaded := dataset_id(pairs)) is not None:
        body = {name: value for name, value in asked.items() if value is not None} | {"dataset_id": uploaded}
        return Job.of((yield from fetch(Request("POST", "/v1/jobs", headers=headers, json=body))))
    request = Request(
        "POST",
        "/v1/jobs",
        headers=headers,
        form=fields_of(asked),
        parts=as_parts(pairs),
        read_timeout_s=ANSWERING_UPLOAD_S,
        on_upload=on_upload,
    )
    return Job.of((yield from fetch(request)))


def get(job: JobRef) -> Flow[Job]:
    """The job as it is now."""
    return Job.of((yield from fetch(Request("GET", _path(job)))))


def list_jobs(*, state: str | None = None, limit: int | None = None) -> Stream[Job]:
    """Jobs, the newest first, page by page as they are asked for: at most `limit`, or all."""
    params = {} if state is None else {"state": state}
    yield from paged("/v1/jobs", Job.of, params, limit)


def watch(job: JobRef, *, after: int = 0, patience_s: float = 120.0) -> Stream[Event]:
    """What happens to the job, from the event after `after` to its end.

    A stream that breaks is taken up where it was, without loss; a service that is away for `patience_s` ends it with
    Unreachable.
    """
    heard = time.monotonic()
    while True:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        request = Request("GET", _path(job, "/events"), headers=headers, read_timeout_s=SILENT_S)
        try:
            response = yield from send(request, stream=True)
            if response.status_code == 204:
                return
            stream = EventStream()
            while (chunk := (yield from read())) is not None:
                heard = time.monotonic()
                for document in stream.feed(chunk):
                    event = Event.of(document)
                    after = event.id
                    yield Emit(event)
                    if event.last:
                        return
        except (Unreachable, Unavailable):
            if time.monotonic() - heard > patience_s:
                raise
        yield Sleep(LOOK_EVERY_S)


def wait(job: JobRef, *, timeout_s: float | None = None, patience_s: float = 120.0) -> Flow[Job]:
    """The job once it has ended, however it has. Raises WaitedTooLong."""
    began = heard = time.monotonic()
    while True:
        try:
            found = yield from get(job)
            heard = time.monotonic()
            if found.ended:
                return found
        except (Unreachable, Unavailable):
            if time.monotonic() - heard > patience_s:
                raise
        if timeout_s is not None and time.monotonic() - began > timeout_s:
            raise WaitedTooLong(f"the job has not ended within {timeout_s:g} s")
        yield Sleep(LOOK_EVERY_S)


def cancel(job: JobRef) -> Flow[Job]:
    """Ask the job to stop; asking twice is the same."""
    return Job.of((yield from fetch(Request("POST", _path(job, "/cancel")))))


def delete(job: JobRef) -> Flow[None]:
    """Forget the job with its events. Raises Conflict while it has not ended, or the version that it made exists."""
    yield from send(Request("DELETE", _path(job), repeatable=False))


def relation(job: JobRef, *, wait_s: float = 60.0) -> Flow[Relation]:
    """The relation graph as the service tells it: γ by distortion, and a sentence that says what it means.

    It exists some seconds after the job has begun; it is waited for. Raises NotReady where it has not come in `wait_s`,
    Conflict where it never will.
    """
    began = time.monotonic()
    while True:
        try:
            return Relation.of((yield from fetch(Request("GET", _path(job, "/graph")))))
        except NotReady as early:
            if time.monotonic() - began > wait_s:
                raise
            yield Sleep(min(early.retry_after_s or 1.0, 1.0))


def graph(job: JobRef, *, wait_s: float = 60.0) -> Flow[Any]:
    """The relation graph as a `networkx.Graph`. Without networkx, ask for the `relation`."""
    try:
        import networkx as nx  # Optional: only this call needs it.
    except ImportError as error:
        raise DRTLError("networkx is not installed: pip install networkx, or use relation() instead") from error
    found = yield from relation(job, wait_s=wait_s)
    return nx.node_link_graph(found.raw, edges="links")


class Drawing(bytes):
    """The bytes of an SVG file, which a notebook shows as a picture."""

    def _repr_svg_(self) -> str:
        return self.decode()


def graph_svg(job: JobRef) -> Flow[Drawing]:
    """The relation graph, drawn."""
    response = yield from send(Request("GET", _path(job, "/graph"), headers={"Accept": "image/svg+xml"}))
    return Drawing(response.content)


class Jobs(Resource):
    """Few-shot trainings."""

    create = blocking(create)
    get = blocking(get)
    list = iterating(list_jobs)
    watch = iterating(watch)
    wait = blocking(wait)
    cancel = blocking(cancel)
    delete = blocking(delete)
    relation = blocking(relation)
    graph = blocking(graph)
    graph_svg = blocking(graph_svg)


class AsyncJobs(AsyncResource):
    """Few-shot trainings."""

    create = awaiting(create)
    get = awaiting(get)
    list = async_iterating(list_jobs)
    watch = async_iterating(watch)
    wait = awaiting(wait)
    cancel = awaiting(cancel)
    delete = awaiting(delete)
    relation = awaiting(relation)
    graph = awaiting(graph)
    graph_svg = awaiting(graph_svg)
