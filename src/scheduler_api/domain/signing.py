"""Signatures by Standard Webhooks: made by the sender, checked by the receiver command."""

import base64
import hmac

_WRONG = "a signing secret is whsec_ and the base64 of 24 to 64 random bytes"


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The keys in `text`, one or several separated by spaces; ValueError never repeats them."""
    secrets = tuple(map(_key, text.split()))
    if not secrets:
        raise ValueError(_WRONG)
    return secrets


def sign(secrets: tuple[bytes, ...], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature a secret; `timestamp` in epoch seconds."""
    # A receiver signs what a header held, which may be no Unicode: that is a mismatch, no error.
    content = f"{webhook_id}.{timestamp}.".encode(errors="surrogatepass") + body
    return " ".join([_signature(secret, content) for secret in secrets])


def verify(
    secrets: tuple[bytes, ...],
    webhook_id: str,
    timestamp: int,
    body: bytes,
    signatures: str,
    *,
    now: int,
    tolerance: int = 300,
) -> bool:
    """Whether one of `secrets` made one of `signatures`, at most `tolerance` seconds off `now`."""
    expected = sign(secrets, webhook_id, timestamp, body).encode().split()
    given = signatures.encode(errors="replace").split()
    # A list, not a generator: how long it takes must not tell which signature was near.
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in given]
    return any(matches) and abs(now - timestamp) <= tolerance


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    try:
        # Without `validate`, characters outside the alphabet are dropped: another key, no error.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if encoded == secret or not 24 <= len(key) <= 64:
        raise ValueError(_WRONG)
    return key


def _signature(secret: bytes, content: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(secret, content, "sha256")).decode()
