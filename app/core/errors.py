"""What can go wrong, as one small tree; each error knows its HTTP status and its stable problem type (RFC 9457)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

# What it is about refused pairs: names without a partner, too few or too many, sizes that do not fit, files that cannot
# be used for several reasons, or what the pair doctor says of them.
PairsCause = Literal["names", "count", "sizes", "files", "rejected"]


@dataclass(frozen=True)
class RefusedFile:
    """An uploaded file that cannot be used, by the name it came with, and why."""

    name: str
    reason: str


class ServiceError(Exception):
    """A failure with a meaning for the caller.

    `pointer` names the offending part: a JSON pointer, a query or header name, or an uploaded file's name.
    `files` lists every refused file, so that all can be mended at once. `headers` belong to the answer.
    `meaning` and `remedy` are what the page of the problem type says, in sentences.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something failed on our side"
    meaning: ClassVar[str] = "The service met an error that nobody foresaw. It is logged, with the request's id."
    remedy: ClassVar[str] = "Send it again; if it fails again, tell the operator the `X-Request-ID` of the answer."
    cause: PairsCause | None = None

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
    meaning = (
        "The request breaks off, is not the HTTP or the JSON that it says it is, or lacks the file that it is about."
    )
    remedy = "Send it as `/docs` shows; `detail` says what could not be read."


class Unauthorized(ServiceError):
    status, code, title = 401, "unauthorized", "A valid API key is needed"
    meaning = "The service has keys, and the request has none, or one that is unknown, revoked or expired."
    remedy = "Send `Authorization: Bearer drtl_…` with a key that `drtl keys list` shows as good."


class Forbidden(ServiceError):
    status, code, title = 403, "forbidden", "The key does not allow this"
    meaning = "The key is good, but what it asks for is more than it may: a priority above its own, for one."
    remedy = "Ask for less, or ask the operator for a key that may do more."


class MissingScope(Forbidden):
    code, title = "missing-scope", "The key lacks the scope for this"
    meaning = "Each call needs one of the scopes that `/docs` lists with it, and the key has none of them."
    remedy = "Use another key, or have one made with the scope that `detail` names."


class OverQuota(Forbidden):
    code, title = "over-quota", "This is more than the key may keep"
    meaning = (
        "The pairs of one dataset, or all uploads of the key's owner together, would be more than the key may keep."
    )
    remedy = "Send less, delete what is not needed any more, or ask the operator for more room."


class CrossOrigin(Forbidden):
    code, title = "cross-origin", "A page of another origin may not use this service"
    meaning = (
        "A browser sent the request for a page of another origin, and what changes something is not taken from there."
    )
    remedy = "Call the service from its own page, or from a program outside of a browser."


class NotFound(ServiceError):
    status, code, title = 404, "not-found", "No such thing"
    meaning = (
        "Nothing has this path, id or name, or it belongs to another owner; an id that is ill-formed names nothing "
        "either."
    )
    remedy = (
        "See what there is: GET the list, such as `/v1/jobs` or `/v1/models`. Uploads, operations and batches end "
        "with time."
    )


class MethodNotAllowed(ServiceError):
    status, code, title = 405, "method-not-allowed", "This method cannot be used here"
    meaning = "The path exists, but not with this method."
    remedy = "Use one of those that the answer's `Allow` lists."


class NotAcceptable(ServiceError):
    status, code, title = 406, "not-acceptable", "None of the accepted formats can be produced"
    meaning = "The `Accept` header allows none of the formats that this call can answer with."
    remedy = "Leave the header out, or name one of the formats that `/docs` lists with the call."


class RequestTimeout(ServiceError):
    status, code, title = 408, "request-timeout", "The request did not come whole in time"
    meaning = "The upload stood still for too long, or was slower on the whole than the service waits for."
    remedy = "Send it again over a better connection, or in smaller parts."


class Conflict(ServiceError):
    status, code, title = 409, "conflict", "The request conflicts with the present state"
    meaning = "What was asked for does not go together with the state in which the thing is now."
    remedy = "Look at it with a GET; `detail` says what stands in the way."


class NameTaken(Conflict):
    code, title = "name-taken", "The model name is taken"
    meaning = "There is a model of this name, or a job that is to make one."
    remedy = "Choose another name, or send `new_version=true` to add a version to that model."


class NotReady(Conflict):
    code, title = "not-ready", "It does not exist yet; try again later"
    meaning = "It will exist, but does not yet: the work that makes it goes on."
    remedy = "Ask again after the seconds that `Retry-After` says."


class RequestInFlight(Conflict):
    code, title = "request-in-flight", "A request with this Idempotency-Key is still being answered"
    meaning = "An earlier request with the same Idempotency-Key has not been answered yet."
    remedy = "Send it again a little later: the answer will be that of the earlier one."


