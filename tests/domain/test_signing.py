"""Signatures, compared with the library that receivers use."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from scheduler_api.domain.signing import parse_secrets, sign, verify

NOW = 1_776_220_905
OLD, NEW = b"o" * 24, b"n" * 64


def written(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def test_sign_makes_the_signature_of_the_example_in_the_specification() -> None:
    secrets = parse_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(
        secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(min_size=24, max_size=64), st.text(min_size=1), st.text())
def test_sign_makes_the_same_signature_as_the_receivers_library(
    key: bytes, webhook_id: str, body: str
) -> None:
    theirs = Webhook(written(key)).sign(webhook_id, datetime.fromtimestamp(NOW, UTC), body)
    assert sign(parse_secrets(written(key)), webhook_id, NOW, body.encode()) == theirs


def test_sign_makes_one_signature_per_secret_and_verify_accepts_either() -> None:
    signatures = sign((OLD, NEW), "id", NOW, b"body")
    assert signatures == f"{sign((OLD,), 'id', NOW, b'body')} {sign((NEW,), 'id', NOW, b'body')}"
    assert verify((OLD,), "id", NOW, b"body", signatures, now=NOW)
    assert verify((NEW,), "id", NOW, b"body", signatures, now=NOW)
    assert verify((b"x" * 24, NEW), "id", NOW, b"body", signatures, now=NOW)


@pytest.mark.parametrize(
    ("webhook_id", "timestamp", "body", "signatures"),
    [
        ("other", NOW, b"body", sign((OLD,), "id", NOW, b"body")),
        ("id", NOW + 1, b"body", sign((OLD,), "id", NOW, b"body")),
        ("id", NOW, b"bodY", sign((OLD,), "id", NOW, b"body")),
        ("id", NOW, b"body", sign((NEW,), "id", NOW, b"body")),
        ("id", NOW, b"body", sign((OLD,), "id", NOW, b"body").removeprefix("v1,")),
        ("id", NOW, b"body", sign((OLD,), "id", NOW, b"body").replace("v1,", "v2,")),
        ("id", NOW, b"body", sign((OLD,), "id", NOW, b"body")[:-1]),
        ("id", NOW, b"body", ""),
        ("id", NOW, b"body", "v1,"),
        ("id", NOW, b"body", "v1,\u00e9\ud800"),
        ("\ud800", NOW, b"body", "v1,a"),
    ],
)
def test_verify_refuses_any_other_content(
    webhook_id: str, timestamp: int, body: bytes, signatures: str
) -> None:
    assert not verify((OLD,), webhook_id, timestamp, body, signatures, now=NOW)


@pytest.mark.parametrize(
    ("now", "verifies"),
    [(NOW - 301, False), (NOW - 300, True), (NOW, True), (NOW + 300, True), (NOW + 301, False)],
)
def test_verify_accepts_a_timestamp_up_to_five_minutes_away(now: int, verifies: bool) -> None:
    signature = sign((OLD,), "id", NOW, b"")
    assert verify((OLD,), "id", NOW, b"", signature, now=now) is verifies
    assert verify((OLD,), "id", NOW, b"", signature, now=now, tolerance=1_000)


def test_parse_secrets_accepts_any_spaces_and_missing_padding() -> None:
    text = f"  {written(OLD)}\n{written(NEW).rstrip('=')} "
    assert parse_secrets(text) == (OLD, NEW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        base64.b64encode(OLD).decode(),
        "whsec_",
        written(b"k" * 23),
        written(b"k" * 65),
        "whsec_" + "-" * 40,
        "whsec_" + "_" * 33,
        "whsec_\u00e9" + "A" * 40,
        "whsec_" + "A" * 33,
        f"{written(OLD)} secret",
        f"{written(OLD)},{written(NEW)}",
        "WHSEC_" + base64.b64encode(OLD).decode(),
    ],
)
def test_parse_secrets_refuses_an_invalid_secret_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match="a signing secret") as caught:
        parse_secrets(text)
    assert (
        str(caught.value)
        == "a signing secret must be whsec_ and the base64 of 24 to 64 random bytes"
    )
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
