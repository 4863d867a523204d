"""What goes wrong in a schedule: processes, networks, clocks, destinations and the store."""

from typing import TYPE_CHECKING, Final

import msgspec

from scheduler_api.store.queue import Queue
from tests.sim.lease import LEASE
from tests.sim.model import at_once
from tests.sim.options import DAY_MS
from tests.sim.replica import NEXT_DUTIES, Replica

if TYPE_CHECKING:
    from tests.sim.world import World

MAX_SKEW: Final = LEASE // 20  # ms that the clock is set by: half of delivery/timing.MARGIN_SHARE
MAX_WILD_SKEW: Final = DAY_MS // 24  # ms
ABSENCES: Final = (10, 2_000, LEASE + NEXT_DUTIES, LEASE + NEXT_DUTIES)  # ms, of the store
PAUSES: Final = (1_000, LEASE // 2, LEASE + 2_000)  # ms, of a process

# What somebody may do by hand to the keys of a store that is in use.
REMOVALS: Final = (
    *(("ZREM", "due"), ("ZREM", "leases"), *[("ZREM", "taken"), ("HDEL", "claims")] * 3),
    *(*[("HDEL", "inflight")] * 3, ("SREM", "parking"), ("ZREM", "opens")),
    ("ZREM", "withheld"),
)
ADDITIONS: Final = (("ZADD", "due"), ("ZADD", "delivered"), ("ZADD", "taken"))
SPOILT_VALUES: Final = (  # {}: the first word that is there
    *(("claims", "x"), ("unreachable", "x"), ("inflight", "x"), ("inflight", "-3")),
    *(*[("inflight", "{} x 1")] * 3, ("inflight", "{} 9 1")),
)


class Faults:
    """The faults of one world; `heal` ends them all."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = world.rng
        self._reply_loss = world.options.reply_loss
        self.unreachable: set[str] = set()  # destinations

    def inject(self) -> None:
        """One fault of any kind."""
        options = self._world.options
        faults = [
            *(self._kill, self._kill, self._pause, self._pause, self._cut_off, self._terminate),
            *(self._set_clock, self._restart_store, self._cut_off_store, self._fill, self._purge),
            self._trim,
        ]
        if options.loses_destinations:
            faults += [self._lose_destination] * 4
        if options.store == "damaged":
            faults += [self._damage_and_repair] * 6
        self._rng.choice(faults)()

    def loses_reply(self) -> bool:
        """Whether the reply of this call is lost."""
        lost = self._rng.random() < self._reply_loss
        self._world.counts["replies lost"] += lost
        return lost

    def heal(self) -> None:
        """End all faults, and lift all pauses."""
        world = self._world
        self._reply_loss = 0.0
        world.server.full = world.server.cuts = False
        for one in world.replicas:
            one.paused_until = one.cut_until = 0
        self.unreachable.clear()
        # Of all: a store that restarted with older data may have a pause that was lifted since.
        for name in world.options.hosts if world.options.sets_limits else ():
            limits = world.flow.limits.get(name)
            lifted = msgspec.structs.replace(limits, paused=False) if limits else None
            world.callers.set_limit(name, lifted)

    # Destinations.

    def miss_before(self, name: str) -> None:
        """It has been hard to reach for a while."""
        world = self._world
        self.unreachable.add(name)
        for partition, places in enumerate(world.data.places):
            for host in world.options.hosts:
                field = world.flow.missed_before(partition, host, world.store_ms)
                world.server.do("HSET", places["unreachable"], host, field)

    def _lose_destination(self) -> None:
        """Nobody can connect to it any longer, or everybody can again."""
        self._world.counts["unreachable destinations"] += 1
        self.unreachable ^= {self._rng.choice(self._world.options.hosts)}

    # Processes.

    def _kill(self) -> None:
        self._world.counts["crashes"] += 1
        self._world.kill(self._rng.choice(self._world.replicas))

    def _terminate(self) -> None:
        acting = [one for one in self._world.replicas if one.acts]
        if acting:
            self._world.counts["stops"] += 1
            self._rng.choice(acting).stop()

    def _pause(self) -> None:
        self._pause_for(self._rng.choice(PAUSES))

    def _pause_for(self, ms: int) -> None:
        """A process is stopped, and does not notice."""
        self._world.counts["pauses"] += 1
        one = self._any_replica()
        one.paused_until = self._world.now + ms
        one.duties_at = one.paused_until + NEXT_DUTIES
        one.stopped = True
        self._world.excuse(one)

    def _cut_off(self) -> None:
        """A process does not reach the store."""
        self._world.counts["partitions"] += 1
        one = self._any_replica()
        one.cut_until = self._world.now + self._rng.choice(PAUSES)
        self._world.excuse(one)

    def _any_replica(self) -> Replica:
        return self._rng.choice(self._world.replicas)

    # The store.

    def _set_clock(self) -> None:
        world = self._world
        world.counts["clock steps"] += 1
        reach = MAX_WILD_SKEW if world.options.store == "wild_clock" else MAX_SKEW
        world.skew = self._rng.randint(-reach, reach)
        world.set_clock()
        world.flow.clock_moved(world.store_ms)

    def _restart_store(self) -> None:
        """It restarts; a store that is not durable forgets its last writes."""
        world = self._world
        world.counts["store restarts"] += 1
        away = self._rng.choice(ABSENCES)
        if world.checks.images:
            world.server.restore(self._rng.choice(world.checks.images))
        if self._rng.random() < 0.5:
            self._pause_for(away)  # so that one process does not notice
        world.server.cuts = True
        self._lose_store(away)
        world.server.restart()

    def _cut_off_store(self) -> None:
        """No process reaches it."""
        world = self._world
        world.counts["outages"] += 1
        self._lose_store(self._rng.choice(ABSENCES))
        # A process that was stopped, or made no call, did not notice: it may reap at once.
        known = (claimer.since for one in world.replicas for claimer in one.claimers)
        if any(since is not None for since in known):
            for one in world.replicas:
                world.excuse(one)

    def _lose_store(self, ms: int) -> None:
        self._world.server.down = True
        self._world.advance(ms)
        self._world.server.down = False

    def _fill(self) -> None:
        """It has no memory left, or has some again."""
        self._world.server.full = not self._world.server.full

    def _purge(self) -> None:
        """Retention ends for what is old enough."""
        for queue in self._queues("purger"):
            at_once(queue.purge())

    def _trim(self) -> None:
        """It is short of memory: finished messages are removed early."""
        for queue in self._queues("purger"):
            at_once(queue.trim(0))

    def _queues(self, worker: str) -> list[Queue]:
        options = self._world.options
        return self._world.data.queues(worker, options.concurrency, options.retention_ms)

    # Damage by hand.

    def _damage_and_repair(self) -> None:
        """Somebody changes keys by hand; later fsck repairs them."""
        world = self._world
        world.counts["repairs"] += 1
        partition = self._rng.randrange(world.data.partitions)
        world.server.full = False
        self._damage(partition)  # once: a second time could put a message into a finished state
        if self._rng.random() < 0.7:
            self._upkeep(partition)
        at_once(self._repair(partition))

    def _damage(self, partition: int) -> None:
        if self._rng.random() < 0.3:
            self._spoil(partition)
            return
        command, place = self._rng.choice((*REMOVALS, *ADDITIONS))
        adds = (command, place) in ADDITIONS
        world = self._world
        known = list(world.stored_in(partition, "payloads" if adds else place))
        if known:
            score = ["1"] if adds else []
            name = world.data.places[partition][place]
            world.server.do(command, name, *score, self._rng.choice(known))

    def _spoil(self, partition: int) -> None:
        """Give a field a value that it cannot have."""
        place, value = self._rng.choice(SPOILT_VALUES)
        known = self._world.stored_in(partition, place)
        if known:
            name, field = self._world.data.places[partition][place], self._rng.choice(list(known))
            word = known[field].decode().partition(" ")[0]  # of `inflight`, a process with a claim
            self._world.server.do("HSET", name, field, value.format(word))

    def _upkeep(self, partition: int) -> None:
        """No script raises on damaged data, which would end the work of a partition."""
        self._world.advance(self._rng.choice((0, LEASE + NEXT_DUTIES, LEASE + NEXT_DUTIES)))
        queue = self._queues("another")[partition]
        at_once(queue.reap())
        at_once(queue.sweep())
        replica = self._rng.choice(self._world.replicas)
        replica.recovered_alive = True
        at_once(queue.recover(replica.worker_id))

    async def _repair(self, partition: int) -> None:
        options = self._world.options
        fsck = self._world.data.fsck(partition, options.concurrency, options.retention_ms)
        async for finding in fsck.run(repair=True):
            assert finding.repair
