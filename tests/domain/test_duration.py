"""Durations: which texts are read, which are refused, and how durations are written."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.duration import format_duration, milliseconds, parse_duration
from tests.support.values import value_or_error

# Text close to what is accepted, so that the patterns match in part.
NEAR_DURATIONS = st.text("0123456789.,wdhmsPTWDHMS -", max_size=20) | st.lists(
    st.sampled_from(["1", "20", " ", ",", "and", "hour", "Minutes", "min", "s", "month"])
).map("".join)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5_400),
        ("1h 30m", 5_400),
        ("2d", 172_800),
        ("500ms", 0.5),
        ("1w", 604_800),
        ("1.5h", 5_400),
        ("1,5h", 5_400),
        ("1 h", 3_600),
        ("1w 2d 3h 4m 5s 6ms", 788_645.006),
        ("0s", 0),
        ("PT10M", 600),
        ("5 minutes", 300),
        ("1 minute", 60),
        ("10min", 600),
        ("10 Mins", 600),
        ("1 hour 30 minutes", 5_400),
        ("1 hour and 30 minutes", 5_400),
        ("1 Hour, 30 Minutes", 5_400),
        ("1 day, 2 hours, and 3 seconds", 93_603),
        ("1hr30min", 5_400),
        ("1.5 hrs", 5_400),
        ("1,5 hours", 5_400),
        ("90 SECONDS", 90),
        ("90 sec", 90),
        ("2 days", 172_800),
        ("1 week", 604_800),
        ("2 wks 1 d", 1_296_000),
        ("500 milliseconds", 0.5),
        ("500 millis", 0.5),
        ("P1DT2H", 93_600),
        ("P1W", 604_800),
        ("PT1.5S", 1.5),
        ("PT0,5S", 0.5),
        ("90", 90),
        ("1.5", 1.5),
        (90, 90),
        (0, 0),
        (-0.0, 0),
        (0.29, 0.29),
        (1e-7, 0),
        (8_000 * 365 * 86_400, 8_000 * 365 * 86_400),
    ],
)
def test_parse_duration_reads_letters_words_iso_8601_and_seconds(
    value: str | float, seconds: float
) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "s",
        "-5s",
        "+5s",
        "1m1m",
        "30m1h",
        "1y",
        "1mo",
        "1M",
        "P1M",
        "P1Y",
        "P",
        "PT",
        "P1H",
        "PT1D",
        "1e3",
        "nan",
        "inf",
        "1 month",
        "1 mo",
        "1 year",
        "1 H",
        "1 M",
        "minutes",
        "five minutes",
        "5  minutes",
        "-5 minutes",
        "1 minute 1 minute",
        "30 minutes 1 hour",
        "1 minutely",
        "1 hour and",
        "1 hour and minutes",
        "\u0661 minutes",
        "\u0661s",
        "1.h",
        ".5h",
        "9" * 65,
        True,
        False,
        "\ud800",
        "1h\n",
        "--",
    ],
)
def test_parse_duration_refuses_other_values_and_gives_examples(value: str | bool) -> None:
    with pytest.raises(ValueError, match="is not a duration; examples: 90s, 10m"):
        parse_duration(value)


@pytest.mark.parametrize(
    "value",
    [
        *(-1, -0.001, float("nan"), float("inf"), float("-inf"), 1e300, 10**400),
        *(8_000 * 365 * 86_400 + 1, "9999999999w", "9" * 64, f"P{'9' * 60}D"),
    ],
)
def test_parse_duration_refuses_a_value_out_of_range(value: str | float) -> None:
    with pytest.raises(ValueError, match="from 0 seconds to 8,000 years"):
        parse_duration(value)


@given(st.text() | NEAR_DURATIONS | st.integers() | st.floats())
def test_parse_duration_of_any_value_is_in_range_or_a_value_error(value: str | float) -> None:
    span = value_or_error(lambda: parse_duration(value))
    if isinstance(span, timedelta):
        assert timedelta() <= span <= timedelta(days=8_000 * 365)
        assert span.microseconds % 1000 == 0


@given(st.integers(0, 2_920_000 * 86_400))
def test_parse_duration_reads_what_format_duration_writes(seconds: int) -> None:
    written = format_duration(timedelta(seconds=seconds))
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (timedelta(), "0s"),
        (timedelta(milliseconds=999), "0s"),
        (timedelta(seconds=59), "59s"),
        (timedelta(minutes=1), "1m 0s"),
        (timedelta(hours=2, minutes=34, seconds=12), "2h 34m 12s"),
        (timedelta(days=1, hours=2, minutes=3, seconds=4), "1d 2h 3m 4s"),
        (timedelta(days=400, seconds=5), "400d 5s"),
    ],
)
def test_format_duration_omits_units_that_are_zero_except_seconds(
    span: timedelta, expected: str
) -> None:
    assert format_duration(span) == expected


def test_milliseconds_drops_the_fraction() -> None:
    assert milliseconds(timedelta(seconds=1.5, microseconds=999)) == 1_500
