"""What receivers know a webhook's messages by: secrets, and signatures by the Standard Webhooks specification 1.0."""

import base64
import hmac
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"


def secret_of(key: str, webhook_id: str, generation: int) -> str:
    """The webhook's secret: derived from the service's key, so that no database and no backup holds it.

    One block of HKDF-Expand (RFC 5869). Another generation has another secret, and no secret tells anything of others.
    """
    purpose = f"drtl webhook secret {webhook_id} {generation}".encode()
    return PREFIX + base64.b64encode(hmac.digest(key.encode(), purpose + b"\x01", "sha256")).decode()


def fingerprint(key: str) -> str:
    """Tells keys apart without telling anything of them."""
    return hmac.digest(key.encode(), b"drtl webhook key", "sha256").hex()[:16]


def signed(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message: one signature for each secret, as a receiver may know the one before or the new one."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = [
        base64.b64encode(hmac.digest(base64.b64decode(secret.removeprefix(PREFIX)), content, "sha256")).decode()
        for secret in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
