"""What happens to messages, claims and destinations: one function a transition, which logs it.

Every other effect of a transition, a count or a published event, belongs in its function.
"""

import structlog

from scheduler_api.domain.attempt import Attempt

log = structlog.get_logger()


def message_created(message_id: str, destination: str) -> None:
    """A message was stored."""
    log.info("message_created", message_id=message_id, destination=destination)


def messages_created(created: int, refused: int) -> None:
    """A batch was stored, except the messages that were refused."""
    log.info("messages_created", created=created, refused=refused)


def message_cancelled(message_id: str) -> None:
    """A message was deleted before it was sent."""
    log.info("message_cancelled", message_id=message_id)


def message_delivered(message_id: str, attempt: Attempt) -> None:
    """The destination accepted a message."""
    log.info("message_delivered", **_facts(message_id, attempt))


def attempt_failed(message_id: str, attempt: Attempt, retry_in: float) -> None:
    """An attempt failed; the next one follows in `retry_in` seconds."""
    log.warning("attempt_failed", retry_in_s=round(retry_in, 1), **_facts(message_id, attempt))


def message_failed(message_id: str, attempt: Attempt) -> None:
    """The last attempt failed."""
    log.error("message_failed", **_facts(message_id, attempt))


def message_crashed(message_id: str) -> None:
    """A message failed because too many processes died while they were sending it."""
    log.error("message_failed", message_id=message_id, error="process_died")


def settle_refused(message_id: str, attempt: Attempt) -> None:
    """The result of an attempt was not stored, because the claim is no longer held."""
    log.warning("settle_refused", **_facts(message_id, attempt))


def leases_reaped(returned: int) -> None:
    """Leases expired; `returned` messages are due again."""
    log.warning("leases_reaped", returned=returned)


def claims_recovered(returned: int, worker_id: str) -> None:
    """A process of this machine died; `returned` messages are due again."""
    log.warning("claims_recovered", returned=returned, worker_id=worker_id)


def messages_unparked(unparked: int) -> None:
    """Messages were parked without a reason, and are due again."""
    log.info("messages_unparked", unparked=unparked)


def finished_messages_forgotten(forgotten: int) -> None:
    """Finished messages were deleted early, because the store's memory is short."""
    log.warning("finished_messages_forgotten", forgotten=forgotten, reason="memory")


def destination_unreachable(destination: str, error: str | None) -> None:
    """Several attempts in a row made no connection; `error`: of the last one."""
    log.warning("destination_unreachable", destination=destination, error=error)


def destination_reached(destination: str) -> None:
    """A destination that was unreachable accepts connections again."""
    log.info("destination_reached", destination=destination)


def destination_limits_set(
    destination: str, concurrency: int | None, rate: str | None, *, paused: bool
) -> None:
    """The limits of a destination were stored; None: the default."""
    facts = {"concurrency": concurrency, "rate": rate, "paused": paused}
    log.info("destination_limits_set", destination=destination, **facts)


def destination_limits_cleared(destination: str) -> None:
    """The limits of a destination were deleted; the defaults apply."""
    log.info("destination_limits_cleared", destination=destination)


def _facts(message_id: str, attempt: Attempt) -> dict[str, object]:
    facts = {
        "message_id": message_id,
        "attempt": attempt.number,
        "status": attempt.status,
        "duration_ms": attempt.duration_ms,
        "lateness_ms": attempt.lateness_ms,
    }
    if attempt.error:
        facts["error"] = attempt.error
    return facts
