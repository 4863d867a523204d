"""Each transition logs one event; its level and fields are what operators search for."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from scheduler_api.domain.attempt import Attempt
from scheduler_api.telemetry import transitions

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ANSWERED = Attempt(2, NOW, 12, 200, None, None, 3)
TIMED_OUT = Attempt(2, NOW, 12, None, "timeout", None, 3)

OF_ANSWERED = {"message_id": "m", "attempt": 2, "status": 200, "duration_ms": 12, "lateness_ms": 3}
OF_TIMED_OUT = OF_ANSWERED | {"status": None, "error": "timeout"}
LIMITS = {"concurrency": 8, "rate": None, "paused": True}

EVENTS: dict[Callable[[], None], tuple[str, str, dict[str, Any]]] = {
    lambda: transitions.message_created("m", "a.example"): (
        *("message_created", "info"),
        {"message_id": "m", "destination": "a.example"},
    ),
    lambda: transitions.messages_created(2, 1): (
        *("messages_created", "info"),
        {"created": 2, "refused": 1},
    ),
    lambda: transitions.message_cancelled("m"): (
        *("message_cancelled", "info"),
        {"message_id": "m"},
    ),
    lambda: transitions.message_delivered("m", ANSWERED): (
        *("message_delivered", "info"),
        OF_ANSWERED,
    ),
    lambda: transitions.attempt_failed("m", TIMED_OUT, 5.04): (
        *("attempt_failed", "warning"),
        OF_TIMED_OUT | {"retry_in_s": 5.0},
    ),
    lambda: transitions.message_failed("m", TIMED_OUT): (
        *("message_failed", "error"),
        OF_TIMED_OUT,
    ),
    lambda: transitions.message_crashed("m"): (
        *("message_failed", "error"),
        {"message_id": "m", "error": "process_died"},
    ),
    lambda: transitions.settle_refused("m", ANSWERED): (
        *("settle_refused", "warning"),
        OF_ANSWERED,
    ),
    lambda: transitions.leases_reaped(3): ("leases_reaped", "warning", {"returned": 3}),
    lambda: transitions.claims_recovered(3, "ab"): (
        *("claims_recovered", "warning"),
        {"returned": 3, "worker_id": "ab"},
    ),
    lambda: transitions.messages_unparked(3): ("messages_unparked", "info", {"unparked": 3}),
    lambda: transitions.finished_messages_forgotten(3): (
        *("finished_messages_forgotten", "warning"),
        {"forgotten": 3, "reason": "memory"},
    ),
    lambda: transitions.destination_unreachable("a.example", "dns_error"): (
        *("destination_unreachable", "warning"),
        {"destination": "a.example", "error": "dns_error"},
    ),
    lambda: transitions.destination_reached("a.example"): (
        *("destination_reached", "info"),
        {"destination": "a.example"},
    ),
    lambda: transitions.destination_limits_set("a.example", 8, None, paused=True): (
        *("destination_limits_set", "info"),
        {"destination": "a.example"} | LIMITS,
    ),
    lambda: transitions.destination_limits_cleared("a.example"): (
        *("destination_limits_cleared", "info"),
        {"destination": "a.example"},
    ),
}


@pytest.mark.parametrize("transition", EVENTS, ids=[name for name, _, _ in EVENTS.values()])
def test_transition_logs_one_event_with_its_fields(transition: Callable[[], None]) -> None:
    name, level, fields = EVENTS[transition]
    with capture_logs() as logs:
        transition()
    assert logs == [{"event": name, "log_level": level} | fields]


def test_events_have_all_transitions() -> None:
    functions = {name for name, it in vars(transitions).items() if name[0] != "_" and callable(it)}
    tested = {name for name, _, _ in EVENTS.values()} | {"message_crashed"}
    assert functions - {"Attempt"} == tested
