"""What can go wrong, as exceptions: one for each type of problem document (RFC 9457) that the service answers with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx


@dataclass(frozen=True)
class RefusedFile:
    """An uploaded file that the service cannot use, and why."""

    name: str
    reason: str


class DRTLError(Exception):
    """Everything that this package raises by itself. The message is meant for people."""


class NoService(DRTLError):
    """No address was given, and no service runs on this machine."""


class BadAddress(DRTLError):
    """What was given as the service's address is none."""


class BadKey(DRTLError):
    """What was given as the API key cannot be one."""


class BadFolder(DRTLError):
    """A folder does not hold pairs, or a list is not one of pairs."""


class NoFolder(BadFolder):
    """What was given as a folder of pairs is none."""


class Unreachable(DRTLError):
    """No answer came, however often it was asked."""

    def __init__(self, cause: httpx.TransportError) -> None:
        url = cause.request.url.copy_with(path="/", query=None)
        super().__init__(f"{str(url).rstrip('/')} does not answer: {str(cause) or type(cause).__name__}")
        self.cause = cause


class WaitedTooLong(DRTLError):
    """The work goes on, but not within the time that it was given."""


class Damaged(DRTLError):
    """What was downloaded is not what the service holds."""


class BadSignature(DRTLError):
    """A webhook's message that is not the service's, or not of this time."""


class Problem(DRTLError):
    """The service refused, and says why.

    `code` is the stable end of the problem's `type`, `pointer` names the offending part, `files` every refused file.
    """

    code: ClassVar[str] = ""

    def __init__(self, status: int, document: dict[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.document = document
        self.type = str(document.get("type") or "about:blank")
        self.title = str(document.get("title") or f"HTTP {status}")
        self.detail = str(document.get("detail") or self.title)
        self.pointer: str | None = document.get("pointer")
        self.files = tuple(RefusedFile(file["name"], file["reason"]) for file in document.get("files") or ())
        self.retry_after_s = retry_after_s
        super().__init__("\n".join([self.detail, *(f"  {file.name}: {file.reason}" for file in self.files)]))


class BadRequest(Problem):
    code = "bad-request"


class Unauthorized(Problem):
    code = "unauthorized"


class Forbidden(Problem):
    code = "forbidden"


class MissingScope(Forbidden):
    code = "missing-scope"


class OverQuota(Forbidden):
    code = "over-quota"


class CrossOrigin(Forbidden):
    code = "cross-origin"


class NotFound(Problem):
    code = "not-found"


class MethodNotAllowed(Problem):
    code = "method-not-allowed"


class NotAcceptable(Problem):
    code = "not-acceptable"


class RequestTimeout(Problem):
    code = "request-timeout"


class Conflict(Problem):
    code = "conflict"


class NameTaken(Conflict):
    code = "name-taken"


class NotReady(Conflict):
    code = "not-ready"


class RequestInFlight(Conflict):
    code = "request-in-flight"


class FileLost(Problem):
    code = "file-lost"


class ModelDeleted(Problem):
    code = "model-deleted"


class TooLarge(Problem):
    code = "too-large"


class UnsupportedMedia(Problem):
    code = "unsupported-media"


class Unprocessable(Problem):
    code = "unprocessable"


class BadPairs(Unprocessable):
    code = "bad-pairs"

    @property
    def cause(self) -> str | None:
        """What it is about the pairs, in a word (docs/api.md); None from a service of an earlier release."""
        cause = self.document.get("cause")
        return cause if isinstance(cause, str) else None


class BadImage(Unprocessable):
    code = "bad-image"


class BadArchive(Unprocessable):
    code = "bad-archive"


class BadWebhookUrl(Unprocessable):
    code = "bad-webhook-url"


class IdempotencyMismatch(Unprocessable):
    code = "idempotency-mismatch"


class TooManyRequests(Problem):
    code = "too-many-requests"


class QuotaExhausted(TooManyRequests):
    code = "quota-exhausted"


class HeadersTooLarge(Problem):
    code = "request-header-fields-too-large"


class Internal(Problem):
    code = "internal"


class StorageFull(Problem):
    code = "storage-full"


class Unavailable(Problem):
    code = "unavailable"


class TimedOut(Problem):
    code = "timed-out"


def _below(kind: type[Problem]) -> Iterator[type[Problem]]:
    for narrower in kind.__subclasses__():
        yield narrower
        yield from _below(narrower)


BY_CODE = {kind.code: kind for kind in _below(Problem)}
# What a newer service calls by a name not known here is still at least this.
BY_STATUS: dict[int, type[Problem]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    406: NotAcceptable,
    409: Conflict,
    413: TooLarge,
    415: UnsupportedMedia,
    422: Unprocessable,
    429: TooManyRequests,
    503: Unavailable,
    507: StorageFull,
    504: TimedOut,
}


def problem_of(response: httpx.Response) -> Problem:
    """The exception for a response that is no success and has been read whole, whoever on the way here gave it."""
    answer = f"HTTP {response.status_code} {response.reason_phrase}"
    try:
        document = response.json()
    except ValueError:
        document = None
    if not response.is_error:
        elsewhere = response.headers.get("Location")
        points = "" if elsewhere is None else f", which points to {elsewhere}"
        document = {"detail": f"{answer}{points}; is the address that of the service?"}
    elif not isinstance(document, dict):
        document = {"detail": f"{answer}: {response.text[:200]}"}
    code = str(document.get("type", "")).rpartition("/")[2]
    kind = BY_CODE.get(code) or BY_STATUS.get(response.status_code, Problem)
    return kind(response.status_code, document, retry_after_s(response))


def retry_after_s(response: httpx.Response) -> float | None:
    """The seconds of `Retry-After`; its other form, a date, is not something that the service sends."""
    given = response.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() else None
