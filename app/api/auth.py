"""Who sends a request, and whether they may: keys, the scopes of every call, and the rule of an open service."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Request
from starlette.concurrency import run_in_threadpool

from app.api.key_ring import KeyRing
from app.api.problems import MEDIA_TYPE, SCHEMA, problems
from app.api.quotas import WINDOW, count_request
from app.core.errors import Forbidden, MissingScope, TooManyRequests, Unauthorized
from app.core.keys import SCOPES, Limits, Scope
from app.core.owners import EVERYTHING, View
from app.core.settings import Settings
from app.core.tables import ApiKey

# Which scope a call needs; one of them is enough, and `admin` always is. A call that is not listed is refused: whoever
# adds one has to say here whom it is for.
SCOPES_OF: Final[dict[tuple[str, str], tuple[Scope, ...]]] = {
    ("POST", "/v1/datasets"): ("train",),
    ("GET", "/v1/datasets"): ("read", "train"),
    ("GET", "/v1/datasets/{dataset_id}"): ("read", "train"),
    ("DELETE", "/v1/datasets/{dataset_id}"): ("train",),
    ("GET", "/v1/datasets/{dataset_id}/pairs/{position}/{side}"): ("read", "train"),
    ("POST", "/v1/jobs"): ("train",),
    ("GET", "/v1/jobs"): ("read", "train"),
    ("GET", "/v1/jobs/{job_id}"): ("read", "train"),
    ("DELETE", "/v1/jobs/{job_id}"): ("train",),
    ("GET", "/v1/jobs/{job_id}/graph"): ("read", "train"),
    ("GET", "/v1/jobs/{job_id}/preview"): ("read", "train"),
    ("GET", "/v1/jobs/{job_id}/events"): ("read", "train"),
    ("POST", "/v1/jobs/{job_id}/cancel"): ("train",),
    ("GET", "/v1/models"): ("read", "train", "infer"),
    ("GET", "/v1/models/{name}"): ("read", "train", "infer"),
    ("DELETE", "/v1/models/{name}"): ("train",),
    ("GET", "/v1/models/{name}/versions/{version}"): ("read", "train", "infer"),
    ("DELETE", "/v1/models/{name}/versions/{version}"): ("train",),
    # A key that sits in a device to restore its images must not give the model away.
    ("GET", "/v1/models/{name}/versions/{version}/weights"): ("read", "train"),
    ("GET", "/v1/models/{name}/versions/{version}/onnx"): ("read", "train"),
    ("PUT", "/v1/models/{name}/aliases/{alias}"): ("train",),
    ("POST", "/v1/models/{model}/super-resolve"): ("infer",),
    ("GET", "/v1/operations"): ("read", "infer"),
    ("GET", "/v1/operations/{operation_id}"): ("read", "infer"),
    ("GET", "/v1/operations/{operation_id}/result"): ("read", "infer"),
    ("GET", "/v1/operations/{operation_id}/trust"): ("read", "infer"),
    ("POST", "/v1/operations/{operation_id}/cancel"): ("infer",),
    ("POST", "/v1/batches"): ("infer",),
    ("GET", "/v1/batches"): ("read", "infer"),
    ("GET", "/v1/batches/{batch_id}"): ("read", "infer"),
    ("GET", "/v1/batches/{batch_id}/result"): ("read", "infer"),
    ("POST", "/v1/batches/{batch_id}/cancel"): ("infer",),
    ("POST", "/v1/webhooks"): ("train",),
    ("GET", "/v1/webhooks"): ("read", "train"),
    ("GET", "/v1/webhooks/{webhook_id}"): ("read", "train"),
    ("PATCH", "/v1/webhooks/{webhook_id}"): ("train",),
    ("DELETE", "/v1/webhooks/{webhook_id}"): ("train",),
    ("POST", "/v1/webhooks/{webhook_id}/secret"): ("train",),
    ("POST", "/v1/webhooks/{webhook_id}/ping"): ("train",),
    ("GET", "/v1/webhooks/{webhook_id}/deliveries"): ("read", "train"),
    ("GET", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}"): ("read", "train"),
    ("POST", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"): ("train",),
    ("POST", "/v1/session"): SCOPES,
}
# What monitors and strangers may ask: it tells of no owner's things.
FOR_EVERYBODY: Final = frozenset({"/healthz", "/readyz", "/metrics", "/problems/{code}"})

COOKIE: Final = "drtl_ticket"
# A `Host` (RFC 9110, 7.2) that may be a name of this machine: a name or an address, IPv6 in brackets, and a port.
HOST: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)\]|(?P<name>[0-9A-Za-z.-]+))(?::[0-9]{0,5})?")
FORWARDED: Final = ("forwarded", "x-forwarded-for", "via")  # Set by proxies, behind which anybody may be.


@dataclass(frozen=True)
class Principal:
    """Who sends the request: a key, or whoever reaches an open service."""

    view: View
    key: ApiKey | None = None
    limits: Limits | None = None  # None for nobody's key: an open service counts nothing.


MONITOR: Final = Principal(EVERYTHING)


async def principal(request: Request) -> Principal:
    """Whoever sends the request, if they may make this call. Raises Unauthorized, TooManyRequests or MissingScope.

    It runs before an upload is read; JSON of up to a mebibyte has been by then. What it has to look up, it looks up in
    a thread, and remembers for a second.
    """
    path = request.scope["route"].path
    if path in FOR_EVERYBODY:
        return MONITOR
    ring, settings = request.app.state.key_ring, request.app.state.settings
    assert isinstance(ring, KeyRing)
    assert isinstance(settings, Settings)
    key = await presented_key(request, ring)
    if key is None:
        await require_open(request, ring, settings)
        return Principal(View())
    limits = Limits.of(key, settings)
    queue = request.app.state.services.queue
    setattr(request.state, WINDOW, await run_in_threadpool(count_request, queue, key.id, limits))
    require_scope(key, "GET" if request.method == "HEAD" else request.method, path)
    return Principal(View(key.owner, sees_all="admin" in key.scopes), key, limits)


PrincipalDep = Annotated[Principal, Depends(principal)]


async def presented_key(request: Request, ring: KeyRing) -> ApiKey | None:
    """The key of the header, or of a browser's ticket. Raises Unauthorized for one that opens nothing."""
    if (header := request.headers.get("authorization")) is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise unauthorized("Send the key as `Authorization: Bearer drtl_…`.", "invalid_request")
        token = token.strip()
        key = ring.remembered(token) or await run_in_threadpool(ring.key_of_token, token)
    # A ticket travels by itself, so it is good for looking only: no other page can make a browser change anything.
    elif request.method in {"GET", "HEAD"} and (ticket := request.cookies.get(COOKIE)) is not None:
        key = ring.remembered(ticket) or await run_in_threadpool(ring.key_of_ticket, ticket)
    else:
        return None
    if key is None:
        raise unauthorized("The key is unknown, revoked or expired.", "invalid_token")
    return key


