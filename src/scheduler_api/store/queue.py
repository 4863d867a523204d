"""Messages as the dispatcher asks for them: claim, settle, renew, release, reap, recover …"""

import hashlib
import secrets
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import structlog

from scheduler_api.domain.attempt import EXCERPT_BYTES, Attempt, reached, was_cut_off
from scheduler_api.domain.attempt_stats import bucket
from scheduler_api.domain.message import Spec
from scheduler_api.domain.retry import Decision, Delivered, Failed, Retry
from scheduler_api.domain.url import destination_name
from scheduler_api.store.codec.record import (
    append_attempt,
    from_ms,
    to_ms,
    unpack_progress,
    unpack_record,
)
from scheduler_api.store.connection.batching import Batcher
from scheduler_api.store.connection.clock import StoreClock
from scheduler_api.store.connection.notifier import Notifier
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.keys import SCHEMA
from scheduler_api.telemetry import transitions

log = structlog.get_logger()

CLAIM_BYTES: Final = 4 * 1024**2  # of records that a claim brings, beside one more: see claim.lua
CLAIM_BATCH: Final = 100  # a claim of 100 holds up the store for about 1 ms
SETTLE_WITHIN: Final = 0.002  # seconds that an outcome waits for others
MAX_CRASHES: Final = 5  # processes that died with a message before it is given up
MAX_KEPT: Final = 100_000  # finished records on a shelf, whatever their age
KEEP_BELOW: Final = 75  # percent of the store's memory; beyond it pending messages come first
SILENCE: Final = timedelta(days=1)  # after which a process that claimed nothing is struck off
SWEEP_BATCH: Final = 100  # destinations
FAILURES_PAST: Final = timedelta(days=1)  # failures to connect that nobody counts any more
COLUMNS: Final = 4  # of a claimed message in the script's reply


class Claimed(msgspec.Struct, frozen=True):
    """A message leased to this process."""

    id: str
    webhook_id: str  # the same in every attempt, another when the id is used for a new message
    fence: int  # with the process's epoch: what settles it
    created_at: datetime
    scheduled_at: datetime
    due_at: datetime  # when this attempt was due
    url: str
    destination: bytes  # as the store counts its requests
    spec: Spec
    attempts: int  # made before
    crashes: int
    log: bytes  # the attempts before, packed
    size: int = 0  # bytes of its record


class Share(NamedTuple):
    """What a process says of its slots, so that a claim gives none too many to one destination."""

    slots: int = 0  # that the process has; 0: it does not ration them
    free: int = 0  # of these
    open: Sequence[bytes | int] = ()  # destination, its open requests (-1: it answers quickly) …


class Claim(msgspec.Struct, frozen=True):
    """What a claim found."""

    messages: list[Claimed]
    deadline: float  # end of the leases by this process's monotonic clock, seconds
    due_in: float | None  # seconds until more should be claimed; 0: at once; None: nothing waits
    due_at: float | None  # that instant by this process's monotonic clock, seconds
    lease_in: float | None  # seconds until the next lease of any process ends; None: there is none
    dropped: int  # ids without a record, taken out: a damaged data set
    lost_race: bool  # nothing was due, and another process claimed since our last claim
    reset: bool  # the data lost the mark of this schema: the store was emptied, or put back
    jump: float  # seconds that the store's clock jumped since the last claim; below 0: back


class Outcome(msgspec.Struct, frozen=True):
    """How a claim ends."""

    claimed: Claimed
    attempt: Attempt
    decision: Decision


