"""The two phases of a schedule: safety under faults, then liveness after healing.

Safety: processes, callers and faults take turns, and nothing forbidden may happen. Liveness: all
faults are healed, and what was promised has to happen within a bounded number of steps.
"""

from functools import partial
from typing import TYPE_CHECKING, Final

from tests.sim.lease import Lease
from tests.sim.ledger import Broken
from tests.sim.model import at_once
from tests.sim.options import DAY_MS
from tests.sim.replica import Claimer, Replica

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.world import World

MAX_ROUNDS: Final = 400  # in which a healed world has to come to rest
AFTER_RETENTION: Final = 31 * DAY_MS  # ms
WAITS: Final = (1, 50, 1_000, 5_000, 20_000)  # ms


class Safety:
    """Steps that the seed chooses, with the invariants checked between them."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = world.rng

    def run(self) -> None:
        """Raises: Broken."""
        for _ in range(self._world.options.first_creates):
            self._world.callers.create()
        for step in range(self._world.options.steps):
            self._step()
            if step % 2:  # what is broken mostly stays so
                self._world.checks.invariants()

    def _step(self) -> None:
        chance = self._rng.random()
        if chance < 0.15:
            self._world.callers.call()
        elif chance < 0.75:
            self._step_of_a_replica()
        elif chance < 0.88:
            self._wait()
        else:
            self._world.faults.inject()

    def _step_of_a_replica(self) -> None:
        acting = [one for one in self._world.replicas if one.acts]
        if not acting:
            return
        one = self._rng.choice(acting)
        # A process that was stopped finds all its timers expired: no other step comes between.
        for _ in range(self._rng.randrange(2, 7) if one.stopped else 1):
            if one.acts:
                self._step_of(one)
        one.stopped = False

    def _step_of(self, one: Replica) -> None:
        steps: list[Callable[[], object]] = [
            partial(one.look, claimer)
            for claimer in one.claimers
            if claimer.asked or (one.free() > 0 and self._wakes(claimer))
        ]
        if self._world.options.queues:
            idle = [claimer for claimer in one.claimers if not claimer.asked]
            steps += [partial(one.ask, claimer) for claimer in idle if one.sending()]
        if ready := one.ready():
            steps += [lambda: one.send(ready[0]), lambda: one.send(ready[-1])]
        unsent = one.unsent()
        if unsent and any(claimer.missed for claimer in one.claimers):
            steps = []  # before the claim is asked for again, which is when it may do harm
        if unsent and (not steps or self._rng.random() < 0.1):
            steps += [partial(one.give_back, unsent[0])]
        if opened := one.opened():
            world = self._world
            steps += [
                partial(answer, world, one, opened[0]),
                partial(answer, world, one, opened[-1]),
            ]
        steps += self._before_release(one)
        if (line := one.lines.first()) and self._rng.random() < 0.1:
            steps += [partial(one.lines.give_back, line)]
        if self._world.options.sets_limits and (waiting := one.without_permit()):
            steps += [partial(self._hold_up, one, waiting[0])]
        if answered := one.answered():
            steps += [lambda: one.settle(answered), lambda: one.settle(answered[:1])]
        if self._rng.random() < 0.2:
            steps += [one.renew, one.recover]
        if steps:
            self._rng.choice(steps)()
        else:
            self._wait()

    def _hold_up(self, one: Replica, waiting: Lease) -> None:
        """Hold up the destination of a message that waits for a permit; mostly a claim follows."""
        self._world.callers.hold_up(waiting.offer.destination)
        if self._rng.random() < 0.7:
            one.look(waiting.claimer)

    def _before_release(self, one: Replica) -> "list[Callable[[], object]]":
        """Steps while it has messages to give back, which may be all that a destination has."""
        if not one.returning():
            return []
        lists = [] if one.sending() else [self._world.callers.list_destinations]
        return [one.release, *lists]

    def _wakes(self, claimer: Claimer) -> bool:
        """Whether a timer or a signal has woken it; sometimes it wakes without a reason."""
        rings = claimer.look_at <= self._world.now or self._is_something_due(claimer.partition)
        often = 0.5 if self._world.options.queues else 0.1  # an outcome calls for the next claim
        return rings or self._rng.random() < often

    def _is_something_due(self, partition: int) -> bool:
        world = self._world
        due, leases = world.stored_in(partition, "due"), world.stored_in(partition, "leases")
        scores = (*due.values(), *leases.values())
        return min(scores, default=world.store_ms + 1) <= world.store_ms

    def _wait(self) -> None:
        if self._rng.random() < 0.2:
            self._world.quick ^= {self._rng.choice(self._world.options.hosts)}
        self._world.advance(self._rng.choice(WAITS))


class Liveness:
    """No more faults: every accepted message arrives, and after retention nothing is left."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def run(self) -> None:
        """Raises: Broken."""
        self._world.faults.heal()
        self._deliver_everything()
        self._leave_nothing()

    def _deliver_everything(self) -> None:
        """Only the oldest process claims: more of them would find no more."""
        world = self._world
        for _ in range(MAX_ROUNDS):
            looking = world.replicas[0]
            claimers = [one for one in looking.claimers if self._has_more(one.partition)]
            for claimer in claimers:
                looking.look(claimer)
            for one in list(world.replicas):
                if one.leases:
                    self._finish(one)
            world.checks.invariants()
            if not claimers:
                break
            rings = min(claimer.look_at for claimer in claimers)
            world.advance(max(1, rings - world.now))
        else:
            raise Broken("not all is sent, although all is healed")
        if world.options.store != "loses_tail":
            world.ledger.close()

    def _has_more(self, partition: int) -> bool:
        world = self._world
        return bool(world.stored_in(partition, "due") or world.stored_in(partition, "taken"))

    def _finish(self, one: Replica) -> None:
        """Send and settle what it holds, unless it dies of it."""
        one.give_up_ended()
        while (ready := one.ready()) and not one.dead:  # an answer may pass a permit on to another
            for lease in ready:
                if not one.dead:
                    one.send(lease)
            if self._world.options.queues and not one.dead:
                self._queue_more(one)
            for lease in one.opened() if not one.dead else ():
                answer(self._world, one, lease)
        if not one.dead:
            for lease in one.opened():
                answer(self._world, one, lease)
            one.end_claims()
            one.settle(one.answered())
            one.release()

    def _queue_more(self, one: Replica) -> None:
        """Claim while requests are open, as messages may wait for their permits."""
        for claimer in one.claimers:
            if self._has_more(claimer.partition):
                one.look(claimer)

    def _leave_nothing(self) -> None:
        """When retention is over, the store holds nothing of any message or destination."""
        world, options = self._world, self._world.options
        world.advance(AFTER_RETENTION)
        for name in options.hosts if options.sets_limits else ():
            world.callers.set_limit(name, None)
        for queue in world.data.queues("sweeper", options.concurrency, options.retention_ms):
            if options.sets_limits or options.loses_destinations:
                at_once(queue.sweep())
            at_once(queue.claim(1))  # it claims what earlier claims withheld
            at_once(queue.purge())
        left = world.server.stored().keys() - {keys.meta.encode() for keys in world.data.keys}
        if left:
            raise Broken(f"18: {left} are left of nothing")


def answer(world: "World", replica: Replica, lease: Lease) -> None:
    """The receiver answers, or the connection fails."""
    if lease.offer.destination in world.faults.unreachable:
        replica.answer(lease, None, "connect_error")
        return
    status = lease.offer.answer(lease.claimed.attempts + 1)
    replica.answer(lease, status or None)
