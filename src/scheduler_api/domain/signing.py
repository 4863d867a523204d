"""Webhook signatures: made and verified as Standard Webhooks defines them."""

import base64
import hmac
from typing import Final

_INVALID: Final = "a signing secret must be whsec_ and the base64 of 24 to 64 random bytes"


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The keys in `text`, separated by spaces. Raises: ValueError, which never shows them."""
    secrets = tuple(map(_key, text.split()))
    if not secrets:
        raise ValueError(_INVALID)
    return secrets


def sign(secrets: tuple[bytes, ...], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature per secret; `timestamp`: epoch seconds."""
    # A receiver passes a header's value, which may not be valid Unicode: a mismatch, not an error.
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
    tolerance: int = 300,  # seconds between `timestamp` and `now`
) -> bool:
    """Whether a secret made one of `signatures`, and `timestamp` is near `now` (epoch seconds)."""
    expected = sign(secrets, webhook_id, timestamp, body).encode().split()
    given = signatures.encode(errors="replace").split()
    # A list, not a generator: the time it takes must not show which signature was close.
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in given]
    return any(matches) and abs(now - timestamp) <= tolerance


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    try:
        # Without `validate`, b64decode drops unknown characters: another key instead of an error.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if encoded == secret or not 24 <= len(key) <= 64:
        raise ValueError(_INVALID)
    return key


def _signature(secret: bytes, content: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(secret, content, "sha256")).decode()
