"""Limits of a destination: rates as text, and the limits in a request."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.destination import MAX_RATE, Limits, NewLimits, Rate, accept_limits
from scheduler_api.domain.errors import FieldError, Invalid

RATE_SCHEMA = msgspec.json.schema_components([NewLimits])[1]["NewLimits"]["properties"]["rate"]


@pytest.mark.parametrize(
    ("text", "ms"),
    [("10/s", 100), ("300/m", 200), ("1000/h", 3_600), ("1/d", 86_400_000), ("100000/s", 0.01)],
)
def test_rate_parse_reads_a_number_of_messages_per_unit(text: str, ms: float) -> None:
    rate = Rate.parse(text)
    assert rate.interval_ms == ms
    assert str(rate) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "0/s",
        "-1/s",
        "1.5/s",
        "010/s",
        "10/w",
        "10 /s",
        "10/S",
        "100001/s",
        "٣/s",
        "10/s\n",
    ],
)
def test_accept_limits_refuses_an_invalid_rate_and_gives_examples(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        accept_limits(NewLimits(rate=text))
    [error] = refused.value.errors
    assert error == FieldError(
        "/rate", "a rate must be a number up to 100000 and a unit: 10/s, 300/m, 1000/h or 5000/d"
    )


@given(st.from_regex(RATE_SCHEMA["pattern"], fullmatch=True))
def test_rate_parse_accepts_every_rate_that_the_openapi_pattern_allows(text: str) -> None:
    assert 1 <= Rate.parse(text).count <= MAX_RATE


def test_accept_limits_returns_the_limits_of_the_request() -> None:
    asked = NewLimits(concurrency=8, rate="10/s", paused=True)
    assert accept_limits(asked) == Limits(8, Rate(10, "s"), paused=True)
    assert accept_limits(NewLimits()) == Limits(None, None, paused=False)
