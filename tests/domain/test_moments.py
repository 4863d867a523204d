"""Instants, durations and zones: what is read, what is refused, how it is written."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeVar
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.moments import (
    format_duration,
    format_instant,
    instant_of,
    parse_duration,
    parse_instant,
    zone,
)

T = TypeVar("T")

# Text that comes near to what is accepted, so that the patterns are tried, not only missed.
NEAR_INSTANTS = st.text("0123456789-+:.,TtZz W\u0660\x00[!=]UTC/", max_size=40)
LOCAL_TIMES_FROM = datetime(1970, 1, 3, tzinfo=UTC).replace(tzinfo=None)
LOCAL_TIMES = st.datetimes(
    LOCAL_TIMES_FROM,
    datetime(9999, 12, 30, tzinfo=UTC).replace(tzinfo=None),
)
NEAR_DURATIONS = st.text("0123456789.,wdhmsPTWDHMS -", max_size=20) | st.lists(
    st.sampled_from(["1", "20", " ", ",", "and", "hour", "Minutes", "min", "s", "month"])
).map("".join)


def value_or_refusal(read: Callable[[], T]) -> T | bytes:
    try:
        return read()
    except ValueError as error:
        # ASCII, so that no answer fails for a lone surrogate that it repeats.
        return str(error).encode("ascii")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-04-15T02:41:45.000Z", "2026-04-15T02:41:45+00:00"),
        ("2026-04-15T02:41:45Z", "2026-04-15T02:41:45+00:00"),
        ("2026-04-15T02:41:45z", "2026-04-15T02:41:45+00:00"),
        ("2026-04-15t02:41:45Z", "2026-04-15T02:41:45+00:00"),
        ("2026-04-15 02:41:45Z", "2026-04-15T02:41:45+00:00"),
        ("2026-04-15T02:41:45+00:00", "2026-04-15T02:41:45+00:00"),
        ("2026-04-15T02:41:45-00:00", "2026-04-15T02:41:45+00:00"),
        ("2026-04-15T02:41:45-03:00", "2026-04-15T05:41:45+00:00"),
        ("2026-04-15T02:41:45-0300", "2026-04-15T05:41:45+00:00"),
        ("2026-04-15T02:41:45-03", "2026-04-15T05:41:45+00:00"),
        ("2026-04-15T02:41+05:30", "2026-04-14T21:11:00+00:00"),
        ("2026-04-15T02:41:45.1Z", "2026-04-15T02:41:45.100+00:00"),
        ("2026-04-15T02:41:45,12Z", "2026-04-15T02:41:45.120+00:00"),
        ("2026-04-15T02:41:45.123999999999Z", "2026-04-15T02:41:45.123+00:00"),
        ("2026-12-25T10:30", "2026-12-25T13:30:00+00:00"),
        ("2026-12-25T10:30:15.5", "2026-12-25T13:30:15.500+00:00"),
        ("2026-12-25", "2026-12-25T03:00:00+00:00"),
        ("2028-02-29T00:00Z", "2028-02-29T00:00:00+00:00"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00+00:00"),
        ("1969-12-31T23:00:00-03:00", "1970-01-01T02:00:00+00:00"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999+00:00"),
    ],
)
def test_an_instant_is_read_in_every_form_that_automation_tools_send(
    text: str, expected: str
) -> None:
    at = parse_instant(text, "America/Sao_Paulo")
    assert at.tzinfo is UTC
    assert format_instant(at) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "this is not an ISO 8601 instant"),
        ("2026-04-15T02:41:45.000Z" + "0" * 105, "this is not an ISO 8601 instant"),
        ("tomorrow", "'tomorrow' is not an ISO 8601 instant"),
        ("1776220905", "not an ISO 8601 instant"),
        ("20260415", "not an ISO 8601 instant"),
        ("20260415T02", "not an ISO 8601 instant"),
        ("20260415T0241.5Z", "not an ISO 8601 instant"),
        ("20260415T02:41:45Z", "not an ISO 8601 instant"),
        ("2026-04-15T024145Z", "not an ISO 8601 instant"),
        ("20260415 024145Z", "not an ISO 8601 instant"),
        ("20260230T024145Z", "not in the calendar: day"),
        ("2026-04-15 +0100", "not an ISO 8601 instant"),
        ("2026-04-15T02:41:45  +0100", "not an ISO 8601 instant"),
        ("2026-04-15T02:41:45+01:00[]", "not an ISO 8601 instant"),
        ("2026-04-15T02:41:45+02:00[Europe/Brussels][Europe/Paris]", "not an ISO 8601 instant"),
        ("2026-04-15T02:41:45+02:00[Europe/Brusels]", "did you mean Europe/Brussels?"),
        ("2026-04-15T02:41:45Z[Mars/Olympus]", "not an IANA time zone"),
        ("2026-04-15T02:41:45+01:00[+25:00]", "not an IANA time zone"),
        ("2026-04-15T02:41:45+02:00[Europe/Brussels][!u-ca=hebrew]", "'\\[!u-ca=hebrew\\]' in"),
        ("2026-04-15T02:41:45+02:00[Europe/Brussels][!_x=1]", "is not supported: remove it"),
        ("9999-12-31T23:59:59+00:00[Asia/Tokyo]", "outside the years 1970 to 9999"),
        ("2026-W16-3", "not an ISO 8601 instant"),
        ("2026-105", "not an ISO 8601 instant"),
        ("2026-04", "not an ISO 8601 instant"),
        ("2026-04-15Z", "not an ISO 8601 instant"),
        ("2026-04-15T02Z", "not an ISO 8601 instant"),
        ("2026-04-15T02:41.5Z", "not an ISO 8601 instant"),
        ("2026-04-15T02:41:45.Z", "not an ISO 8601 instant"),
        ("2026-04-15T02:41:45Z\n", "not an ISO 8601 instant"),
        (" 2026-04-15T02:41:45Z", "not an ISO 8601 instant"),
        ("2026-04-15T02:41:45 00:00", "not an ISO 8601 instant"),
        ("\u0662026-04-15", "not an ISO 8601 instant"),
        ("\ud800", "not an ISO 8601 instant"),
        ("2046-02-30", "not in the calendar: day"),
        ("2026-13-01", "not in the calendar: month"),
        ("0000-01-01T00:00Z", "not in the calendar: year"),
        ("2026-04-15T25:00Z", "not in the calendar: hour"),
        ("2026-04-15T10:60Z", "not in the calendar: minute"),
        ("2016-12-31T23:59:60Z", "not in the calendar: second"),
        ("2026-04-15T24:00Z", "hours go from 00 to 23"),
        ("2026-04-15T02:41+24:00", "must be between -23:59 and \\+23:59"),
        ("2026-04-15T02:41+03:60", "must be between -23:59 and \\+23:59"),
        ("1969-12-31T23:59:59.999Z", "outside the years 1970 to 9999"),
        ("1970-01-01T00:00+00:01", "outside the years 1970 to 9999"),
        ("0001-01-01T00:00+01:00", "outside the years 1970 to 9999"),
        ("9999-12-31T23:59-03:00", "outside the years 1970 to 9999"),
        ("9999-12-31T23:59", "outside the years 1970 to 9999"),
        ("0001-01-01T00:00", "outside the years 1970 to 9999"),
    ],
)
def test_an_instant_is_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_instant(text, "America/Sao_Paulo")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20461106T070000Z", "2046-11-06T07:00:00+00:00"),
        ("20461106t070000z", "2046-11-06T07:00:00+00:00"),
        ("20461106T0700Z", "2046-11-06T07:00:00+00:00"),
        ("20461106T070000", "2046-11-06T10:00:00+00:00"),
        ("20461106T070000.25+0100", "2046-11-06T06:00:00.250+00:00"),
        ("20461106T070000-03", "2046-11-06T10:00:00+00:00"),
        ("20461106T070000 -0300", "2046-11-06T10:00:00+00:00"),
        ("2046-11-06 07:00:00 +0100", "2046-11-06T06:00:00+00:00"),
        ("2046-11-06T07:00:00.5 +01:00", "2046-11-06T06:00:00.500+00:00"),
        ("2046-11-06 07:00:00 Z", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T08:00:00+01:00[Europe/Brussels]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T08:00:00.0009+01:00[Europe/Brussels]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T08:00:00+01:00[!Europe/Brussels]", "2046-11-06T07:00:00+00:00"),
        ("20461106T080000+0100[Europe/Brussels]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06 08:00 +0100[Europe/Brussels]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T08:00+01:00[+01:00]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T08:00[-01:30]", "2046-11-06T09:30:00+00:00"),
        ("2046-11-06T07:00Z[Europe/Brussels]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T07:00-00:00[Europe/Brussels]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T07:00+00:00[Etc/UTC]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T08:00:00+01:00[Europe/Brussels][u-ca=hebrew]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T08:00+01:00[Europe/Brussels][!u-ca=gregory]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T08:00:00+01:00[u-ca=iso8601][_a=b]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06T08:00:00[Europe/Brussels]", "2046-11-06T07:00:00+00:00"),
        ("2046-11-06[Europe/Brussels]", "2046-11-05T23:00:00+00:00"),
        ("1971-01-01T00:00-00:45[Africa/Monrovia]", "1971-01-01T00:45:00+00:00"),
        ("9999-12-31T23:59:59Z[Asia/Tokyo]", "9999-12-31T23:59:59+00:00"),
    ],
)
def test_parse_instant_reads_less_usual_spellings(text: str, expected: str) -> None:
    at = parse_instant(text, "America/Sao_Paulo")
    assert at.tzinfo is UTC
    assert format_instant(at) == expected


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("2046-11-06T08:00:00+02:00[Europe/Brussels]", "+01:00"),
        ("2046-11-06T08:00:00+00:00[Europe/Brussels]", "+01:00"),
        ("2046-07-06T08:00:00+01:00[Europe/Brussels]", "+02:00"),
        ("2027-03-28T02:30:00+01:00[Europe/Brussels]", "+02:00"),  # no clock shows it
        ("2046-11-06T08:00:00+01:00[+02:00]", "+02:00"),
        ("20461106T080000 +0200[Europe/Brussels]", "+01:00"),
    ],
)
def test_parse_instant_refuses_an_offset_that_contradicts_the_zone(text: str, right: str) -> None:
    with pytest.raises(ValueError, match=f"is wrong for .*, which has \\{right} at that time"):
        parse_instant(text, "UTC")


@pytest.mark.parametrize("offset", ["+02:00", "+01:00"])
def test_parse_instant_takes_either_offset_of_a_repeated_hour(offset: str) -> None:
    text = f"2046-10-28T02:30:00{offset}"
    assert parse_instant(f"{text}[Europe/Brussels]", "UTC") == parse_instant(text, "UTC")


@given(
    st.datetimes(LOCAL_TIMES_FROM, datetime(2060, 1, 1, tzinfo=UTC).replace(tzinfo=None)),
    st.sampled_from(["America/New_York", "Europe/London", "Asia/Kathmandu", "Africa/Monrovia"]),
    st.sampled_from([-60, -1, 0, 1, 60]),
)
def test_parse_instant_takes_an_annotated_zone_only_with_its_offset(
    utc: datetime, name: str, wrong_by: int
) -> None:
    at = utc.replace(tzinfo=UTC, microsecond=0)
    offset = at.astimezone(zone(name)).utcoffset()
    assert offset is not None
    minutes = offset // timedelta(minutes=1) + wrong_by
    text = f"{at.astimezone(timezone(timedelta(minutes=minutes))).isoformat()}[{name}]"
    read = value_or_refusal(lambda: parse_instant(text, "UTC"))
    # Monrovia was 44 minutes and 30 seconds behind UTC until 1972: both minutes are right.
    assert read == at or (wrong_by and isinstance(read, bytes))
    if wrong_by in (-60, 60):
        assert isinstance(read, bytes)


def test_a_local_time_in_an_unknown_zone_is_refused_and_one_with_an_offset_needs_no_zone() -> None:
    with pytest.raises(ValueError, match="not an IANA time zone"):
        parse_instant("2026-04-15T02:41", "Mars/Olympus")
    assert parse_instant("2026-04-15T02:41Z", "Mars/Olympus").hour == 2


@pytest.mark.parametrize(
    ("local", "name", "expected"),
    [
        ("2027-03-14T01:59:59.999", "America/New_York", "2027-03-14T06:59:59.999+00:00"),
        ("2027-03-14T02:00", "America/New_York", "2027-03-14T07:00:00+00:00"),
        ("2027-03-14T02:30:00.250", "America/New_York", "2027-03-14T07:00:00+00:00"),
        ("2027-03-14T02:59:59.999", "America/New_York", "2027-03-14T07:00:00+00:00"),
        ("2027-03-14T03:00", "America/New_York", "2027-03-14T07:00:00+00:00"),
        ("2018-11-04T00:00", "America/Sao_Paulo", "2018-11-04T03:00:00+00:00"),
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00+00:00"),
        ("2026-10-04T02:15", "Australia/Lord_Howe", "2026-10-03T15:30:00+00:00"),
        ("2011-12-30T12:00", "Pacific/Apia", "2011-12-30T10:00:00+00:00"),
    ],
)
def test_a_local_time_in_a_gap_is_the_first_instant_after_it(
    local: str, name: str, expected: str
) -> None:
    assert format_instant(parse_instant(local, name)) == expected


@pytest.mark.parametrize(
    ("local", "name", "expected"),
    [
        ("2027-11-07T01:30", "America/New_York", "2027-11-07T05:30:00+00:00"),
        ("2027-11-07T02:00", "America/New_York", "2027-11-07T07:00:00+00:00"),
        ("2018-02-17T23:30", "America/Sao_Paulo", "2018-02-18T01:30:00+00:00"),
    ],
)
def test_a_local_time_in_a_fold_is_the_earlier_one(local: str, name: str, expected: str) -> None:
    assert format_instant(parse_instant(local, name)) == expected


@given(
    LOCAL_TIMES.filter(lambda local: local.year < 2060),
    st.sampled_from(["America/New_York", "Europe/London", "Asia/Kathmandu", "Africa/Monrovia"]),
)
def test_the_instant_of_a_local_time_is_the_first_at_which_clocks_show_it_or_more(
    local: datetime, name: str
) -> None:
    where = zone(name)
    at = instant_of(local, where)
    assert at.astimezone(where).replace(tzinfo=None) >= local
    before = (at - timedelta(milliseconds=1)).astimezone(where).replace(tzinfo=None)
    assert before < local


@given(st.text() | NEAR_INSTANTS)
def test_any_text_is_an_instant_in_range_or_a_value_error(text: str) -> None:
    at = value_or_refusal(lambda: parse_instant(text, "America/New_York"))
    if isinstance(at, datetime):
        assert 1970 <= at.year <= 9999
        assert at.microsecond % 1000 == 0


@given(
    LOCAL_TIMES,
    st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_an_instant_that_python_writes_is_read_back_to_the_millisecond(
    local: datetime, offset: timezone
) -> None:
    at = local.replace(tzinfo=offset)
    read = parse_instant(at.isoformat(), "UTC")
    assert timedelta() <= at - read < timedelta(milliseconds=1)
    assert parse_instant(format_instant(read), "UTC") == read


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 4, 15, 2, 41, 45, tzinfo=UTC), "2026-04-15T02:41:45+00:00"),
        (datetime(2026, 4, 15, 2, 41, 45, 123_456, UTC), "2026-04-15T02:41:45.123+00:00"),
        (datetime(2026, 4, 15, 2, 41, 45, 999, UTC), "2026-04-15T02:41:45+00:00"),
        (
            datetime(2026, 4, 14, 23, 41, tzinfo=timezone(timedelta(hours=-3))),
            "2026-04-15T02:41:00+00:00",
        ),
    ],
)
def test_an_instant_is_written_in_utc_with_milliseconds_only_when_there_are_some(
    at: datetime, expected: str
) -> None:
    assert format_instant(at) == expected


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
def test_a_duration_is_read(value: str | float, seconds: float) -> None:
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
def test_what_is_no_duration_is_refused_with_examples(value: str | bool) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 90s, 10m"):
        parse_duration(value)


@pytest.mark.parametrize(
    "value",
    [
        *(-1, -0.001, float("nan"), float("inf"), float("-inf"), 1e300, 10**400),
        *(8_000 * 365 * 86_400 + 1, "9999999999w", "9" * 64, f"P{'9' * 60}D"),
    ],
)
def test_a_duration_out_of_range_is_refused(value: str | float) -> None:
    with pytest.raises(ValueError, match="from 0 seconds to 8,000 years"):
        parse_duration(value)


@given(st.text() | NEAR_DURATIONS | st.integers() | st.floats())
def test_any_value_is_a_duration_in_range_or_a_value_error(value: str | float) -> None:
    span = value_or_refusal(lambda: parse_duration(value))
    if isinstance(span, timedelta):
        assert timedelta() <= span <= timedelta(days=8_000 * 365)
        assert span.microseconds % 1000 == 0


@given(st.integers(0, 2_920_000 * 86_400))
def test_a_duration_that_we_write_is_read_back(seconds: int) -> None:
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
def test_a_duration_is_written_with_the_units_it_has_and_always_seconds(
    span: timedelta, expected: str
) -> None:
    assert format_duration(span) == expected


def test_every_name_of_the_database_is_a_zone() -> None:
    assert all(zone(name).key == name for name in available_timezones())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("america/sao_paulo", "America/Sao_Paulo"),
        ("America/Sao Paulo", "America/Sao_Paulo"),
        ("Sao_Paulo", "America/Sao_Paulo"),
        ("Amerika/New_York", "America/New_York"),
        ("utc", "UTC"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {nearest}\\?"):
        zone(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "\x00",
        "../etc/passwd",
        "/etc/passwd",
        "America/",
        pytest.param("a" * 100_000, id="long"),
        "\ud800",
        "\u0130",
        ".",
    ],
)
def test_an_odd_zone_name_is_refused_as_any_other(name: str) -> None:
    with pytest.raises(ValueError, match="is not an IANA time zone"):
        zone(name)


@given(st.text())
def test_any_text_is_a_zone_or_a_value_error(name: str) -> None:
    assert value_or_refusal(lambda: zone(name))
