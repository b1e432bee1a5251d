"""Builds the HTTP service: routers, and errors as responses. `app.server` runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio.to_thread
from fastapi import Depends, FastAPI

from app.api import (
    auth,
    batches,
    datasets,
    health,
    jobs,
    metrics,
    model_files,
    models,
    openapi,
    operations,
    options,
    pair_images,
    problem_pages,
    problems,
    session,
    super_resolution,
    web,
    webhooks,
)
from app.api.body_limit import BodyLimit
from app.api.deps import Services
from app.api.event_stream import EventFeed
from app.api.examiners import Examiners
from app.api.key_ring import KeyRing
from app.api.quotas import RateHeaders
from app.api.request_id import RequestId
from app.api.same_origin import SameOrigin
from app.api.unforeseen import Unforeseen
from app.api.waiting import Waiters
from app.core import logs, tracing
from app.core.database import open_database, passing_sessions, read_sessions, sessions
from app.core.queue import Queue
from app.core.settings import Settings, settings
from app.core.storages import open_storage

VERSION: Final = "0.1.0"
PARTS: Final = (
    jobs,
    models,
    model_files,
    super_resolution,
    operations,
    batches,
    datasets,
    pair_images,
    webhooks,
    session,
    health,
    metrics,
    problem_pages,
)
THREADS: Final = 128  # For what asks database, disk or broker; most of the time, all of them wait for these.

DESCRIPTION: Final = """
Teach it how your camera, scanner or microscope spoils images, with a handful of pairs; then restore every further one.

1. `POST /v1/jobs` with a few pairs (distorted, clean) starts a training.
2. `GET /v1/jobs/{job_id}/graph` tells which known distortions yours resembles.
3. `POST /v1/models/{model}/super-resolve` restores an image with the model that the job has registered.

Every failure is an `application/problem+json` document (RFC 9457) with a stable `type`.
"""


def create_app(configured: Settings | None = None) -> FastAPI:
    """The service with the given settings, or with those of the environment."""
    chosen = configured or settings()
    if configured is None:  # A server has called, which is the whole process; its own first lines are still to come.
        logs.configure(chosen.log_format)
        tracing.configure("drtl-api")
    app = FastAPI(
        title="DRTL",
        version=VERSION,
        description=DESCRIPTION.strip(),
        lifespan=lifespan,
        docs_url=None,  # `web` has a page of its own, which runs no script of another host.
        redoc_url=None,
    )
    app.state.settings = chosen
    app.state.metrics = metrics.Metrics(lambda: services(app))
    app.add_middleware(BodyLimit, settings=chosen)
    app.add_middleware(SameOrigin)
    app.add_middleware(RateHeaders)
    app.add_middleware(Unforeseen)  # Each goes around those before: what fails in these is answered and counted, too.
    app.add_middleware(metrics.RequestMetrics, metrics=app.state.metrics)
    app.add_middleware(RequestId, says_each=chosen.log_format == "json")
    problems.install(app)
    for part in PARTS:
        app.include_router(part.router, dependencies=[Depends(options.known_options)])
    options.document(app)
    auth.document(app)
    openapi.install(app)
    web.install(app)
    return app


def services(app: FastAPI) -> Services:
    """What has been opened when the service started."""
    opened: Services = app.state.services
    return opened


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what the service talks to, and close it in the end. Nothing is asked yet, so that it starts without them."""
    chosen: Settings = app.state.settings
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    engine = open_database(chosen.database_url)
    queue = Queue(chosen.broker_url)
    examiners = Examiners(chosen)
    waiters = Waiters(chosen.broker_url)
    key_ring = KeyRing(read_sessions(engine), sessions(engine))
    app.state.key_ring = key_ring
    app.state.services = Services(
        settings=chosen,
        sessions=sessions(engine),
        passing_sessions=passing_sessions(engine),
        read_sessions=read_sessions(engine),
        storage=open_storage(chosen),
        queue=queue,
        examiners=examiners,
        waiters=waiters,
        event_feed=EventFeed(),
    )
    try:
        async with waiters.listening():
            yield
    finally:
        examiners.close()
        key_ring.close()
        queue.close()
        engine.dispose()
        tracing.flush()