class Queue:
    """The queue of one partition, as one process sees it."""

    def __init__(
        self,
        partition: int,
        scripts: Scripts,
        notifier: Notifier,
        *,
        epoch: str,
        lease: timedelta,
        concurrency: int,
        keep_delivered: timedelta,
        keep_failed: timedelta,
    ) -> None:
        """`epoch`: names this process in its claims; `concurrency`: how many may be in flight to
        one destination, all processes together, of this partition."""
        self.partition = partition
        self.epoch = epoch
        self._scripts = scripts
        self._notifier = notifier
        self._lease_ms = _ms(lease)
        self._concurrency = concurrency
        self._keep = {"delivered": _ms(keep_delivered), "failed": _ms(keep_failed)}
        self._nonce: str | None = None
        self._last_fence: int | None = None  # of any process, as our last claim saw it
        self._claimed_ms = 0  # when the store ran our last claim, by its clock
        self._clock = StoreClock()
        self._settling: Batcher[Outcome, bool] = Batcher(
            self._settle, delay=SETTLE_WITHIN, max_items=CLAIM_BATCH
        )

    async def claim(self, most: int, ahead: float = 0.0, share: Share = Share()) -> Claim:  # noqa: B008  immutable
        """Lease up to `most` messages that are due, or will be in `ahead` seconds.

        What `share` leaves a destination no slot for is parked until it does.
        Raises: StoreUnavailable, SchemaTooNew.

        After an error the next call carries the same nonce: if the script had run and only its
        reply was lost, the same messages come back.
        """
        self._nonce = self._nonce or secrets.token_hex(8)
        asked = time.monotonic()
        now, fence, due, lease, dropped, schema, last, *rows = await self._scripts.run(
            "claim",
            min(most, CLAIM_BATCH),
            self._lease_ms,
            self.epoch,
            self._nonce,
            self._concurrency,
            int(ahead * 1000),
            share.slots,
            share.free,
            *share.open,
        )
        self._nonce, self._claimed_ms = None, now
        jump = self._clock.observe(now, asked, time.monotonic())
        lost_race = not fence and self._last_fence is not None and last > self._last_fence
        self._last_fence = last
        claimed = (_claimed(fence, *rows[i : i + COLUMNS]) for i in range(0, len(rows), COLUMNS))
        return Claim(
            [one for one in claimed if one],
            asked + self._lease_ms / 1000,  # from before the store's own start
            _seconds_until(due, now),
            None if due < 0 else self._clock.local_time(due),
            _seconds_until(lease, now),
            dropped,
            lost_race,
            schema < SCHEMA,
            jump,
        )

    def now(self) -> datetime:
        """The store's clock, as claims have shown it: hardly behind."""
        return from_ms(int(self._clock.store_ms(time.monotonic())))

    def instant(self, at: datetime) -> float:
        """When that is by this process's monotonic clock, seconds: hardly later."""
        return self._clock.local_time(to_ms(at))

    async def settle(self, outcome: Outcome) -> bool:
        """End a claim; False: it was no longer held, nothing changed. Raises: StoreUnavailable."""
        # Its log is all that can be large, and gets an attempt's excerpt more.
        return await self._settling.submit(outcome, len(outcome.claimed.log) + EXCERPT_BYTES)

    async def _settle(self, batch: Sequence[Outcome]) -> list[bool]:
        args: list[bytes | str | int] = [self.epoch, self._concurrency, MAX_KEPT]
        for outcome in batch:
            args += self._settle_args(outcome)
        sooner, *words = await self._scripts.run("settle", *args)
        if sooner:
            self._notifier.notify(self.partition)
        for outcome, word in zip(batch, words, strict=True):
            _log_reachability(outcome, word)
        return [word != b"stale" for word in words]

    def _settle_args(self, outcome: Outcome) -> tuple[bytes | str | int, ...]:
        claimed, decision = outcome.claimed, outcome.decision
        verdict = _VERDICTS[type(decision)]
        return (
            claimed.id.encode(),
            claimed.fence,
            verdict,
            _ms(decision.delay) if isinstance(decision, Retry) else self._keep[verdict],
            f"{outcome.attempt.number} {claimed.crashes}",
            append_attempt(claimed.log, outcome.attempt),
            _REACHED[reached(outcome.attempt.status, outcome.attempt.error)],
            _bucket(outcome.attempt),
        )

    async def release(self, claims: Sequence[Claimed]) -> None:
        """Give back what was not sent; leave the roll of processes. Raises: StoreUnavailable."""
        await self._scripts.run("release", self.epoch, self._concurrency, *_names(claims))

    async def renew(self, claims: Sequence[Claimed]) -> list[bool]:
        """Extend leases by a full one; False for each that is lost. Raises: StoreUnavailable."""
        words = await self._scripts.run("renew", self.epoch, self._lease_ms, *_names(claims))
        return [word == b"ok" for word in words]

    async def note_restart(self) -> float:
        """Say that the store was found: seconds until reaping is allowed, if it was restarted."""
        return int(await self._scripts.run("note_restart", self._lease_ms)) / 1000

    async def reap(self, within: timedelta | None = None) -> tuple[int, list[str]]:
        """Take back expired leases: how many wait again, the ids of those that were given up.

        `within`: of our last claim; none if the store gets to it later, such as after an outage.
        """
        until = -1 if within is None else self._claimed_ms + _ms(within)
        returned, *failed = await self._scripts.run("reap", *self._taking_back(), until)
        return returned, [message_id.decode() for message_id in failed]

    async def recover(self, epoch: str) -> tuple[int, list[str]]:
        """Take back the claims of a process that is known to be dead: as `reap`, at once."""
        total, given_up, cursor = 0, list[bytes](), b"0"
        while True:
            cursor, returned, *failed = await self._scripts.run(
                "recover", *self._taking_back(), epoch, cursor
            )
            total, given_up = total + returned, given_up + failed
            if cursor == b"0":
                break
        if total:
            self._notifier.notify(self.partition)
        return total, [message_id.decode() for message_id in given_up]

    def _taking_back(self) -> tuple[int, ...]:
        return (
            *(CLAIM_BATCH, self._concurrency),
            *(MAX_CRASHES, self._keep["failed"], MAX_KEPT),
        )

    async def purge(self) -> int:
        """Forget finished messages whose retention is over: how many."""
        return int(await self._scripts.run("purge", CLAIM_BATCH, _ms(SILENCE)))

    async def trim(self, percent: int = KEEP_BELOW) -> int:
        """Forget finished messages while the store uses more of its memory: how many."""
        return int(await self._scripts.run("trim", CLAIM_BATCH, percent))

    async def sweep(self) -> int:
        """Look again at destinations with parked messages: how many were unparked."""
        past = _ms(FAILURES_PAST)
        unparked = await self._scripts.run(
            "sweep", SWEEP_BATCH, self._concurrency, past, self._lease_ms
        )
        if unparked:
            self._notifier.notify(self.partition)
        return int(unparked)


