"""What can go wrong, as one small tree; each error knows its HTTP status and its stable problem type (RFC 9457)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class RefusedFile:
    """An uploaded file that cannot be used, by the name it came with, and why."""

    name: str
    reason: str


class ServiceError(Exception):
    """A failure with a meaning for the caller.

    `pointer` names the offending part: a JSON pointer, a query or header name, or an uploaded file's name.
    `files` lists every refused file, so that all can be mended at once. `headers` belong to the answer.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something failed on our side"

    def __init__(
        self,
        detail: str,
        *,
        pointer: str | None = None,
        files: Sequence[RefusedFile] = (),
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.files = tuple(files)
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})


class BadRequest(ServiceError):
    status, code, title = 400, "bad-request", "The request cannot be read"


class Unauthorized(ServiceError):
    status, code, title = 401, "unauthorized", "A valid API key is needed"


class Forbidden(ServiceError):
    status, code, title = 403, "forbidden", "The key does not allow this"


class MissingScope(Forbidden):
    code, title = "missing-scope", "The key lacks the scope for this"


class OverQuota(Forbidden):
    code, title = "over-quota", "This is more than the key may keep"


class CrossOrigin(Forbidden):
    code, title = "cross-origin", "A page of another origin may not use this service"


class NotFound(ServiceError):
    status, code, title = 404, "not-found", "No such thing"


class MethodNotAllowed(ServiceError):
    status, code, title = 405, "method-not-allowed", "This method cannot be used here"


class NotAcceptable(ServiceError):
    status, code, title = 406, "not-acceptable", "None of the accepted formats can be produced"


class RequestTimeout(ServiceError):
    status, code, title = 408, "request-timeout", "The request did not come whole in time"


class Conflict(ServiceError):
    status, code, title = 409, "conflict", "The request conflicts with the present state"


class NameTaken(Conflict):
    code, title = "name-taken", "The model name is taken"


class NotReady(Conflict):
    code, title = "not-ready", "It does not exist yet; try again later"


class RequestInFlight(Conflict):
    code, title = "request-in-flight", "A request with this Idempotency-Key is still being answered"


class FileLost(ServiceError):
    status, code, title = 410, "file-lost", "The service has lost this file"


class TooLarge(ServiceError):
    status, code, title = 413, "too-large", "The upload is larger than this service accepts"


class UnsupportedMedia(ServiceError):
    status, code, title = 415, "unsupported-media", "What was sent is not of an accepted format"


class Unprocessable(ServiceError):
    status, code, title = 422, "unprocessable", "The request is well formed but cannot be carried out"


class BadPairs(Unprocessable):
    code, title = "bad-pairs", "The images do not form usable pairs"


class BadImage(Unprocessable):
    code, title = "bad-image", "An image file is damaged or not usable"


class BadArchive(Unprocessable):
    code, title = "bad-archive", "The zip cannot be used"


class BadWebhookUrl(Unprocessable):
    code, title = "bad-webhook-url", "Webhooks cannot be sent to this URL"


class IdempotencyMismatch(Unprocessable):
    code, title = "idempotency-mismatch", "This Idempotency-Key was used with another request"


class TooManyRequests(ServiceError):
    status, code, title = 429, "too-many-requests", "The key has made too many requests in this minute"


class QuotaExhausted(TooManyRequests):
    code, title = "quota-exhausted", "The key has used up its quota for now"


class HeadersTooLarge(ServiceError):
    status, code, title = 431, "request-header-fields-too-large", "The head of the request is too large"


class Unavailable(ServiceError):
    status, code, title = 503, "unavailable", "A part of the service does not answer"


class StorageFull(ServiceError):
    status, code, title = 507, "storage-full", "The service's disk is full"


class LeaseLost(Exception):
    """This worker no longer owns the job; whatever it still computes must not be written."""


class JobCancelled(Exception):
    """Somebody asked for the job to stop."""


class OperationCancelled(Exception):
    """Somebody asked for the image not to be restored."""
