"""For receivers of webhooks: whether a message is the service's own (Standard Webhooks specification 1.0)."""

import base64
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import Final

from drtl_client.errors import BadSignature
from drtl_client.flow import Json

TOLERANCE_S: Final = 300.0


def verify(
    payload: bytes | str,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> Json:
    """The message in the request's body, once it is known to be the service's. Raises BadSignature.

    `payload` is the body as it came, to the byte; `headers` may be in any case; `secret` is what the service showed
    when the webhook was made, or several such. A message sent more than `tolerance_s` seconds from now is refused, for
    somebody may have recorded it. The same message can come twice: `webhook-id` is the same then.
    """
    body = payload.encode() if isinstance(payload, str) else payload
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, sent, signatures = (given[f"webhook-{part}"] for part in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise BadSignature(f"the request has no header {missing.args[0]}") from None
    if not (sent.isascii() and sent.isdecimal() and len(sent) < 15):
        raise BadSignature("webhook-timestamp is no time")
    if abs((time.time() if now is None else now) - int(sent)) > tolerance_s:
        raise BadSignature(f"the message was not sent within {tolerance_s:g} s from now; are both clocks right?")
    content = f"{message_id}.{sent}.".encode() + body
    secrets = [secret] if isinstance(secret, str) else secret
    expected = [f"v1,{base64.b64encode(hmac.digest(_key(each), content, 'sha256')).decode()}" for each in secrets]
    matches = [hmac.compare_digest(one.encode(), other.encode()) for one in expected for other in signatures.split()]
    if not any(matches):
        raise BadSignature("no signature fits: another secret, or a body that is not as it was sent")
    message: Json = json.loads(body)
    return message


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError as error:
        raise ValueError("secret: it must be what the service showed, whsec_…") from error
    if not key:
        raise ValueError("secret: it is empty, and anybody could sign with that")
    return key
