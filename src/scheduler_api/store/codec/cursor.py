"""Cursors: positions in lists as opaque text. Any other text is refused."""

import base64
import binascii
import re
from typing import Final

from scheduler_api.domain.errors import FieldError, Invalid

_STEP: Final = re.compile(rb"([0-9]{1,4}):([0-9]{1,20}):(.{0,255})", re.DOTALL)


def pack_cursor(due_ms: int, message_id: bytes) -> str:
    """The cursor for the messages after this one."""
    return _packed_cursor(b"%d:%b" % (due_ms, message_id))


def unpack_cursor(cursor: str) -> tuple[int, bytes]:
    """Due ms and id of a message. Raises: Invalid."""
    due_ms, separator, message_id = _unpacked_cursor(cursor).partition(b":")
    try:
        if separator and message_id and len(due_ms) <= 15:
            return int(due_ms), message_id
    except ValueError:
        pass
    raise _no_cursor()


def pack_step(place: int, scan: int, name: bytes) -> str:
    """The cursor of a step through the list of destinations."""
    return _packed_cursor(b"%d:%d:%b" % (place, scan, name))


def unpack_step(cursor: str, last_place: int) -> tuple[int, int, bytes]:
    """Place, scan and name, as packed. Raises: Invalid."""
    found = _STEP.fullmatch(_unpacked_cursor(cursor))
    if found is None or int(found[1]) > last_place or int(found[2]) >= 1 << 64:
        raise _no_cursor()
    return int(found[1]), int(found[2]), found[3]


def _packed_cursor(position: bytes) -> str:
    return base64.urlsafe_b64encode(position).decode().rstrip("=")


def _unpacked_cursor(cursor: str) -> bytes:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _no_cursor() from None


def _no_cursor() -> Invalid:
    return Invalid([FieldError("?cursor", "use the value of nextCursor of the page before")])
