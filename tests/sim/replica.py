"""One process of the service, step by step, so that a schedule can put any step anywhere.

It re-writes delivery/dispatcher.py over the real Queue, for two reasons: a step needs no event
loop, so that a schedule takes milliseconds; and the schedule decides what comes next, not a loop.
It has no tasks, no timers, no HTTP and no batching of settles. The real dispatcher runs in
tests/sim/dispatcher, in fewer schedules, and has to keep the same promises there.
"""

from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.errors import Unavailable
from scheduler_api.domain.retry import decide
from scheduler_api.store.claims import Claim, Outcome, Share
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.queue import Queue
from tests.sim.lease import LEASE, Lease, Line
from tests.sim.ledger import Broken
from tests.sim.lines import Lines
from tests.sim.model import at_once
from tests.sim.share_checker import objection

if TYPE_CHECKING:
    from tests.sim.world import World

Result = TypeVar("Result")

SAFETY_POLL: Final = 10_000  # ms; see delivery/timing.py
NEXT_DUTIES: Final = LEASE // 3  # ms between two renewals
AHEAD: Final = 1_000  # ms; more than the dispatcher's, so that more is held back


class Rules(NamedTuple):
    """What the dispatcher and the API must do; planted.py turns off one at a time."""

    keeps_nonce: bool = True  # a claim whose reply was lost is repeated with the same nonce
    heeds_deadline: bool = True  # no request starts after its lease has ended
    heeds_instant: bool = True  # no request starts before the message is due
    waits_to_reap: bool = True  # as long as a lease, after the store came back
    repeats_settle: bool = True  # a settle is repeated until the store has answered
    waits_for_permit: bool = True  # a queued message is not sent before it has got a permit
    gives_permit_once: bool = True  # a permit that was passed on is not given back as well
    answers_what_was_written: bool = True  # 201 after the store's reply, not before


class Claimer:
    """What a process knows of one partition."""

    __slots__ = ("asked", "look_at", "missed", "queue", "since")

    def __init__(self, queue: Queue, now: int) -> None:
        self.queue = queue
        self.look_at = now
        self.since: int | None = None  # ms, when the store began to answer; None: it does not
        self.missed = False  # whether the reply to the last claim was lost
        # A claim that is under way: the slots that are reserved for it, and what it says of them.
        self.asked: tuple[int, Share] | None = None

    @property
    def partition(self) -> int:
        """Its number."""
        return self.queue.partition