# What settle.lua is told of a destination.
_REACHED: Final = {True: "yes", False: "no", None: ""}
# What settle.lua calls a decision.
_VERDICTS: Final = {Delivered: "delivered", Retry: "retry", Failed: "failed"}


def _bucket(attempt: Attempt) -> int | str:
    """Of the attempt's duration; '' if we ended it ourselves, which tells nothing."""
    return "" if was_cut_off(attempt) else bucket(attempt.duration_ms)


def _log_reachability(outcome: Outcome, word: bytes) -> None:
    """Whether the attempt changed what is known of its destination."""
    if word == b"broken":
        destination = destination_name(urlsplit(outcome.claimed.url).netloc)
        transitions.destination_unreachable(destination, outcome.attempt.error)
    elif word == b"mended":
        destination = destination_name(urlsplit(outcome.claimed.url).netloc)
        transitions.destination_reached(destination)


def _webhook_id(message_id: bytes, record: bytes) -> str:
    """By the id and the record's first bytes, which say when it was created."""
    return f"msg_{hashlib.blake2b(message_id, salt=record[:7], digest_size=16).hexdigest()}"


def _ms(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def _seconds_until(instant_ms: int, now_ms: int) -> float | None:
    return None if instant_ms < 0 else max(0, instant_ms - now_ms) / 1000


def _names(claims: Sequence[Claimed]) -> list[bytes | int]:
    return [part for claimed in claims for part in (claimed.id.encode(), claimed.fence)]


def _claimed(
    fence: int, message_id: bytes, due: int, packed: bytes, counted: bytes
) -> Claimed | None:
    """The message; None if its record cannot be read, which must not hold up the others.

    Its lease then runs out until it counts as having killed too many processes.
    """
    try:
        record, progress = unpack_record(packed), unpack_progress(counted)
    except (ValueError, IndexError, msgspec.MsgspecError):
        log.exception("record_unreadable", message_id=message_id.decode())
        return None
    return Claimed(
        id=message_id.decode(),
        webhook_id=_webhook_id(message_id, packed),
        fence=fence,
        created_at=from_ms(record.created_ms),
        scheduled_at=from_ms(record.scheduled_ms),
        due_at=from_ms(due),
        url=record.url,
        destination=record.destination,
        spec=record.spec,
        attempts=progress.attempts,
        crashes=progress.crashes,
        log=progress.log,
        size=len(packed),
    )
