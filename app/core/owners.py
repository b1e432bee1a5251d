"""Whose rows a session sees: row-level security in the session, so that no query can forget to ask.

Every SELECT, UPDATE and DELETE of an owned table (`Owned`) in a session with a view is narrowed to the view's owner,
and every new row gets that owner. A session without a view, as workers and housekeeping use them, sees everything.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction, sessionmaker, with_loader_criteria

from app.core.tables import Owned

OPEN: Final = ""  # The owner of what an open service makes.
_VIEW: Final = "view"


@dataclass(frozen=True)
class View:
    """As whom a session looks: what it makes is `owner`'s, and it sees no other's unless it `sees_all`."""

    owner: str = OPEN
    sees_all: bool = False


EVERYTHING: Final = View(OPEN, sees_all=True)


def view_of(session: Session) -> View:
    """The session's view; that of everything where it has none."""
    view = session.info.get(_VIEW, EVERYTHING)
    assert isinstance(view, View)
    return view


def look_as(session: Session, owner: str) -> None:
    """Let a session of a worker see from now on what the owner of its work sees."""
    session.info[_VIEW] = View(owner)


class Sessions(Protocol):
    """Makes sessions; `sessionmaker` is one such, `ViewedSessions` the other."""

    def __call__(self) -> Session: ...

    def begin(self) -> AbstractContextManager[Session]:
        """A session that commits at the end of the block."""


@dataclass(frozen=True)
class ViewedSessions:
    """Makes sessions with a view, as `sessionmaker` makes them without."""

    maker: sessionmaker[Session]
    view: View

    def __call__(self) -> Session:
        return self.maker(info={_VIEW: self.view})

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A session that commits at the end of the block."""
        with self() as session, session.begin():
            yield session


@event.listens_for(Session, "do_orm_execute")
def _hide_what_others_own(state: ORMExecuteState) -> None:
    view = view_of(state.session)
    if view.sees_all or state.is_column_load or state.is_relationship_load:
        return
    owner = view.owner  # A plain string: the criterion is compiled once, with the owner as its parameter.
    state.statement = state.statement.options(
        with_loader_criteria(Owned, lambda table: table.owner == owner, include_aliases=True)
    )


@event.listens_for(Session, "before_flush")
def _own_what_is_new(session: Session, _context: UOWTransaction, _instances: Any) -> None:
    owner = view_of(session).owner
    for row in session.new:
        if isinstance(row, Owned) and getattr(row, "owner", None) is None:
            row.owner = owner
