"""field_errors.py: what a 422 says about each kind of wrong value."""

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from scheduler_api.domain.destination import NewLimits
from scheduler_api.domain.field_errors import field_error
from scheduler_api.domain.message import NewMessage

HOOK = b'"webhookUrl": "http://example.com"'


def refused(body: bytes, form: Any) -> tuple[str, str]:
    """The path and the message for a body that msgspec refuses."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=form)
    error = field_error(str(caught.value), form, ())
    return error.path, error.message


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        (b"[]", "/", "must be an object, not an array"),
        (b"null", "/", "must be an object, not null"),
        (b"{}", "/webhookUrl", "this field is required"),
        (b'{"webhookUrl": 1}', "/webhookUrl", "must be a string, not a number"),
        (b'{%b, "id": true}' % HOOK, "/id", "must be a string, not a boolean"),
        (b'{%b, "delay": []}' % HOOK, "/delay", "must be a number or a string, not an array"),
        (b'{%b, "headers": "a"}' % HOOK, "/headers", "must be an object, not a string"),
        (
            b'{%b, "headers": {"a": 1}}' % HOOK,
            "/headers",
            "each value must be a string, not a number",
        ),
        (
            b'{%b, "method": "FETCH"}' % HOOK,
            "/method",
            "'FETCH' is not allowed; use one of POST, GET, PUT, PATCH, DELETE",
        ),
    ],
)
def test_field_error_says_what_is_wrong_with_a_message(
    body: bytes, path: str, message: str
) -> None:
    assert refused(body, NewMessage) == (path, message)


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        (b'{"concurrency": 0}', "/concurrency", "must be at least 1"),
        (b'{"concurrency": 1.5}', "/concurrency", "must be an integer, not a decimal number"),
        (b'{"paused": "yes"}', "/paused", "must be true or false, not a string"),
    ],
)
def test_field_error_says_what_is_wrong_with_limits(body: bytes, path: str, message: str) -> None:
    assert refused(body, NewLimits) == (path, message)


@pytest.mark.parametrize(
    ("body", "form", "message"),
    [
        (b"[]", Annotated[list[int], Meta(min_length=1)], "must have at least 1 item"),
        (b"[1, 2]", Annotated[list[int], Meta(max_length=1)], "must have at most 1 item"),
        (b'"abc"', Annotated[str, Meta(max_length=2)], "must have at most 2 characters"),
        (b"1e400", int, "number out of range"),
    ],
)
def test_field_error_says_which_bound_a_value_breaks(body: bytes, form: Any, message: str) -> None:
    assert refused(body, form) == ("/", message)