class Replica:
    """The dispatcher of one process."""

    def __init__(self, world: "World", queues: Sequence[Queue], slots: int) -> None:
        self.world = world
        self.worker_id = queues[0].worker_id
        self.claimers = [Claimer(queue, world.now) for queue in queues]
        self.slots = slots
        self.leases: list[Lease] = []  # the earliest first
        self.given_up: list[Lease] = []
        # Lines of which a lease was lost: the store may count a permit that nobody has.
        self.lossy: set[Line] = set()
        # Its claims were taken back though it runs, so that it passes on permits that it lost.
        self.recovered_alive = False
        self.lines = Lines(self)
        self.dead = False
        self.paused_until = 0  # ms, by its own clock: suspended until then
        self.stopped = False  # whether it has made no step since it was suspended
        self.cut_until = 0  # ms: it does not reach the store until then
        self.duties_at = world.now + NEXT_DUTIES

    @property
    def acts(self) -> bool:
        """Whether it runs: not dead, not suspended."""
        return not self.dead and self.paused_until <= self.world.now

    def sending(self) -> list[Lease]:
        """Messages whose request is to be made, or open: each holds a slot."""
        return [lease for lease in self.leases if lease.sending]

    def unsent(self) -> list[Lease]:
        """Claimed messages whose request has not started."""
        return [lease for lease in self.leases if lease.sending and not lease.started]

    def ready(self) -> list[Lease]:
        """Those that are due."""
        now = from_ms(self.world.store_ms)
        heeds = self.world.rules.heeds_instant
        return [one for one in self.unsent() if one.claimed.due_at <= now or not heeds]

    def opened(self) -> list[Lease]:
        """Open requests."""
        return [lease for lease in self.leases if lease.open]

    def answered(self) -> list[Lease]:
        """Requests with an outcome that may be settled."""
        return [one for one in self.leases if one.answered and not one.keeps]

    def queued(self) -> list[Lease]:
        """Messages without a permit, also those that are given back."""
        return [one for one in self.leases if one.waits or one.returns]

    def without_permit(self) -> list[Lease]:
        """Messages that have no permit yet, or have passed it on."""
        return [lease for lease in self.leases if not lease.claimed.permit]

    def returning(self) -> list[Lease]:
        """Messages that are to be given back."""
        return [lease for lease in self.leases if lease.returns]

    def free(self) -> int:
        """Slots without a message."""
        reserved = sum(it.asked[0] for it in self.claimers if it.asked)
        return self.slots - len(self.sending()) - reserved

    def _ask(self, call: Coroutine[Any, Any, Result]) -> Result:
        server = self.world.server
        away = server.down
        server.down = away or self.cut_until > self.world.now
        try:
            return at_once(call)
        finally:
            server.down = away

    def ask(self, claimer: Claimer) -> bool:
        """Let a claim get under way; False: no slot is free for it."""
        if (free := self.free()) > 0:
            claimer.asked = free, self._share(claimer.partition)
        return free > 0

    def look(self, claimer: Claimer) -> None:
        """Claim as many messages as slots are free; reap expired leases if that is allowed."""
        world, queue = self.world, claimer.queue
        claimer.look_at = world.now + SAFETY_POLL
        if not (claimer.asked or self.ask(claimer)):
            return
        assert claimer.asked
        (free, share), claimer.asked = claimer.asked, None
        try:
            if claimer.since is None:
                self._ask(queue.note_restart())
                claimer.since = world.now
            if claimer.missed and not world.rules.keeps_nonce:
                queue._nonce = None
            claim = world.checks.within_limits(
                claimer.partition, share, lambda: self._claim(queue, free, share)
            )
        except Unavailable:
            claimer.missed = True
            claimer.since = None
            self.lines.settle(claimer.partition)
            return
        # The slots of a claim whose reply was lost may have gone to other partitions since.
        fits = len(claim.messages) <= free or claimer.missed
        assert fits, "more was claimed than asked for"
        offers = [world.ledger.offer_of(one) for one in claim.messages]
        leases = [
            Lease(self, claimer, one, offer, world.now)
            for one, offer in zip(claim.messages, offers, strict=True)
        ]
        for lease in leases:
            world.ledger.claimed(lease)
        self.leases += leases
        self.lines.queue([lease for lease in leases if lease.waits])
        self.lines.settle(claimer.partition)
        if claimer.missed:
            world.checks.all_known(self, claimer.partition)
        elif found := objection(share, claim.messages):
            raise Broken(found)
        elif len(leases) < free and not world.callers.large:
            world.checks.nothing_due(claimer.partition, more_is_due=claim.due_in == 0)
        world.checks.looks_again(claimer.partition, claim.due_in)
        claimer.missed = False
        self._wake(claimer, claim.due_in, claim.lease_in)

    def _share(self, partition: int) -> Share:
        if not self.world.options.shares_slots:
            return Share()
        open_ = dict(Counter(one.claimed.destination for one in self.sending()))
        lines = list[bytes | int]()
        for name in sorted(quick.encode() for quick in self.world.quick):
            open_[name] = -2 if name in open_ else -1
            if self.lines.is_used((partition, name)):
                lines += (name, len(self.lines.waiting((partition, name))))
        named = [part for name in sorted(open_) for part in (name, open_[name])]
        return Share(self.slots, self.free(), named, lines, len(self.queued()))

    def _claim(self, queue: Queue, free: int, share: Share) -> Claim:
        server = self.world.server
        server.loses_reply = self.world.faults.loses_reply()
        try:
            return self._ask(queue.claim(free, AHEAD / 1000, share))
        finally:
            server.loses_reply = False

    def _wake(self, claimer: Claimer, due_in: float | None, lease_in: float | None) -> None:
        now = self.world.now
        waits = [] if due_in is None else [due_in * 1000]
        if lease_in == 0:
            waits.append(self._reap_if_allowed(claimer))
        elif lease_in is not None:
            waits.append(lease_in * 1000)
        claimer.look_at = now + max(1, int(min(waits, default=SAFETY_POLL)))

    def _reap_if_allowed(self, claimer: Claimer) -> float:
        """Ms until it is allowed, 0 when done."""
        try:
            granted = self._ask(claimer.queue.note_restart()) * 1000
            steady = self.world.now - (self.world.now if claimer.since is None else claimer.since)
            wait = max(LEASE - steady if self.world.rules.waits_to_reap else 0, granted)
            if wait > 0:
                return wait
            self.world.reap(self._ask, claimer.queue)
        except Unavailable:
            claimer.since = None
        return 0

    def give_back(self, lease: Lease) -> None:
        """Release a claim that could not be sent."""
        lease.sending, lease.returns = False, True
        self.lines.end(lease, answered=False)
        self.release()

    def release(self) -> None:
        """Give messages back; without an answer of the store they are kept for another call."""
        for claimer in self.claimers:
            leases = [lease for lease in self.returning() if lease.claimer is claimer]
            if leases and self._release(leases, claimer):
                self._forget(leases)
                self.given_up += leases

    def recover(self) -> None:
        """Recover the claims of a process of this machine that died."""
        for claimer in self.claimers:
            try:
                self.world.recover(self._ask, claimer.queue)
            except Unavailable:
                claimer.since = None

    def send(self, lease: Lease) -> None:
        """Start the request, if there is time."""
        world = self.world
        if not lease.usable and world.rules.heeds_deadline:
            self._give_up(lease)
            return
        world.ledger.sent(lease, world.store_ms)
        lease.started = lease.took = True
        if lease.offer.answer(lease.claimed.attempts + 1) == 0:
            world.kill(self)

    def answer(self, lease: Lease, status: int | None, error: str | None = None) -> None:
        """The request has ended; `status`: None if no response came, then `error` may say why."""
        claimed = lease.claimed
        lease.sending = False
        lease.answered = True
        now = from_ms(self.world.store_ms)
        attempt = Attempt(claimed.attempts + 1, now, 5, status, error, None, 0)
        decision = decide(attempt.number, status, None, self.world.rng.uniform(-1, 1))
        lease.outcome = Outcome(claimed, attempt, decision)
        self.lines.end(lease, answered=status is not None)

    def settle(self, leases: list[Lease]) -> None:
        """Settle outcomes; those that the store did not answer are kept for another call."""
        for claimer in self.claimers:
            self._settle(claimer, [lease for lease in leases if lease.claimer is claimer])

    def _settle(self, claimer: Claimer, leases: list[Lease]) -> None:
        world = self.world
        outcomes = [lease.outcome for lease in leases if lease.outcome]
        if not outcomes:
            return
        held = [world.is_held_by(lease) for lease in leases]
        try:
            taken = world.checks.settles(
                claimer.partition, lambda: self._ask(claimer.queue._settle(outcomes))
            )
        except Unavailable:
            claimer.since = None
            if not world.rules.repeats_settle:
                self._forget(leases)
            return
        if any(is_taken > is_held for is_taken, is_held in zip(taken, held, strict=True)):
            raise Broken("an outcome was taken from a process that did not hold the claim")
        for lease, outcome, is_taken in zip(leases, outcomes, taken, strict=True):
            world.ledger.settled(lease, outcome, is_taken, world.store_ms)
        if world.faults.loses_reply():
            claimer.since = None
        else:
            self._forget(leases)

    def _forget(self, leases: list[Lease]) -> None:
        self.leases = [lease for lease in self.leases if lease not in leases]

    def renew(self) -> None:
        """Renew leases that are a third over; give up those that are lost."""
        soon = self.world.now + LEASE * 2 // 3
        for claimer in self.claimers:
            old = [one for one in self.leases if one.ends_ms <= soon and one.claimer is claimer]
            if old:
                self._renew(claimer, old)

    def _renew(self, claimer: Claimer, old: list[Lease]) -> None:
        world = self.world
        try:
            kept = self._ask(claimer.queue.renew([lease.claimed for lease in old]))
        except Unavailable:
            return
        lost_reply = world.faults.loses_reply()
        for lease, is_kept in zip(old, kept, strict=True):
            if is_kept:
                lease.until_ms = world.lease_end(lease.claimed.id)
                if not lost_reply:
                    lease.ends_ms = world.now + LEASE
            elif lease.sending and not lost_reply:
                self._give_up(lease)
            elif lease.waits and not lost_reply:
                lease.ends_ms = 0

    def give_up_ended(self) -> None:
        """Abort every request whose lease could not be renewed in time."""
        for lease in list(self.leases):
            if lease.sending and not lease.usable:
                self._give_up(lease)

    def _give_up(self, lease: Lease) -> None:
        lease.sending = False
        self.leases.remove(lease)
        self.given_up.append(lease)
        self.lossy.add(lease.line)
        self.lines.end(lease, answered=False)
        self.world.ledger.expose(lease)

    def duties(self) -> None:
        """What its timers do: settle, give back what waits for long, renew, abort."""
        self.duties_at = self.world.now + NEXT_DUTIES
        if not self.leases:
            return
        self.end_claims()
        self.settle(self.answered())
        self.lines.give_old_back()
        self.release()
        self.renew()
        self.give_up_ended()

    def end_claims(self) -> None:
        """Claims that are under way have not reached the store."""
        for claimer in self.claimers:
            claimer.asked = None
            self.lines.settle(claimer.partition)

    def stop(self) -> None:
        """SIGTERM: release what was not sent, cut off open requests, settle, unregister."""
        self.end_claims()
        self.lines.stop()
        for claimer in self.claimers:
            unsent = [*self.unsent(), *self.returning()]
            self._release([lease for lease in unsent if lease.claimer is claimer], claimer)
        for lease in self.opened():
            self.answer(lease, None)
        self.settle(self.answered())
        for claimer in self.claimers:
            self._release([], claimer)
        self.world.kill(self)

    def _release(self, leases: list[Lease], claimer: Claimer) -> bool:
        """Whether the store has answered."""
        try:
            self._ask(claimer.queue.release([lease.claimed for lease in leases]))
        except Unavailable:
            claimer.since = None
            return False
        self.world.released(leases)
        return not self.world.faults.loses_reply()
