"""Signatures of webhooks, against the reference implementation of the specification and its published example."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from app.core.webhook_signatures import fingerprint, secret_of, signed
from drtl_client.errors import BadSignature
from drtl_client.signatures import verify

KEY = "k" * 40
SECRET = secret_of(KEY, "wh_1", 1)
OTHER = secret_of(KEY, "wh_1", 2)
bodies = st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers() | st.none(), max_size=4).map(
    lambda document: json.dumps(document, ensure_ascii=False).encode(errors="replace")
)
ids = st.from_regex(r"msg_[0-9a-f]{1,30}", fullmatch=True)


@given(ids, bodies)
def test_the_reference_implementation_accepts_what_is_signed(message_id: str, body: bytes) -> None:
    headers = signed([SECRET], message_id, int(time.time()), body)
    assert Webhook(SECRET).verify(body, headers) == json.loads(body)


@given(ids, bodies)
def test_the_client_accepts_what_the_reference_implementation_signs(message_id: str, body: bytes) -> None:
    now = datetime.now(UTC)
    headers = {
        "Webhook-Id": message_id,
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": Webhook(SECRET).sign(message_id, now, body.decode()),
    }
    assert verify(body, headers, SECRET) == json.loads(body)
    assert verify(body.decode(), headers, SECRET) == json.loads(body)


def test_the_specifications_example_holds() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signed([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_both_secrets_verify_while_a_secret_is_rotated_and_a_third_does_not() -> None:
    headers = signed([OTHER, SECRET], "msg_1", int(time.time()), b"{}")
    assert verify(b"{}", headers, SECRET) == verify(b"{}", headers, OTHER) == {}
    assert verify(b"{}", signed([SECRET], "msg_1", int(time.time()), b"{}"), [OTHER, SECRET]) == {}
    with pytest.raises(BadSignature):
        verify(b"{}", headers, secret_of(KEY, "wh_1", 3))


BENDS: list[Callable[[dict[str, str]], object]] = [
    lambda headers: headers.pop("webhook-id"),
    lambda headers: headers.pop("webhook-signature"),
    lambda headers: headers.update({"webhook-id": "msg_2"}),
    lambda headers: headers.update({"webhook-timestamp": str(int(time.time()) + 1)}),
    lambda headers: headers.update({"webhook-timestamp": "nan"}),
    lambda headers: headers.update({"webhook-timestamp": "9" * 30}),
    lambda headers: headers.update({"webhook-timestamp": "²"}),
    lambda headers: headers.update({"webhook-signature": ""}),
    lambda headers: headers.update({"webhook-signature": "v1,"}),
    lambda headers: headers.update({"webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")}),
    lambda headers: headers.update({"webhook-signature": "ü v1a,x"}),
]


@pytest.mark.parametrize("bend", BENDS)
def test_a_message_with_anything_else_than_its_own_headers_is_refused(bend: Callable[[dict[str, str]], object]) -> None:
    headers = signed([SECRET], "msg_1", int(time.time()), b"{}")
    bend(headers)
    with pytest.raises(BadSignature):
        verify(b"{}", headers, SECRET)


def test_a_body_that_was_changed_by_a_space_is_refused() -> None:
    with pytest.raises(BadSignature):
        verify(b"{ }", signed([SECRET], "msg_1", int(time.time()), b"{}"), SECRET)


@given(st.floats(-10_000, 10_000))
def test_only_messages_of_the_last_and_the_next_minutes_are_accepted(age_s: float) -> None:
    headers = signed([SECRET], "msg_1", 1_700_000_000, b"{}")
    if abs(age_s) <= 300:
        assert verify(b"{}", headers, SECRET, now=1_700_000_000 + age_s) == {}
    else:
        with pytest.raises(BadSignature, match="within 300 s"):
            verify(b"{}", headers, SECRET, now=1_700_000_000 + age_s)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_ä", "not base64"])
def test_a_secret_that_cannot_be_one_is_no_reason_to_accept(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        verify(b"{}", signed([SECRET], "msg_1", int(time.time()), b"{}"), secret)


@given(st.text(min_size=32), st.text(min_size=32), ids, ids, st.integers(1, 99), st.integers(1, 99))
def test_secrets_are_equal_only_for_the_same_key_webhook_and_generation(
    key: str, other_key: str, webhook: str, other_webhook: str, generation: int, other_generation: int
) -> None:
    try:
        key.encode(), other_key.encode()
    except UnicodeEncodeError:
        return
    same = (key, webhook, generation) == (other_key, other_webhook, other_generation)
    secrets = secret_of(key, webhook, generation), secret_of(other_key, other_webhook, other_generation)
    assert (secrets[0] == secrets[1]) == same
    assert (fingerprint(key) == fingerprint(other_key)) == (key == other_key)
    assert fingerprint(key) not in secrets[0]
