"""StoreHealth: since when a store answers, and how long a failed call waits."""

import time

from structlog.testing import capture_logs

from scheduler_api.delivery.store_health import StoreHealth
from scheduler_api.delivery.timing import MAX_BACKOFF, MIN_BACKOFF
from scheduler_api.domain.errors import StoreUnavailable

LEASE = 15.0  # seconds


def test_steady_for_counts_from_the_first_answer() -> None:
    health = StoreHealth()
    assert (health.steady_for(), health.answers) == (0, False)
    health.note_answer()
    since = health.steady_since
    health.note_answer()
    assert health.steady_since == since
    assert health.steady_for() >= 0
    assert health.answers


def test_note_answer_after_an_unnoticed_outage_counts_from_there() -> None:
    steady, silent = StoreHealth(outage=LEASE), StoreHealth(outage=0)
    for health in (steady, silent):
        health.note_answer()
    since = steady.steady_since
    while time.monotonic() == since:
        pass  # a tick of the clock
    for health in (steady, silent):
        health.note_answer()
    assert steady.steady_since == since
    assert silent.steady_since is not None
    assert since is not None
    assert silent.steady_since > since


def test_note_failure_waits_longer_each_time_up_to_max_backoff() -> None:
    health = StoreHealth()
    health.note_answer()
    waits = [health.note_failure(StoreUnavailable()) for _ in range(12)]
    assert not health.answers
    assert MIN_BACKOFF / 2 <= waits[0] <= MIN_BACKOFF
    assert MAX_BACKOFF / 2 <= waits[-1] <= MAX_BACKOFF


def test_note_failure_logs_only_the_first_failure_of_an_outage() -> None:
    health = StoreHealth()
    with capture_logs() as logs:
        for _ in range(2):
            health.note_failure(StoreUnavailable())
            health.note_failure(StoreUnavailable())
            health.note_answer()
    assert [it["event"] for it in logs] == 2 * ["store_lost", "store_connected"]
