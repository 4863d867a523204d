"""What a destination may get: rates as people write them."""

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
def test_a_rate_is_so_many_in_a_unit_of_time(text: str, ms: float) -> None:
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
def test_what_is_no_rate_is_refused_with_examples(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        accept_limits(NewLimits(rate=text))
    [error] = refused.value.errors
    assert error == FieldError(
        "/rate", "a rate looks like 10/s, 300/m, 1000/h or 5000/d, at most 100000"
    )


@given(st.from_regex(RATE_SCHEMA["pattern"], fullmatch=True))
def test_what_the_document_calls_a_rate_is_one(text: str) -> None:
    assert 1 <= Rate.parse(text).count <= MAX_RATE


def test_limits_are_what_was_asked_for() -> None:
    asked = NewLimits(concurrency=8, rate="10/s", paused=True)
    assert accept_limits(asked) == Limits(8, Rate(10, "s"), paused=True)
    assert accept_limits(NewLimits()) == Limits(None, None, paused=False)
