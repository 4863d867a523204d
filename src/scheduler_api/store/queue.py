"""The queue of one partition: claims of due messages, their outcomes, and its upkeep."""

import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from scheduler_api.domain.attempt import EXCERPT_BYTES
from scheduler_api.domain.duration import milliseconds
from scheduler_api.store.claims import (
    Claim,
    Claimed,
    Outcome,
    Share,
    pack_outcome,
    unpack_claimed,
)
from scheduler_api.store.codec.record import from_ms, to_ms
from scheduler_api.store.connection.batching import Batcher
from scheduler_api.store.connection.clock import StoreClock
from scheduler_api.store.connection.notifier import Notifier
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.replies import ClaimHead, ClaimRow, RecoverHead, head_and_rows
from scheduler_api.telemetry import transitions

CLAIM_BYTES: Final = 4 * 1024**2  # of records in a claim, and one record more: MAX_BYTES, claim.lua
CLAIM_BATCH: Final = 100  # messages; a claim of 100 blocks the store for about 1 ms
SETTLE_WITHIN: Final = 0.002  # seconds that an outcome waits for others
MAX_CRASHES: Final = 5  # processes that died while they held a message, until it has failed
MAX_KEPT: Final = 100_000  # messages of each finished state, of any age
KEEP_BELOW: Final = 75  # percent of the store's memory; above it pending messages come first
WORKER_TTL: Final = timedelta(days=1)  # since its last claim, until a process is forgotten
SWEEP_BATCH: Final = 100  # destinations
FAILURES_TTL: Final = timedelta(days=1)  # since the last failure to connect, until it is forgotten


