"""Server-sent events: the same whatever pieces they come in, and typed."""

import json

from fastapi.sse import format_sse_event
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api import examples
from drtl_client import events
from drtl_client.events import Event, EventStream

DOCUMENT = {"id": 7, "job_id": "job_1", "created_at": "2026-01-02T03:04:05Z", "kind": "progress", "payload": {}}


def sent(document: dict[str, object]) -> bytes:
    return format_sse_event(id=str(document["id"]), event=str(document["kind"]), data_str=json.dumps(document))


@settings(deadline=None)
@given(st.data(), st.text())
def test_events_are_the_same_in_whatever_pieces_they_come(draw: st.DataObject, said: str) -> None:
    documents = [DOCUMENT | {"id": number, "payload": {"said": said}} for number in range(4)]
    content = format_sse_event(retry=1000) + b"".join(
        sent(document) + format_sse_event(comment="still here") for document in documents
    )
    stream, found = EventStream(), []
    while content:
        size = draw.draw(st.integers(1, 60))
        found += stream.feed(content[:size])
        content = content[size:]
    assert found == documents


def test_an_event_of_a_later_service_is_still_an_event() -> None:
    event = Event.of(DOCUMENT | {"kind": "coffee", "payload": {"cups": 2}})
    assert type(event) is Event
    assert event.payload == {"cups": 2}
    assert not event.last


def test_progress_is_typed() -> None:
    event = Event.of(examples.EVENT)
    assert isinstance(event, events.Progress)
    assert (event.phase, event.progress) == (examples.EVENT["payload"]["phase"], examples.EVENT["payload"]["progress"])
    assert event.created_at.tzinfo is not None
