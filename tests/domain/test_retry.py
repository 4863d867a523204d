"""The default policy: what follows each attempt."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.retry import (
    BACKOFF,
    MAX_ATTEMPTS,
    RETRY_AFTER_CEILING,
    Delivered,
    Failed,
    Retry,
    decide,
    parse_retry_after,
)

NOW = datetime(2026, 4, 15, 2, 41, 45, tzinfo=UTC)
STATUSES = st.none() | st.integers(100, 599)
JITTERS = st.floats(-1, 1)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
@pytest.mark.parametrize("number", [1, 8])
def test_decide_delivers_on_any_2xx_of_any_attempt(status: int, number: int) -> None:
    assert decide(number, status, None, 0.0) == Delivered()


@pytest.mark.parametrize("number", [1, 8])
def test_decide_fails_on_410_of_any_attempt(number: int) -> None:
    assert decide(number, 410, timedelta(1), 0.0) == Failed()


@pytest.mark.parametrize(
    "status", [None, 199, 300, 302, 400, 401, 404, 409, 411, 429, 500, 503, 599]
)
def test_decide_retries_everything_else_until_the_last_attempt(
    status: int | None,
) -> None:
    outcomes = [decide(number, status, None, 0.0) for number in range(1, 9)]
    assert outcomes == [*map(Retry, BACKOFF), Failed()]


def test_backoff_is_that_of_the_contract() -> None:
    assert [pause.total_seconds() for pause in BACKOFF] == [5, 30, 120, 600, 1_800, 7_200, 21_600]
    assert MAX_ATTEMPTS == 8


def test_decide_fails_after_an_attempt_past_the_last() -> None:
    assert decide(9, 500, None, 0.0) == Failed()


@pytest.mark.parametrize(("jitter", "seconds"), [(-1.0, 4), (-0.5, 4.5), (0.0, 5), (1.0, 6)])
def test_decide_moves_a_pause_by_at_most_a_fifth(jitter: float, seconds: float) -> None:
    assert decide(1, 500, None, jitter) == Retry(timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("status", "asked", "expected"),
    [
        (429, 60, 60),
        (503, 60, 60),
        (429, 1, 5),
        (503, 0, 5),
        (429, 86_400, 86_400),
        (429, 86_401, 86_400),
        (503, 9_999_999_999, 86_400),
        (500, 60, 5),
        (404, 60, 5),
        (301, 60, 5),
        (None, 60, 5),
    ],
)
def test_decide_takes_retry_after_of_429_and_503_as_a_floor_up_to_a_day(
    status: int | None, asked: int, expected: int
) -> None:
    outcome = decide(1, status, timedelta(seconds=asked), 0.0)
    assert outcome == Retry(timedelta(seconds=expected))


@given(st.integers(1, 20), STATUSES, st.none() | st.timedeltas(timedelta(0)), JITTERS)
def test_decide_never_waits_less_than_four_seconds_or_more_than_a_day(
    number: int, status: int | None, retry_after: timedelta | None, jitter: float
) -> None:
    outcome = decide(number, status, retry_after, jitter)
    if isinstance(outcome, Retry):
        assert number < MAX_ATTEMPTS
        assert timedelta(seconds=4) <= outcome.delay <= RETRY_AFTER_CEILING


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120\t", 120),
        ("9999999999", 9_999_999_999),
        ("Wed, 15 Apr 2026 02:42:45 GMT", 60),
        ("Wednesday, 15-Apr-26 02:42:45 GMT", 60),
        ("Wed Apr 15 02:42:45 2026", 60),
    ],
)
def test_parse_retry_after_reads_seconds_and_http_dates(value: str, seconds: int) -> None:
    assert parse_retry_after(value, NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            "",
            " ",
            "-1",
            "+1",
            "1.5",
            "99999999999",
            "\u0661",
            "1s",
            "soon",
            "\ud800",
            "\x00",
        ),
        "Wed, 15 Apr 2026 02:41:45 GMT",
        "Wed, 15 Apr 2026 02:41:44 GMT",
        "Wed, 31 Feb 2027 02:42:45 GMT",
        "Wed, 15 Apr 0000 02:42:45 GMT",
        "Wed, 15 Apr 2027 02:42:45",
        "2027-04-15T02:41:45Z",
    ],
)
def test_parse_retry_after_is_none_if_unreadable_or_past(value: str | None) -> None:
    assert parse_retry_after(value, NOW) is None


@given(st.text())
def test_parse_retry_after_never_raises(value: str) -> None:
    wait = parse_retry_after(value, NOW)
    assert wait is None or wait >= timedelta(0)
