"""What endpoints are given: settings, database sessions, storage and queue."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Query, Request
from sqlalchemy.orm import Session, sessionmaker

from app.api.auth import PrincipalDep, presented_key
from app.api.event_stream import EventFeed
from app.api.examiners import Examiners
from app.api.key_ring import KeyRing
from app.api.waiting import Waiters
from app.core.errors import Unauthorized
from app.core.keys import Limits
from app.core.owners import OPEN, Sessions, View, ViewedSessions
from app.core.queue import Queue
from app.core.settings import Settings
from app.core.storage import Storage


@dataclass(frozen=True)
class Services:
    """Everything outside this process that the API talks to; opened once, when the service starts."""

    settings: Settings
    sessions: Sessions
    passing_sessions: Sessions
    read_sessions: Sessions
    storage: Storage
    queue: Queue
    examiners: Examiners
    waiters: Waiters
    event_feed: EventFeed
    owner: str = OPEN  # of what is made
    limits: Limits | None = None  # of the key that asks

    def seen_as(self, view: View, limits: Limits | None) -> "Services":
        """The same with sessions that see no more than the view does."""
        assert isinstance(self.sessions, sessionmaker)
        assert isinstance(self.passing_sessions, sessionmaker)
        assert isinstance(self.read_sessions, sessionmaker)
        return replace(
            self,
            sessions=ViewedSessions(self.sessions, view),
            passing_sessions=ViewedSessions(self.passing_sessions, view),
            read_sessions=ViewedSessions(self.read_sessions, view),
            owner=view.owner,
            limits=limits,
        )


async def services(request: Request, principal: PrincipalDep) -> Services:
    """The services as whoever sends the request may see them: an endpoint that is given any has been authorized."""
    opened = request.app.state.services
    assert isinstance(opened, Services)
    return opened.seen_as(principal.view, principal.limits)


ServicesDep = Annotated[Services, Depends(services)]


async def _key_is_good(request: Request, principal: PrincipalDep) -> Callable[[], Awaitable[bool]]:
    ring = request.app.state.key_ring
    assert isinstance(ring, KeyRing)

    async def ask() -> bool:
        try:
            return principal.key is None or await presented_key(request, ring) is not None
        except Unauthorized:
            return False

    return ask


# For answers that go on: whether the key, or the ticket, that the request came with still opens anything. As cheap as
# for a request; who came without one has none to lose.
KeyIsGoodDep = Annotated[Callable[[], Awaitable[bool]], Depends(_key_is_good)]


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
