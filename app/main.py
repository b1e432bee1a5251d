"""Builds the HTTP service: routers, and errors as responses. Run by `uvicorn --factory app.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio.to_thread
from fastapi import FastAPI

from app.api import (
    auth,
    batches,
    datasets,
    health,
    jobs,
    metrics,
    model_files,
    models,
    operations,
    pair_images,
    problems,
    session,
    super_resolution,
    web,
    webhooks,
)
from app.api.body_limit import BodyLimit
from app.api.deps import Services
from app.api.examiners import Examiners
from app.api.key_ring import KeyRing
from app.api.quotas import RateHeaders
from app.api.request_id import RequestId
from app.api.same_origin import SameOrigin
from app.core import logs, tracing
from app.core.database import open_database, read_sessions, sessions
from app.core.queue import Queue
from app.core.settings import Settings, settings
from app.core.storage import FolderStorage

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
    problems,
)
THREADS: Final = 128  # A request that waits for a restored image holds one; they cost nothing while they wait.

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
    app = FastAPI(title="DRTL", version=VERSION, description=DESCRIPTION.strip(), lifespan=lifespan)
    app.state.settings = chosen
    app.state.metrics = metrics.Metrics(lambda: services(app))
    app.add_middleware(BodyLimit, settings=chosen)
    app.add_middleware(SameOrigin)
    app.add_middleware(RateHeaders)
    app.add_middleware(metrics.RequestMetrics, metrics=app.state.metrics)
    app.add_middleware(RequestId, says_each=chosen.log_format == "json")
    problems.install(app)
    for part in PARTS:
        app.include_router(part.router)
    auth.document(app)
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
    assert chosen.blob_dir is not None
    engine = open_database(chosen.database_url)
    queue = Queue(chosen.broker_url)
    examiners = Examiners(chosen)
    key_ring = KeyRing(read_sessions(engine), sessions(engine))
    app.state.key_ring = key_ring
    app.state.services = Services(
        settings=chosen,
        sessions=sessions(engine),
        read_sessions=read_sessions(engine),
        storage=FolderStorage(chosen.blob_dir),
        queue=queue,
        examiners=examiners,
    )
    try:
        yield
    finally:
        examiners.close()
        key_ring.close()
        queue.close()
        engine.dispose()
        tracing.flush()
