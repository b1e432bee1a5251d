"""The storm can be had again by its seed, and its judges see what they are there to see."""

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.chaos import audit, schedule
from benchmarks.chaos.audit import Write
from benchmarks.chaos.doubling_broker import Doubling

CLAIM = Write(10.0, "job", 1, None, "a", "queued", "running", None, 0.0, 15.0)
STEP = Write(11.0, "job", 1, "a", "a", "running", "running", "fine_tuning", 0.3, 16.0)
TAKEN = Write(17.0, "job", 1, "a", None, "running", "queued", "fine_tuning", 0.3, None)
CLAIM_AGAIN = Write(18.0, "job", 2, None, "b", "queued", "running", "fine_tuning", 0.3, 23.0)
STEP_AGAIN = replace(CLAIM_AGAIN, at=19.0, token_before="b", state_before="running", progress=0.4)
END = Write(20.0, "job", 2, "b", None, "running", "succeeded", "fine_tuning", 1.0, None)
STORY = [CLAIM, STEP, TAKEN, CLAIM_AGAIN, STEP_AGAIN, END]


@given(st.integers(0, 2**32), st.floats(20, 600), st.floats(0.5, 10))
def test_a_seed_makes_one_schedule(seed: int, seconds: float, every_s: float) -> None:
    faults = schedule.draw(seed, seconds, every_s, schedule.EVERYWHERE)
    assert faults == schedule.draw(seed, seconds, every_s, schedule.EVERYWHERE)
    assert all(a.at_s <= b.at_s for a, b in itertools.pairwise(faults))
    assert not faults or faults[-1].at_s < seconds + 0.01
    whole_packs = len(faults) // (2 * len(schedule.EVERYWHERE) - len(schedule.RARE))
    for kind in schedule.EVERYWHERE:
        assert sum(fault.kind == kind for fault in faults) >= whole_packs


def test_leases_are_read_from_the_writes() -> None:
    first, second = audit.tenures(STORY)["job"]
    assert (first.claimed_at, first.first_step_at, first.last_write_at) == (10.0, 11.0, 11.0)
    assert (first.valid_until, first.ended_at, first.taken_back) == (16.0, 17.0, True)
    assert (second.claimed_at, second.first_step_at, second.ended_at, second.taken_back) == (18.0, 19.0, 20.0, False)


def test_a_job_given_back_by_its_worker_was_not_taken() -> None:
    released = replace(TAKEN, attempt=0)
    (first, _) = audit.tenures([CLAIM, STEP, released, CLAIM_AGAIN, END])["job"]
    assert not first.taken_back


def test_a_write_under_an_old_lease_is_seen() -> None:
    assert audit.stale(STORY) == []
    late = replace(STEP, at=21.0)
    assert [write["at"] for write in audit.stale([*STORY, late])] == [21.0]


@given(st.lists(st.sampled_from([b"one", b"two", b"three"]), min_size=1, max_size=20))
def test_every_message_is_pushed_at_least_twice_and_nothing_else_is_changed(messages: list[bytes]) -> None:
    doubling = Doubling()
    for message in messages:
        command, queue, *pushed = doubling.rewritten([b"LPUSH", b"training", message])
        assert command in {b"LPUSH", b"RPUSH"}
        assert queue == b"training"
        assert pushed.count(message) >= 2
        assert set(pushed) <= set(messages)
    for other in ([b"LPUSH", b"drtl:done:op_1", b"1"], [b"BRPOP", b"training", b"1"], [b"PING"]):
        assert doubling.rewritten(other) == other
