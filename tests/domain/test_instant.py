"""Instants: which texts are read, which are refused, and how instants are written."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.instant import format_instant, instant_of, parse_instant
from scheduler_api.domain.time_zone import time_zone
from tests.support.values import value_or_error

# Text close to what is accepted, so that the patterns match in part.
NEAR_INSTANTS = st.text("0123456789-+:.,TtZz W\u0660\x00[!=]UTC/", max_size=40)
LOCAL_TIMES_FROM = datetime(1970, 1, 3, tzinfo=UTC).replace(tzinfo=None)
LOCAL_TIMES = st.datetimes(
    LOCAL_TIMES_FROM,
    datetime(9999, 12, 30, tzinfo=UTC).replace(tzinfo=None),
)


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
def test_parse_instant_reads_the_forms_that_automation_tools_send(text: str, expected: str) -> None:
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
def test_parse_instant_refuses_other_text_and_says_what_is_wrong(text: str, said: str) -> None:
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
def test_parse_instant_reads_variants_of_iso_8601(text: str, expected: str) -> None:
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
def test_parse_instant_accepts_both_offsets_of_a_repeated_hour(offset: str) -> None:
    text = f"2046-10-28T02:30:00{offset}"
    assert parse_instant(f"{text}[Europe/Brussels]", "UTC") == parse_instant(text, "UTC")


@given(
    st.datetimes(LOCAL_TIMES_FROM, datetime(2060, 1, 1, tzinfo=UTC).replace(tzinfo=None)),
    st.sampled_from(["America/New_York", "Europe/London", "Asia/Kathmandu", "Africa/Monrovia"]),
    st.sampled_from([-60, -1, 0, 1, 60]),
)
def test_parse_instant_accepts_an_annotated_zone_only_with_its_offset(
    utc: datetime, name: str, wrong_by: int
) -> None:
    at = utc.replace(tzinfo=UTC, microsecond=0)
    offset = at.astimezone(time_zone(name)).utcoffset()
    assert offset is not None
    minutes = offset // timedelta(minutes=1) + wrong_by
    text = f"{at.astimezone(timezone(timedelta(minutes=minutes))).isoformat()}[{name}]"
    read = value_or_error(lambda: parse_instant(text, "UTC"))
    # Monrovia was 44 minutes and 30 seconds behind UTC until 1972: both minutes are right.
    assert read == at or (wrong_by and isinstance(read, bytes))
    if wrong_by in (-60, 60):
        assert isinstance(read, bytes)


def test_parse_instant_needs_a_known_zone_only_for_local_time() -> None:
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
def test_parse_instant_moves_a_skipped_local_time_to_the_end_of_the_gap(
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
def test_parse_instant_reads_a_repeated_local_time_as_the_first_one(
    local: str, name: str, expected: str
) -> None:
    assert format_instant(parse_instant(local, name)) == expected


@given(
    LOCAL_TIMES.filter(lambda local: local.year < 2060),
    st.sampled_from(["America/New_York", "Europe/London", "Asia/Kathmandu", "Africa/Monrovia"]),
)
def test_instant_of_is_the_first_instant_at_which_clocks_show_the_time_or_later(
    local: datetime, name: str
) -> None:
    where = time_zone(name)
    at = instant_of(local, where)
    assert at.astimezone(where).replace(tzinfo=None) >= local
    before = (at - timedelta(milliseconds=1)).astimezone(where).replace(tzinfo=None)
    assert before < local


@given(st.text() | NEAR_INSTANTS)
def test_parse_instant_of_any_text_is_in_range_or_a_value_error(text: str) -> None:
    at = value_or_error(lambda: parse_instant(text, "America/New_York"))
    if isinstance(at, datetime):
        assert 1970 <= at.year <= 9999
        assert at.microsecond % 1000 == 0


@given(
    LOCAL_TIMES,
    st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_parse_instant_reads_what_isoformat_writes_to_the_millisecond(
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
def test_format_instant_writes_utc_and_milliseconds_only_when_not_zero(
    at: datetime, expected: str
) -> None:
    assert format_instant(at) == expected