class FileLost(ServiceError):
    status, code, title = 410, "file-lost", "The service has lost this file"
    meaning = "The file was kept here once, and its storage does not have it any more, or has it damaged."
    remedy = "Send it again. The operator finds out more with `drtl doctor`."


class ModelDeleted(ServiceError):
    status, code, title = 410, "model-deleted", "The model was deleted before the image was restored"
    meaning = "The image waited for a model version that its owner has deleted meanwhile."
    remedy = "Send it again with another version; GET `/v1/models` lists what there is."


class TooLarge(ServiceError):
    status, code, title = 413, "too-large", "The upload is larger than this service accepts"
    meaning = "The body, a file in it or an image has more bytes or pixels than the settings allow."
    remedy = "Send less at once or a smaller image; `detail` says the limit, and the operator can raise it."


class UnsupportedMedia(ServiceError):
    status, code, title = 415, "unsupported-media", "What was sent is not of an accepted format"
    meaning = "The body's Content-Type, or the format of a file in it, is none that this call takes."
    remedy = "Send one of the types that `detail` names; convert other images to PNG, TIFF or JPEG."


class Unprocessable(ServiceError):
    status, code, title = 422, "unprocessable", "The request is well formed but cannot be carried out"
    meaning = (
        "An option, a field or a parameter has a value that cannot be used, is missing, or is none that the call knows."
    )
    remedy = "Mend what `errors`, or `pointer`, names."


class BadPairs(Unprocessable):
    code, title = "bad-pairs", "The images do not form usable pairs"
    meaning = (
        "The images do not belong together as clean and distorted ones, or nothing can be learnt from them; `cause` "
        "says whether it is `names`, `count`, `sizes`, `files`, or that the pair doctor has `rejected` them."
    )
    remedy = "Mend or leave out what `files` names; `POST /v1/datasets` reports on every pair, and `fix` mends many."

    def __init__(
        self,
        detail: str,
        *,
        cause: PairsCause = "files",
        pointer: str | None = None,
        files: Sequence[RefusedFile] = (),
    ) -> None:
        super().__init__(detail, pointer=pointer, files=files)
        self.cause = cause


class BadImage(Unprocessable):
    code, title = "bad-image", "An image file is damaged or not usable"
    meaning = (
        "The file breaks off, is damaged, or holds pixels of a kind that is not read, such as floating point or "
        "several pages."
    )
    remedy = (
        "Open it in another program and save it as PNG, TIFF or JPEG with 8 or 16 bits; `files` has the reason for "
        "each."
    )


class BadArchive(Unprocessable):
    code, title = "bad-archive", "The zip cannot be used"
    meaning = "The zip is damaged or encrypted, or has entries that are not accepted or not where they belong."
    remedy = (
        "Make it anew: for pairs with clean/ and distorted/ in it, for a batch with images; `files` names each entry."
    )


class BadWebhookUrl(Unprocessable):
    code, title = "bad-webhook-url", "Webhooks cannot be sent to this URL"
    meaning = "Messages are sent by HTTPS to public addresses on few ports, unless the operator allows more."
    remedy = "Give a URL that keeps to this; `detail` says in what it does not."


class IdempotencyMismatch(Unprocessable):
    code, title = "idempotency-mismatch", "This Idempotency-Key was used with another request"
    meaning = (
        "The key was used before, with other content or options, and stands for that request as long as it is kept."
    )
    remedy = "Send a new key with every new request."


class TooManyRequests(ServiceError):
    status, code, title = 429, "too-many-requests", "The key has made too many requests in this minute"
    meaning = "The key's requests per minute are used up."
    remedy = "Wait as long as `Retry-After` says; `RateLimit` tells what is left."


class QuotaExhausted(TooManyRequests):
    code, title = "quota-exhausted", "The key has used up its quota for now"
    meaning = "The owner has as many unfinished jobs, or has sent in as many megapixels today, as the key allows."
    remedy = "Wait for jobs to end, or for the next day (UTC); `Retry-After` says when to ask again."


class HeadersTooLarge(ServiceError):
    status, code, title = 431, "request-header-fields-too-large", "The head of the request is too large"
    meaning = "The request line or the headers are longer than the service reads."
    remedy = "Send fewer or shorter headers and cookies."


class Unavailable(ServiceError):
    status, code, title = 503, "unavailable", "A part of the service does not answer"
    meaning = "The database, the broker or the storage does not answer; what was sent was not taken in."
    remedy = "Send it again after `Retry-After`. `GET /readyz` says what is away."


class StorageFull(ServiceError):
    status, code, title = 507, "storage-full", "The service's disk is full"
    meaning = "There is no room left where the service keeps its files; nothing of what was sent was kept."
    remedy = "The operator has to make room; then send it again."


class LeaseLost(Exception):
    """This worker no longer owns the job; whatever it still computes must not be written."""


class JobCancelled(Exception):
    """Somebody asked for the job to stop."""


class OperationCancelled(Exception):
    """Somebody asked for the image not to be restored."""
