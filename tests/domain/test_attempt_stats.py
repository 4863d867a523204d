"""Statistics of attempts: success rate and percentiles from counts in buckets."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.attempt_stats import AttemptStats, bucket

LONGEST = 15 * 60 * 1000  # ms


def counted(durations: list[int], delivered: int = 0) -> AttemptStats:
    found = AttemptStats()
    for duration in durations:
        found += AttemptStats(0, {bucket(duration): 1})
    return found + AttemptStats(delivered)


def test_attempt_stats_of_no_attempts_has_no_rate_and_no_percentile() -> None:
    assert (AttemptStats().attempts, AttemptStats().success_rate) == (0, None)
    assert AttemptStats().percentile_ms(0.5) is None


def test_success_rate_is_the_delivered_part() -> None:
    assert counted([1, 1, 1], delivered=2).success_rate == 0.6667


@pytest.mark.parametrize(("part", "ms"), [(0.5, 10), (0.98, 10), (0.99, 1_000), (1.0, 1_000)])
def test_percentile_ms_is_the_duration_that_this_part_did_not_exceed(part: float, ms: int) -> None:
    found = counted([10] * 98 + [1_000] * 2)
    assert found.percentile_ms(part) == pytest.approx(ms, rel=0.12)


@given(st.integers(0, LONGEST))
def test_percentile_ms_is_at_most_12_percent_off(ms: int) -> None:
    assert counted([ms]).percentile_ms(0.5) == pytest.approx(ms, rel=0.12, abs=1)


def test_bucket_makes_62_ascending_buckets_up_to_15_minutes() -> None:
    assert (bucket(0), bucket(LONGEST)) == (0, 61)
    drawn = sorted(random.sample(range(LONGEST), 1_000))
    assert [bucket(ms) for ms in drawn] == sorted(bucket(ms) for ms in drawn)


def test_attempt_stats_add_up() -> None:
    assert AttemptStats(1, {3: 2}) + AttemptStats(2, {3: 1, 4: 5}) == AttemptStats(3, {3: 3, 4: 5})