async def require_open(request: Request, ring: KeyRing, settings: Settings) -> None:
    """Raise Unauthorized unless this service asks this client for no key."""
    match settings.require_keys:
        case "never":
            return
        case "always":
            raise unauthorized("This service is used with a key: `Authorization: Bearer drtl_…`.")
    locked = ring.is_locked()
    if locked if locked is not None else await run_in_threadpool(ring.look_whether_locked):
        raise unauthorized("This service is used with a key: `Authorization: Bearer drtl_…`.")
    if not comes_from_here(request):
        raise unauthorized(
            "This service has no keys, and therefore answers nobody but programs on its own machine. "
            "Make one there with `drtl keys create`."
        )


def comes_from_here(request: Request) -> bool:
    """Whether a program on this machine has sent the request, to a name of this machine.

    The name is what tells it from a page that has had its own name resolved to 127.0.0.1 (DNS rebinding).
    """
    server = request.scope.get("server")
    if server is not None and server[1] is not None and not is_loopback(server[0]):
        return False
    if any(name in request.headers for name in FORWARDED):
        return False
    # Not `request.url`: where it cannot read the header, it takes the server's own address for what was asked for.
    named = HOST.fullmatch(request.headers.get("host", ""))
    return named is not None and is_loopback(named["ipv6"] or named["name"])


def is_loopback(host: str) -> bool:
    """Whether the name or address means this machine and nothing else."""
    if host.lower().removesuffix(".") == "localhost":  # With the root's dot it is the same name (RFC 6761, 6.3).
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def require_scope(key: ApiKey, method: str, path: str) -> None:
    """Raise MissingScope unless the key may make the call."""
    needed = SCOPES_OF.get((method, path), ("admin",))
    if not {"admin", *needed} & set(key.scopes):
        raise MissingScope(
            f"This needs a key with the scope {' or '.join(needed)}; this one has {', '.join(key.scopes)}.",
            headers={
                "WWW-Authenticate": f'Bearer realm="drtl", error="insufficient_scope", scope="{" ".join(needed)}"'
            },
        )


def unauthorized(detail: str, error: str | None = None) -> Unauthorized:
    """The refusal with its challenge (RFC 6750)."""
    challenge = 'Bearer realm="drtl"' + (f', error="{error}"' if error else "")
    return Unauthorized(detail, headers={"WWW-Authenticate": challenge})


def document(app: FastAPI) -> None:
    """Say in the OpenAPI document which calls need a key, with which scope, and how they refuse."""
    plain_document = app.openapi
    refusals = {
        str(status): response
        for status, response in problems(Unauthorized, Forbidden, MissingScope, TooManyRequests).items()
        if status in {401, 403, 429}
    }

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        described = plain_document()
        described["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "`drtl keys create` makes one."},
            "ticket": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "From `POST /v1/session`."},
        }
        for (method, path), scopes in SCOPES_OF.items():
            call = described["paths"][path][method.lower()]
            # No scope is listed beside these: one of several is enough, which OpenAPI cannot say.
            call["security"] = [{"key": []}, *([{"ticket": []}] if method == "GET" else []), {}]
            call["x-scopes"] = list(scopes)
            for status, response in refusals.items():
                known = call["responses"].setdefault(status, response)
                assert known is response or known["content"][MEDIA_TYPE]["schema"] == SCHEMA
            call["responses"] = dict(sorted(call["responses"].items()))
        return described

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI's documentation names
