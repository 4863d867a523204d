"""Cursors: a position and back, and nothing else."""

import pytest

from scheduler_api.domain.errors import Invalid
from scheduler_api.store.codec.cursor import pack_cursor, unpack_cursor


@pytest.mark.parametrize("message_id", ["a", "é:é", "{0}", " x ", "😀" * 255])
def test_unpack_cursor_returns_the_packed_position(message_id: str) -> None:
    cursor = pack_cursor(253_402_300_799_999, message_id.encode())
    assert cursor.isascii()
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert unpack_cursor(cursor) == (253_402_300_799_999, message_id.encode())


@pytest.mark.parametrize(
    "cursor",
    [
        "é",
        "a",
        "!!!!",
        "abcd",
        pack_cursor(1, b""),
        pack_cursor(10**15, b"a"),
        "YQ",  # a
        "OmE",  # :a
        "eDph",  # x:a
        "MTI\n",
        "MTI+",
    ],
)
def test_unpack_cursor_refuses_what_pack_cursor_did_not_make(cursor: str) -> None:
    with pytest.raises(Invalid) as refused:
        unpack_cursor(cursor)
    assert refused.value.errors[0].path == "?cursor"
