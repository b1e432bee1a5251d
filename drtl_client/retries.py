"""Which requests are sent again, and after how long."""

import random
from typing import Any, Final, TypeVar

import httpx

from drtl_client.errors import RequestInFlight, problem_of, retry_after_s
from drtl_client.flow import Request, Send, Sleep, Stream

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 8.0
LONGEST_RETRY_AFTER_S: Final = 60.0
# A keyed request that a dead process has left behind is given up by the service after two minutes.
IN_FLIGHT_ATTEMPTS: Final = 150
NEVER_ARRIVED: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def retried(flow: Stream[T], retries: int) -> Stream[T]:
    """The same flow, with each of its requests sent again, up to `retries` times, where that may help."""
    outcome: Any = None
    try:
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration:
                return
            outcome = yield step
            attempt = 0
            while isinstance(step, Send) and (pause := pause_s(step.request, outcome, attempt, retries)) is not None:
                yield Sleep(pause)
                outcome = yield step
                attempt += 1
    finally:
        flow.close()


def pause_s(
    request: Request, outcome: httpx.Response | httpx.TransportError, attempt: int, retries: int
) -> float | None:
    """How long to wait before the request is sent again; None where its outcome stands."""
    asked: float | None = None
    if isinstance(outcome, httpx.Response):
        if outcome.is_success or not may_help(request, outcome):
            return None
        asked = retry_after_s(outcome)
        if outcome.status_code == 429 and asked is not None and asked > LONGEST_RETRY_AFTER_S:
            return None  # It would be refused again: what is used up comes back later than anybody waits here.
        if outcome.status_code == 409:
            retries = IN_FLIGHT_ATTEMPTS
    elif not (request.repeatable or isinstance(outcome, NEVER_ARRIVED)):
        return None
    if attempt >= retries:
        return None
    backoff = random.uniform(
        0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
    )  # Jitter: callers do not march in step.
    return backoff if asked is None else min(asked, LONGEST_RETRY_AFTER_S) + backoff


def may_help(request: Request, response: httpx.Response) -> bool:
    """Whether the same request may be answered better later."""
    match response.status_code:
        case 429 | 503:  # It was not begun.
            return True
        case 502 | 504:
            # The service's own 504 says that the work goes on: sending it again would do it twice.
            return request.repeatable and response.headers.get("Content-Type") != "application/problem+json"
        case 409:
            return isinstance(problem_of(response), RequestInFlight)
        case _:
            return False
