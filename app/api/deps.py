"""What endpoints are given: settings, database sessions, storage and queue."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from sqlalchemy.orm import Session, sessionmaker

from app.api.examiners import Examiners
from app.core.queue import Queue
from app.core.settings import Settings
from app.core.storage import Storage


@dataclass(frozen=True)
class Services:
    """Everything outside this process that the API talks to; opened once, when the service starts."""

    settings: Settings
    sessions: sessionmaker[Session]
    read_sessions: sessionmaker[Session]
    storage: Storage
    queue: Queue
    examiners: Examiners


def services(request: Request) -> Services:
    opened = request.app.state.services
    assert isinstance(opened, Services)
    return opened


ServicesDep = Annotated[Services, Depends(services)]


def _session(services: ServicesDep) -> Iterator[Session]:
    with services.sessions() as session:
        yield session


def _read_session(services: ServicesDep) -> Iterator[Session]:
    with services.read_sessions() as session:
        yield session


# A session begins its transaction with the first query, and closes before the response is sent.
SessionDep = Annotated[Session, Depends(_session, scope="function")]
ReadSessionDep = Annotated[Session, Depends(_read_session, scope="function")]

LimitQuery = Annotated[int, Query(ge=1, le=200, description="How many at most.", examples=[20])]
