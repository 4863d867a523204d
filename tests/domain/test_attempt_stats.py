"""What attempts came to: counts in buckets, and what is told of them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.attempt_stats import Results, bucket

LONGEST = 15 * 60 * 1000  # ms


def counted(durations: list[int], delivered: int = 0) -> Results:
    found = Results()
    for duration in durations:
        found += Results(0, {bucket(duration): 1})
    return found + Results(delivered)


def test_no_attempts_tell_nothing() -> None:
    assert (Results().attempts, Results().success_rate) == (0, None)
    assert Results().duration_ms(0.5) is None


def test_the_success_rate_is_the_part_that_was_delivered() -> None:
    assert counted([1, 1, 1], delivered=2).success_rate == 0.6667


@pytest.mark.parametrize(("part", "ms"), [(0.5, 10), (0.98, 10), (0.99, 1_000), (1.0, 1_000)])
def test_a_percentile_is_what_that_part_took_at_the_most(part: float, ms: int) -> None:
    found = counted([10] * 98 + [1_000] * 2)
    assert found.duration_ms(part) == pytest.approx(ms, rel=0.12)


@given(st.integers(0, LONGEST))
def test_a_duration_is_told_within_twelve_percent(ms: int) -> None:
    assert counted([ms]).duration_ms(0.5) == pytest.approx(ms, rel=0.12, abs=1)


def test_there_are_few_buckets() -> None:
    assert (bucket(0), bucket(LONGEST)) == (0, 61)
    drawn = sorted(random.sample(range(LONGEST), 1_000))
    assert [bucket(ms) for ms in drawn] == sorted(bucket(ms) for ms in drawn)


def test_results_add_up() -> None:
    assert Results(1, {3: 2}) + Results(2, {3: 1, 4: 5}) == Results(3, {3: 3, 4: 5})
