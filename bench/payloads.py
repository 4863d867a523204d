"""Payloads of about 300 bytes, and the requests that create messages with them."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

TEXT = "Reminder: your appointment is tomorrow at 10:30. Answer 1 to confirm it, 2 to move it."


def payload(n: int) -> bytes:
    """The body that the receiver gets; `n` stands first, so that it is parsed quickly."""
    return msgspec.json.encode(
        {
            "n": n,
            "event": "reminder.due",
            "customer": {"id": f"cus_{n:010d}", "name": "Maria da Silva"},
            "channel": "whatsapp",
            "text": TEXT + "." * 60,
            "tags": ["a", "b"],
        }
    )


def message(n: int, prefix: str, hook: str, due_ms: int) -> bytes:
    """The body of POST /messages."""
    due = datetime.fromtimestamp(due_ms / 1000, UTC).isoformat(timespec="milliseconds")
    asked = {
        "id": f"{prefix}-{n}",
        "scheduleTo": due.replace("+00:00", "Z"),
        "webhookUrl": hook,
        "payload": msgspec.Raw(payload(n)),
    }
    return msgspec.json.encode(asked)


def batch(messages: Sequence[bytes]) -> bytes:
    """The body of POST /messages/batch."""
    return b'{"messages":[%b]}' % b",".join(messages)


def request(body: bytes, host: str, token: str, path: str = "/messages") -> bytes:
    """A whole POST as bytes."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
