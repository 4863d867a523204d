"""Claims: what a claim returns, and the outcome that ends it; both as the scripts have them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
import structlog

from scheduler_api.domain.attempt import Attempt, reached, was_cut_off
from scheduler_api.domain.attempt_stats import bucket
from scheduler_api.domain.duration import milliseconds
from scheduler_api.domain.message import Spec
from scheduler_api.domain.retry import Decision, Delivered, Failed, Retry
from scheduler_api.store.codec.progress import append_attempt, unpack_progress
from scheduler_api.store.codec.record import from_ms, unpack_record, webhook_id_of
from scheduler_api.store.replies import ClaimRow, SettleArgs

log = structlog.get_logger()


class Claimed(msgspec.Struct):
    """A message leased to this process."""

    id: str
    webhook_id: str  # the same in every attempt; another one for a new message with the same id
    fence: int  # with the worker id of the process: what settles it
    created_at: datetime
    scheduled_at: datetime
    due_at: datetime  # when this attempt was due
    url: str
    destination: bytes  # its name
    spec: Spec
    attempts: int  # made before
    crashes: int  # processes that died while they held it
    log: bytes  # the attempts made before, packed
    size: int = 0  # bytes of its record
    permit: bool = True  # whether its request may be open: the permit of another may pass to it


class Share(NamedTuple):
    """The slots of a process: a claim limits how many of them one destination gets."""

    slots: int = 0  # that the process has; 0: claims do not divide them
    free: int = 0  # of these
    open: Sequence[bytes | int] = ()  # destination, its open requests ; negative: see claim.lua
    lines: Sequence[bytes | int] = ()  # destination, its messages that wait for a permit …
    queued: int = 0  # leases that wait for a permit; a claim adds no more than are free


class Claim(msgspec.Struct, frozen=True):
    """The result of a claim."""

    messages: list[Claimed]
    deadline: float  # end of the leases by this process's monotonic clock, seconds
    due_in: float | None  # seconds until more should be claimed; 0: at once; None: nothing waits
    due_at: float | None  # that instant by this process's monotonic clock, seconds
    lease_in: float | None  # seconds until the next lease of any process ends; None: there is none
    dropped: int  # ids without a record, taken out: a damaged data set
    lost_race: bool  # nothing was due, and another process has claimed since our last claim
    reset: bool  # the data lost the mark of this schema: the store was emptied, or restored
    jump: float  # seconds that the store's clock jumped since the last claim; negative: back


class Outcome(msgspec.Struct, frozen=True):
    """How a claim ends."""

    claimed: Claimed
    attempt: Attempt
    decision: Decision


def unpack_claimed(fence: int, row: ClaimRow) -> Claimed | None:
    """The message; None if its record cannot be read, which must not delay the others.

    Its lease then expires repeatedly, until the message fails by its number of crashes.
    """
    try:
        record, progress = unpack_record(row.record), unpack_progress(row.progress)
    except (ValueError, IndexError, msgspec.MsgspecError):
        log.exception("record_unreadable", message_id=row.id.decode())
        return None
    return Claimed(
        id=row.id.decode(),
        webhook_id=webhook_id_of(row.id, row.record),
        fence=fence,
        created_at=from_ms(record.created_ms),
        scheduled_at=from_ms(record.scheduled_ms),
        due_at=from_ms(row.due),
        url=record.url,
        destination=record.destination,
        spec=record.spec,
        attempts=progress.attempts,
        crashes=progress.crashes,
        log=progress.log,
        size=len(row.record),
        permit=row.permit == 1,
    )


_VERDICTS: Final = {Delivered: "delivered", Retry: "retry", Failed: "failed"}
_REACHED_WORD: Final = {True: "yes", False: "no", None: ""}


def pack_outcome(outcome: Outcome, keep_ms: Mapping[str, int]) -> SettleArgs:
    """For settle.lua; `keep_ms`: finished state → how long it keeps a message."""
    claimed, attempt, decision = outcome.claimed, outcome.attempt, outcome.decision
    verdict = _VERDICTS[type(decision)]
    return SettleArgs(
        id=claimed.id.encode(),
        fence=claimed.fence,
        verdict=verdict,
        ms=milliseconds(decision.delay) if isinstance(decision, Retry) else keep_ms[verdict],
        counts=f"{attempt.number} {claimed.crashes}",
        log=append_attempt(claimed.log, attempt),
        reached=_REACHED_WORD[reached(attempt.status, attempt.error)],
        bucket="" if was_cut_off(attempt) else bucket(attempt.duration_ms),
        permit=int(claimed.permit),
    )
