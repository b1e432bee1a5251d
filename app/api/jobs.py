"""`/v1/jobs`: few-shot trainings, their relation graphs and what happens to them."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from app.api import examples, idempotency
from app.api.blobs import NOT_MODIFIED, send_blob
from app.api.deps import KeyIsGoodDep, LimitQuery, ReadSessionDep, ServicesDep, SessionDep
from app.api.event_stream import stream_events
from app.api.graph_svg import draw
from app.api.idempotency import IdempotencyKeyHeader
from app.api.job_intake import JOB_BODY, add_job, read_options
from app.api.negotiation import AcceptHeader, preferred
from app.api.pair_uploads import UPLOAD_REFUSALS, PairsOrNameUpload
from app.api.problems import problems
from app.api.schemas.graph import GraphOut
from app.api.schemas.jobs import EventOut, JobOut
from app.api.schemas.wire import LARGEST_EVENT, JobIdPath, JobState, Page
from app.core import deletions, deliveries, jobs, repository, training_queue
from app.core.errors import (
    Conflict,
    FileLost,
    IdempotencyMismatch,
    NameTaken,
    NotAcceptable,
    NotFound,
    NotReady,
    RequestInFlight,
    StorageFull,
    Unprocessable,
)
from app.core.tables import ENDED

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

SVG: Final = "image/svg+xml"
PNG: Final = "image/png"
EVENT_STREAM: Final = "text/event-stream"
ENDED_IN_WORDS: Final = {
    "succeeded": "The job has ended",
    "failed": "The job has failed",
    "cancelled": "The job was cancelled",
}
JSON: Final = "application/json"

# One event of the stream, as the framework describes its own.
STREAMED: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": JSON},
        "retry": {"type": "integer"},
    },
}


@router.post(
    "",
    status_code=202,
    responses=problems(
        *UPLOAD_REFUSALS, NotFound, NameTaken, RequestInFlight, IdempotencyMismatch, Unprocessable, StorageFull
    ),
    openapi_extra=JOB_BODY,
)
def create_job(
    request: Request,
    upload: PairsOrNameUpload,
    services: ServicesDep,
    session: SessionDep,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> JobOut:
    """Start few-shot training. Poll the job at the `Location` header, or follow its events.

    Send the pairs with the options as form fields; or one zip with the options as query parameters; or JSON that
    names a dataset. If any file is refused, nothing is kept, and each refused file is named; so are pairs that nothing
    can be learnt from, unless `allow_rejects` is set.
    """
    options = read_options(upload, request)
    job, replayed = idempotency.once(
        session,
        idempotency_key,
        idempotency.fingerprint(options, upload.files),
        services.settings.idempotency_in_flight_s,
        repository.get_job,
        lambda: add_job(options, upload, services, session),
    )
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    else:
        services.queue.send_training(job.id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobOut.of(job, training_queue.position(session, job))


@router.get(
    "",
    responses={
        **problems(Unprocessable),
        200: {"content": {JSON: {"example": {"items": [examples.JOB], "next": None}}}},
    },
)
def list_jobs(
    session: ReadSessionDep,
    limit: LimitQuery = 20,
    after: Annotated[
        str | None, Query(pattern=r"^job_[0-9a-f]{1,36}$", description="The `next` of the page before.")
    ] = None,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.", examples=["running"])] = None,
) -> Page[JobOut]:
    """List jobs, newest first, or only those in one state."""
    found = repository.list_jobs(session, limit, after, state)
    return Page(items=[JobOut.of(job) for job in found], next=found[-1].id if len(found) == limit else None)


@router.get("/{job_id}", responses=problems(NotFound))
def get_job(job_id: JobIdPath, session: ReadSessionDep) -> JobOut:
    """A job: how far it is, and in the end its metrics and its model, or why it failed."""
    job = repository.get_job(session, job_id)
    return JobOut.of(job, training_queue.position(session, job))


@router.get(
    "/{job_id}/graph",
    response_model=GraphOut,
    responses={
        **problems(NotFound, NotAcceptable, NotReady, Conflict),
        200: {
            "description": "The graph as data, or drawn, by the `Accept` header",
            "content": {
                SVG: {"schema": {"type": "string"}, "example": "<svg xmlns='http://www.w3.org/2000/svg'>…</svg>"}
            },
        },
    },
)
def get_graph(
    job_id: JobIdPath,
    session: ReadSessionDep,
    accept: AcceptHeader = None,
) -> Response:
    """The relation graph: which known distortions the target's resembles, and by how much.

    It exists some seconds after the job has started, long before the job ends; until then the answer is a 409 with
    `Retry-After`.
    """
    media_type = preferred(accept, (JSON, SVG))
    job = repository.get_job(session, job_id)
    if job.graph is None:
        if job.state in ENDED:
            raise Conflict(f"{ENDED_IN_WORDS[job.state]} before it had a relation graph.")
        raise NotReady("The job has no relation graph yet.", retry_after_s=2)
    headers = {"Vary": "Accept"}
    if media_type == SVG:
        return Response(draw(job.graph, title=job.name), media_type=SVG, headers=headers)
    return JSONResponse({**job.graph, "edges": job.graph["links"]}, headers=headers)


@router.get(
    "/{job_id}/preview",
    response_class=StreamingResponse,
    responses={
        **problems(NotFound, NotReady, Conflict, Unprocessable),
        200: {
            "description": "Input, restored and clean crop side by side, of equal width",
            "content": {PNG: {"schema": {"type": "string", "format": "binary"}, "example": "…"}},
        },
        **NOT_MODIFIED,
    },
)
def get_preview(
    job_id: JobIdPath,
    request: Request,
    session: ReadSessionDep,
    services: ServicesDep,
    event: Annotated[
        int | None,
        Query(ge=0, description="Changes nothing but the address, for browsers that keep images.", examples=[42]),
    ] = None,
) -> Response:
    """A crop of a held-out pair, as the best weights so far restore it; `preview` events tell of better ones.

    It exists some seconds after the training has begun; until then the answer is a 409 with `Retry-After`.
    """
    job = repository.get_job(session, job_id)
    if job.preview_blob is None:
        if job.state in ENDED:
            raise Conflict(f"{ENDED_IN_WORDS[job.state]} before it had a preview.")
        raise NotReady("The job has no preview yet.", retry_after_s=2)
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    try:
        return send_blob(services.storage, job.preview_blob, PNG, headers, request)
    except FileLost:  # Replaced by a better one since the row was read.
        raise NotReady("The preview is being replaced.", retry_after_s=1) from None


@router.get(
    "/{job_id}/events",
    response_model=Page[EventOut],
    responses={
        **problems(NotFound, NotAcceptable, Unprocessable),
        200: {
            "description": "A page of events, or a stream of them, by the `Accept` header",
            "content": {
                JSON: {"example": {"items": [examples.EVENT], "next": None}},
                EVENT_STREAM: {"schema": STREAMED, "example": "id: 42\nevent: progress\ndata: {…}\n\n"},
            },
        },
        204: {"description": "The job has ended and the stream has nothing left to tell; do not reconnect."},
    },
)
def get_events(
    job_id: JobIdPath,
    session: ReadSessionDep,
    services: ServicesDep,
    key_is_good: KeyIsGoodDep,
    accept: AcceptHeader = None,
    limit: LimitQuery = 100,
    after: Annotated[int, Query(ge=0, le=LARGEST_EVENT, description="Only events after this id.", examples=[42])] = 0,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, le=LARGEST_EVENT, description="As `after`; browsers send it on reconnecting.", examples=[42]),
    ] = None,
) -> Response | Page[EventOut]:
    """What has happened to a job: as a JSON page, or as server-sent events that go on until the job has ended.

    A stream that breaks is resumed without loss: events are replayed from the database after `Last-Event-ID`. One that
    was opened with a key ends with it.
    """
    media_type = preferred(accept, (JSON, EVENT_STREAM))
    job = repository.get_job(session, job_id)
    start = after if last_event_id is None else last_event_id
    if media_type == EVENT_STREAM:
        if job.state in ENDED and not repository.list_events(session, job_id, start, limit=1):
            return Response(status_code=204)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
        return StreamingResponse(
            stream_events(services.event_feed, services.read_sessions, key_is_good, job_id, start),
            media_type=EVENT_STREAM,
            headers=headers,
        )
    events = repository.list_events(session, job_id, start, limit)
    following = str(events[-1].id) if len(events) == limit else None
    return Page(items=[EventOut.of(event) for event in events], next=following)


@router.post("/{job_id}/cancel", status_code=202, responses=problems(NotFound, StorageFull))
def cancel_job(job_id: JobIdPath, session: SessionDep, services: ServicesDep) -> JobOut:
    """Ask a job to stop. A waiting one stops at once, a running one within seconds, an ended one stays as it is."""
    repository.get_job(session, job_id)
    jobs.request_cancel(session, job_id)
    session.commit()
    if deliveries.has_published(session):
        services.queue.send_webhooks()
    session.expire_all()
    return JobOut.of(repository.get_job(session, job_id))


@router.delete("/{job_id}", status_code=204, responses=problems(NotFound, Conflict, StorageFull))
def delete_job(job_id: JobIdPath, session: SessionDep) -> None:
    """Forget a job that has ended: its events, graph and preview, and what webhooks have not been told of it yet.

    Refused while the model version that it has made exists: delete that first.
    """
    deletions.delete_job(session, job_id)
    session.commit()