class Queue:
    """The queue of one partition, for one process."""

    def __init__(
        self,
        partition: int,
        scripts: Scripts,
        notifier: Notifier,
        *,
        worker_id: str,
        lease: timedelta,
        limit_share: int,
        keep: Mapping[str, timedelta],
    ) -> None:
        """`worker_id`: of this process, in its claims.

        `limit_share`: messages of one destination that all processes together may have in flight,
        in this partition, unless the destination has settings; `keep`: finished state → how long it
        keeps a message.
        """
        self.partition = partition
        self.worker_id = worker_id
        self._scripts = scripts
        self._notifier = notifier
        self._lease_ms = milliseconds(lease)
        self._limit_share = limit_share
        self._keep_ms = {state: milliseconds(span) for state, span in keep.items()}
        # Destinations of which messages were still parked when this process settled one.
        self.parked: set[bytes] = set()
        self._nonce: str | None = None
        self._last_fence: int | None = None  # of any process, at our last claim
        self._claimed_ms = 0  # when the store ran our last claim, by its clock
        self._clock = StoreClock()
        self._settling: Batcher[Outcome, bool] = Batcher(
            self._settle, delay=SETTLE_WITHIN, max_items=CLAIM_BATCH
        )

    async def claim(self, limit: int, ahead: float = 0.0, share: Share = Share()) -> Claim:  # noqa: B008  immutable
        """Lease up to `limit` messages that are due, or will be in `ahead` seconds.

        Messages for which `share` leaves no slot are parked until it does. Some are leased without
        a permit: their requests may be opened when they get that of another message.
        Raises: StoreUnavailable, DataRefused.

        After an error the next call carries the same nonce: if the script had run and only its
        reply was lost, the same messages come back.
        """
        self._nonce = self._nonce or secrets.token_hex(8)
        called = time.monotonic()
        reply = await self._scripts.run(
            "claim",
            min(limit, CLAIM_BATCH),
            self._lease_ms,
            self.worker_id,
            self._nonce,
            self._limit_share,
            int(ahead * 1000),
            share.slots,
            share.free,
            share.queued,
            len(share.lines) // 2,
            *share.lines,
            *share.open,
        )
        head, rows = head_and_rows(reply, ClaimHead, ClaimRow)
        self._nonce, self._claimed_ms = None, head.now
        jump = self._clock.observe(head.now, called, time.monotonic())
        claimed = [unpack_claimed(head.fence, row) for row in rows]
        return Claim(
            messages=[one for one in claimed if one],
            deadline=called + self._lease_ms / 1000,  # the store began the leases after that
            due_in=_seconds_until(head.next_at, head.now),
            due_at=None if head.next_at < 0 else self._clock.local_time(head.next_at),
            lease_in=_seconds_until(head.next_lease_end, head.now),
            dropped=head.dropped,
            lost_race=self._lost_race(head),
            reset=head.schema == 0,
            jump=jump,
        )

    def _lost_race(self, head: ClaimHead) -> bool:
        last, self._last_fence = self._last_fence, head.last_fence
        return not head.fence and last is not None and head.last_fence > last

    def now(self) -> datetime:
        """The store's clock, estimated from the replies to claims: at most a little behind."""
        return from_ms(int(self._clock.store_ms(time.monotonic())))

    def instant(self, at: datetime) -> float:
        """That instant by this process's monotonic clock, seconds: at most a little later."""
        return self._clock.local_time(to_ms(at))

    async def settle(self, outcome: Outcome) -> bool:
        """End a claim; False: it was no longer held, nothing changed. Raises: StoreUnavailable."""
        # Only its log can be large, and grows by the excerpt of one attempt.
        return await self._settling.submit(outcome, len(outcome.claimed.log) + EXCERPT_BYTES)

    async def _settle(self, batch: Sequence[Outcome]) -> list[bool]:
        args: list[bytes | str | int] = [self.worker_id, self._limit_share, MAX_KEPT]
        for outcome in batch:
            args += pack_outcome(outcome, self._keep_ms)
        sooner, *words = await self._scripts.run("settle", *args)
        if sooner:
            self._notifier.notify(self.partition)
        for outcome, word in zip(batch, words, strict=True):
            if word == b"parked":
                self.parked.add(outcome.claimed.destination)
            elif word != b"ok":
                _log_destination(outcome, word)
        return [word != b"stale" for word in words]

    async def release(self, claims: Sequence[Claimed]) -> None:
        """Give back claims that were not sent; with none, unregister. Raises: StoreUnavailable."""
        args: list[bytes | int] = [self.worker_id.encode(), self._limit_share]
        for claimed in claims:
            args += claimed.id.encode(), claimed.fence, int(claimed.permit)
        await self._scripts.run("release", *args)

    async def renew(self, claims: Sequence[Claimed]) -> list[bool]:
        """Extend leases to a full one; False for each that is lost. Raises: StoreUnavailable."""
        words = await self._scripts.run("renew", self.worker_id, self._lease_ms, *_held(claims))
        return [word == b"ok" for word in words]

    async def note_restart(self) -> float:
        """Note whether the store was restarted → seconds until a reap is allowed again."""
        return int(await self._scripts.run("note_restart", self._lease_ms)) / 1000

    async def reap(self, within: timedelta | None = None) -> tuple[int, list[str]]:
        """Take back expired leases → number of messages due again, ids of the failed ones.

        `within`: of our last claim; the call does nothing if the store runs it later, after an
        outage for example.
        """
        latest = -1 if within is None else self._claimed_ms + milliseconds(within)
        returned, *failed = await self._scripts.run("reap", *self._take_back_args(), latest)
        return returned, [message_id.decode() for message_id in failed]

    async def recover(self, worker_id: str) -> tuple[int, list[str]]:
        """Take back the claims of a dead process at once; returns as `reap` does."""
        total, all_failed, cursor = 0, list[bytes](), b"0"
        while True:
            reply = await self._scripts.run("recover", *self._take_back_args(), worker_id, cursor)
            (cursor, returned), failed = RecoverHead(*reply[:2]), reply[2:]
            total, all_failed = total + returned, all_failed + failed
            if cursor == b"0":
                break
        if total:
            self._notifier.notify(self.partition)
        return total, [message_id.decode() for message_id in all_failed]

    def _take_back_args(self) -> tuple[int, ...]:
        """The first arguments of reap.lua and recover.lua."""
        keep_ms = self._keep_ms["failed"]
        return CLAIM_BATCH, self._limit_share, MAX_CRASHES, keep_ms, MAX_KEPT

    async def purge(self) -> int:
        """Forget finished messages whose retention is over → how many."""
        return int(await self._scripts.run("purge", CLAIM_BATCH, milliseconds(WORKER_TTL)))

    async def trim(self, percent: int = KEEP_BELOW) -> int:
        """Forget finished messages while more of the store's memory is used → how many."""
        return int(await self._scripts.run("trim", CLAIM_BATCH, percent))

    async def sweep(self) -> int:
        """Unpark messages that are parked without a reason → how many."""
        unparked = await self._scripts.run(
            "sweep", SWEEP_BATCH, self._limit_share, milliseconds(FAILURES_TTL), self._lease_ms
        )
        if unparked:
            self._notifier.notify(self.partition)
        return int(unparked)


def _log_destination(outcome: Outcome, word: bytes) -> None:
    if word not in (b"broken", b"mended"):
        return
    destination = outcome.claimed.destination.decode(errors="replace")
    if word == b"broken":
        transitions.destination_unreachable(destination, outcome.attempt.error)
    else:
        transitions.destination_reached(destination)


def _seconds_until(instant_ms: int, now_ms: int) -> float | None:
    return None if instant_ms < 0 else max(0, instant_ms - now_ms) / 1000


def _held(claims: Sequence[Claimed]) -> list[bytes | int]:
    """The id and the fence of each."""
    return [part for claimed in claims for part in (claimed.id.encode(), claimed.fence)]
