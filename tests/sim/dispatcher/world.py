"""One schedule of the real dispatcher: several processes, one store, faults, then healing.

`delivery/` runs as it is, from the claim loop to the drain, and `store/queue.py` over the shipped
scripts. Replaced are HTTP (a sender that answers as the seed says), the network to the store
(network.py), Redis (../model.py), the clock and the random numbers (virtual_loop.py).
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.delivery.http.sender import AttemptStart, NothingSent, Sender, Sent
from scheduler_api.delivery.timing import AHEAD
from scheduler_api.delivery.upkeep.recovery import _recover
from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.destination import Limits
from scheduler_api.domain.errors import (
    DestinationNotFound,
    MessageFinished,
    MessageInFlight,
    MessageNotFound,
    Unavailable,
)
from scheduler_api.domain.message import Accepted
from scheduler_api.store.claims import Claimed
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.connection.scripts import scripts_of
from scheduler_api.store.keys import FINISHED, partition_of
from scheduler_api.store.messages import new_of
from scheduler_api.store.queue import Queue
from scheduler_api.store.stored_bytes import Growth
from tests.sim.dispatcher.judge import Judge, Message
from tests.sim.dispatcher.network import Channel, Link
from tests.sim.dispatcher.virtual_loop import BEGIN, Process, VirtualLoop, virtual
from tests.sim.ledger import Broken
from tests.sim.model import NOTHING, Content, Server, at_once
from tests.sim.store_on_model import Divided
from tests.support.factories import accepted

if TYPE_CHECKING:
    from scheduler_api.delivery.leases import Lease

START_MS: Final = 1_800_000_000_000  # what the store's clock shows at BEGIN
LEASE: Final = 6.0  # seconds
LONG_OUTAGE: Final = LEASE / 2  # seconds; a longer one may end leases
RECOVERED_AFTER: Final = 1.0  # seconds after the death of a process, on the same machine
AFTER_CLAIM: Final = 0.05  # seconds
MAX_DRAIN: Final = 15.0  # seconds that the drain of a healed world may take
MAX_REST: Final = 1_000.0  # seconds in which a healed world has to come to rest
DAY: Final = timedelta(days=1)

DURATIONS: Final = (0.005, 0.05, 0.05, 0.5, 2.0, 20.0)  # seconds of a request
QUICK: Final = (0.005, 0.02, 0.05)  # the same, of a destination that answers quickly
DELAYS: Final = (
    0,
    0,
    500,
    1_000,
    1_000,
    1_500,
    5_000,
    20_000,
)  # ms from a create until the message is due
GAPS: Final = (0.0, 0.01, 0.5, 2.0, LEASE)  # seconds between two acts
LENGTHS: Final = (0.5, 2.0, LEASE, 3 * LEASE)  # seconds of a pause, a cut or an outage
DELIVERED: Final = (200,)
DROPPED, NOT_REACHED = 0, -1  # instead of a status: without an answer, or without a connection
BURST_ANSWERS: Final = (*(DELIVERED,) * 8, (DROPPED, 200), (NOT_REACHED, 200))
ANSWERS: Final = (*(DELIVERED,) * 8, (500, 200), (503, DROPPED, NOT_REACHED, 204))
BURSTS: Final = (3, 10)  # messages to one destination that are created at one instant
WAVES, WAVE_AFTER = 3, 0.06  # of a burst; seconds between two
WITHIN_BURST: Final = (0.05, 0.1, 0.3, 1.1)  # seconds after their creates
LIMITS: Final = (None, Limits(1), Limits(1), Limits(4), Limits(paused=True))
HOSTS: Final = ("127.0.0.1:2", "127.0.0.1:3")
_TEMPLATES: Final = [
    accepted(webhookUrl=f"http://{host}/", scheduleTo="2027-01-15T08:00:00Z") for host in HOSTS
]


class Options(msgspec.Struct, frozen=True):
    """What is fixed before the first act."""

    partitions: int
    processes: int
    slots: int  # of each process
    concurrency: int  # limit of a destination
    calm: bool  # no faults, and slots for all: then no message is late
    reply_loss: float  # share of the calls of the store
    notification_loss: float
    unsent: float  # share of the attempts for which the machine has no socket
    same_machine: bool  # whether the claims of a process that died are recovered at once
    ahead: float  # seconds before its instant that a message is claimed
    grace: float  # seconds that a process waits for open requests when it is stopped
    acts: int
    sets_limits: bool  # whether callers set limits and pauses of destinations
    quick_hosts: tuple[str, ...]  # destinations that answer quickly at first


def draw(rng: random.Random) -> Options:
    """The options of the seed that `rng` was made with."""
    calm = rng.random() < 0.25
    return Options(
        partitions=rng.choice((1, 1, 2)),
        processes=rng.choice((1, 2, 2, 3)),
        slots=64 if calm else rng.choice((1, 2, 4, 16, 16)),
        concurrency=64 if calm else rng.choice((1, 2, 8)),
        calm=calm,
        reply_loss=0.0 if calm else rng.choice((0.0, 0.0, 0.05, 0.2)),
        notification_loss=0.0 if calm else rng.choice((0.0, 0.5)),
        unsent=0.0 if calm else rng.choice((0.0, 0.0, 0.1)),
        same_machine=rng.random() < 0.5,
        ahead=rng.choice((AHEAD, 2.0)),
        grace=rng.choice((0.0, 3.0)),
        acts=rng.randint(4, 16),
        sets_limits=not calm and rng.random() < 0.4,
        quick_hosts=rng.choice((HOSTS[:0], HOSTS[:1], HOSTS, HOSTS)),
    )


class SimStore:
    """The modelled server; serves many worlds one after another, as it takes long to make."""

    def __init__(self) -> None:
        self.world: World | None = None  # that is under way
        self.server = Server(publish=self._publish)
        self.divided = {number: Divided(self.server, number) for number in (1, 2)}

    def _publish(self, channel: bytes) -> None:
        if self.world:
            self.world.publish(channel)


class InOrder(dict[Any, None]):
    """A set that is iterated in the order in which its members came."""

    def add(self, member: Any) -> None:
        """As a set's."""
        self[member] = None

    def remove(self, member: Any) -> None:
        """As a set's."""
        del self[member]


class SimProcess(Process):
    """One process of the service: its dispatcher and its connection."""

    def __init__(self, world: "World", number: int) -> None:
        super().__init__(world.loop)
        self.world = world
        self.worker_id = f"worker-{number}"
        options, rng = world.options, world.rng
        self.link = Link(world.store.server, self, rng, options.reply_loss)
        self.channel = Channel(self, options.partitions, rng, options.notification_loss)
        self.scripts = scripts_of(self.link.client, world.data.keys)
        self.stopping = False
        self.context.run(self._make)

    def _make(self) -> None:
        options, world = self.world.options, self.world
        lease = timedelta(seconds=LEASE)
        self.queues = [
            Queue(
                partition,
                self.scripts[partition],
                self.channel,
                worker_id=self.worker_id,
                lease=lease,
                limit_share=limit_share,
                keep=dict.fromkeys(FINISHED, DAY),
            )
            for partition, limit_share in enumerate(world.data.shares(options.concurrency))
        ]
        self.dispatcher = Dispatcher(
            self.queues,
            self.channel,
            cast("Sender", SimSender(self)),
            Growth(),
            lambda partition: self.scripts[partition].check_schema(),
            slots=options.slots,
            lease=lease,
        )
        # A set of objects is iterated in the order of their addresses, which no seed decides.
        self.dispatcher._leases.sending = cast("set[Lease]", InOrder())
        self.dispatcher._leases.queued = cast("set[Lease]", InOrder())

    async def run(self) -> None:
        """What a process does until it is requested to stop."""
        self.dispatcher.start()

    async def drain(self) -> None:
        """SIGTERM; then it is gone."""
        await self.dispatcher.drain(timedelta(seconds=self.world.options.grace))
        self.world.drained(self)


class SimSender:
    """Makes no request, but reports each to the judge; answers as the seed decides."""

    def __init__(self, process: SimProcess) -> None:
        self._process = process
        self._world = process.world
        self._rng = process.world.rng

    async def send(self, claimed: Claimed, start: AttemptStart) -> Sent:
        """As the product's Sender."""
        judge = self._world.judge
        try:
            judge.queued.started(self._process, claimed.id)
            if self._rng.random() < self._world.unsent:
                raise NothingSent
            send = judge.sent(self._process, claimed)
        except Broken as error:
            self._world.fail(error)
            raise
        status = NOT_REACHED
        try:
            await asyncio.sleep(self._world.duration(claimed.destination))
            status = judge.messages[claimed.id].answer(send.attempt)
        finally:
            judge.ended(send, reached=status != NOT_REACHED)
        if status > 0:
            return Sent(self._attempt(claimed, start, status, None))
        word = "disconnected" if status == DROPPED else "connect_error"
        return Sent(self._attempt(claimed, start, None, word))

    def cut_off(self, claimed: Claimed, start: AttemptStart) -> Sent:
        """As the product's Sender."""
        return Sent(self._attempt(claimed, start, None, "shutdown"))

    def _attempt(
        self, claimed: Claimed, start: AttemptStart, status: int | None, error: str | None
    ) -> Attempt:
        return Attempt(claimed.attempts + 1, start.at, 5, status, error, None, 0)


class World:
    """The processes, the store, and what happens to them."""

    def __init__(self, store: SimStore, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311
        self.options = draw(self.rng)
        self.store = store
        self.data = store.divided[self.options.partitions]
        self.loop = VirtualLoop()
        self.judge = Judge(self)
        self.counts = Counter[str]()
        self.outage_is_long = False
        self._healed = False  # no more faults
        self.unsent = self.options.unsent
        self._quick = set(self.options.quick_hosts)
        self.processes: list[SimProcess] = []
        self._born = 0
        self._failure: BaseException | None = None
        self._messages = self.data.messages(self.options.concurrency)
        self._destinations = self.data.destinations(self.options.concurrency)

    def run(self) -> None:
        """The whole schedule. Raises: Broken, and any error that the dispatcher does not handle."""
        self.store.server.reset()
        self.store.server.forget_scripts()  # else the first world would differ from the others
        self.store.world = self
        with virtual(self.loop, self.rng, self.options.ahead):
            try:
                self.loop.run_until_complete(self._run())
            finally:
                self.loop.abandon()

    def partition_of(self, message_id: str) -> int:
        """The partition of a message."""
        return partition_of(message_id.encode(), self.options.partitions)

    # What the store holds.

    @property
    def store_ms(self) -> int:
        """The store's clock."""
        return START_MS + int((self.loop.time() - BEGIN) * 1000)

    def stored(self, name: str) -> Content:
        """The content of a key, of all partitions."""
        stored, found = self.store.server.stored(), dict[bytes, Any]()
        for places in self.data.places:
            found |= stored.get(places[name], NOTHING)
        return found

    def is_claimed_by(self, process: SimProcess, message_id: str) -> bool:
        """Whether the message's claim is that of the process."""
        claim = self.stored("claims").get(message_id.encode(), b"")
        return process.worker_id.encode() in claim.split(b" ")

    def claimed_by(self, process: SimProcess) -> set[str]:
        """The ids of its claims."""
        worker_id = process.worker_id.encode()
        claims = self.stored("claims").items()
        return {it.decode() for it, claim in claims if worker_id in claim.split(b" ")}

    def holds_lease(self, process: SimProcess, message_id: str) -> bool:
        """The same, and its lease has not expired."""
        end = int(self.stored("leases").get(message_id.encode(), 0))
        return self.is_claimed_by(process, message_id) and self.store_ms < end

    def show_clock(self) -> None:
        """Before each call of the store."""
        self.store.server.now_us = START_MS * 1000 + int((self.loop.time() - BEGIN) * 1e6)

    def publish(self, channel: bytes) -> None:
        """The store publishes to all processes."""
        partition = [keys.wakeup.encode() for keys in self.data.keys].index(channel)
        for process in self.processes:
            process.channel.publish(partition)

    # The two phases.

    async def _run(self) -> None:
        for _ in range(self.options.processes):
            self._start()
        for _ in range(self.options.acts):
            self._act()
            await self._sleep(self.rng.choice(GAPS))
        await self._heal()
        await self._deliver_everything()
        await self._stop_all()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._raise()
        for process in self.processes:
            self.judge.all_known(process)
            self.judge.queued.check(process)

    def _raise(self) -> None:
        if self._failure:
            raise self._failure

    def _act(self) -> None:
        acts = [self._create] * 4 + [self._cancel]
        if not self.options.calm:
            acts += [self._kill, self._pause, self._cut_off, self._lose_store, self._terminate]
            acts += [self._kill_at_claim, self._pause_at_claim, self._terminate_after_claim]
            acts += [self._create_burst, self._strike_burst, self._strike_burst, self._change_pace]
        if self.options.sets_limits:
            acts += [self._set_any_limit] * 2 + [self._limit_burst] * 3
        self.rng.choice(acts)()

    async def _heal(self) -> None:
        self.unsent, self._healed = 0.0, True
        self.outage_is_long = self.store.server.down = False
        if not self.options.calm:  # else what a burst has left would take hours
            self._quick = set(HOSTS)
        for host in HOSTS if self.options.sets_limits else ():
            self._set_limit(host, None)
        for process in self.processes:
            process.link.reply_loss = process.channel.loss = 0.0
            process.link.at_claim = None
        longest = max((it.paused_until for it in self.processes), default=0.0)
        cuts = max((it.link.cut_until for it in self.processes), default=0.0)
        await self._sleep(max(0.0, longest - self.loop.time(), cuts - self.loop.time()))

    async def _deliver_everything(self) -> None:
        until = self.loop.time() + MAX_REST
        while self.stored("due") or self.stored("taken"):
            if self.loop.time() > until:
                raise Broken("not all is sent, although all is healed")
            await self._sleep(1.0)
        self.judge.close()

    async def _stop_all(self) -> None:
        for process in list(self.processes):
            self._stop(process)
        await self._sleep(MAX_DRAIN)
        if self.processes:
            raise Broken("a process does not end, although it has nothing left to do")
        left = [name for name in ("claims", "leases") if self.stored(name)]
        if left:
            raise Broken(f"all processes have ended, and left {left}")

    # Acts.

    def _start(self) -> None:
        self._born += 1
        process = SimProcess(self, self._born)
        self.processes.append(process)
        self.watch(process.create_task(process.run()))

    def watch(self, task: asyncio.Task[None]) -> None:
        """An error of it is the world's."""
        task.add_done_callback(self._note)

    def _note(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception():
            self.fail(task.exception())

    def fail(self, error: BaseException | None) -> None:
        """Keep the first error, to be raised by the caller that runs the world."""
        self._failure = self._failure or error

    def _create(self) -> None:
        if self.store.server.down:
            return
        for _ in range(self.rng.choice((1, 1, 2, 6))):
            delay, base = self.rng.choice(DELAYS), self.rng.choice(_TEMPLATES)
            self._create_one(delay, base, self.rng.choice(ANSWERS))

    def _create_burst(self) -> None:
        """Many messages to one destination, some when the first ones are being sent."""
        delay, base = self.rng.choice(DELAYS), self.rng.choice(_TEMPLATES)
        for wave in range(WAVES):
            create = partial(self._create_wave, self.rng.randint(*BURSTS), delay, base)
            self.loop.call_later(wave * WAVE_AFTER, create)

    def _create_wave(self, count: int, delay: int, base: Accepted) -> None:
        if not (self.store.server.down or self._healed):
            for _ in range(count):
                self._create_one(delay, base, self.rng.choice(BURST_ANSWERS))

    def _strike_burst(self) -> None:
        """Let something go wrong while many messages are sent."""
        self._create_burst()
        faults = [self._kill, self._pause, self._cut_off, self._lose_store]
        faults += [self._terminate, self._terminate, self._change_pace]
        self.loop.call_later(
            self.rng.choice(WITHIN_BURST), self._fail_once, self.rng.choice(faults)
        )

    def _fail_once(self, fault: Callable[[], None]) -> None:
        if not self._healed:
            fault()

    def _create_one(self, delay: int, base: Accepted, answers: tuple[int, ...]) -> None:
        message_id = f"m{len(self.judge.messages)}"
        due_ms = self.store_ms + delay
        asked = Accepted(None, base.url, from_ms(due_ms), base.spec)
        self.judge.messages[message_id] = Message(message_id, due_ms, answers)
        new = [new_of(message_id.encode(), asked)]
        self.show_clock()
        at_once(self._messages._create(self.partition_of(message_id), new))

    def _set_any_limit(self) -> None:
        if not (self.store.server.down or self._healed):
            self._set_limit(self.rng.choice(HOSTS), self.rng.choice(LIMITS))

    def _limit_burst(self) -> None:
        """Set a limit while many messages are sent."""
        self._create_burst()
        self.loop.call_later(self.rng.choice(WITHIN_BURST), self._set_any_limit)

    def _set_limit(self, host: str, limits: Limits | None) -> None:
        self.show_clock()
        with suppress(DestinationNotFound):
            at_once(self._destinations.set_limit(host, limits))
        self.judge.limits.set(host.encode(), limits)

    def _change_pace(self) -> None:
        """A destination answers quickly from now on, or no longer."""
        self._quick ^= {self.rng.choice(HOSTS)}

    def duration(self, destination: bytes) -> float:
        """Seconds that a request to it takes."""
        return self.rng.choice(QUICK if destination.decode() in self._quick else DURATIONS)

    def _cancel(self) -> None:
        if self.judge.messages and not self.store.server.down:
            message = self.rng.choice(list(self.judge.messages.values()))
            self.show_clock()
            try:
                at_once(self._messages.cancel(message.id))
            except (MessageFinished, MessageInFlight, MessageNotFound):
                return
            message.cancelled = True

    def _any(self) -> SimProcess | None:
        acting = [it for it in self.processes if it.acts and not it.stopping]
        return self.rng.choice(acting) if acting else None

    def _kill_at_claim(self) -> None:
        """Between a claim and its reply."""
        if process := self._any():
            process.link.at_claim = partial(self._kill, process)

    def _pause_at_claim(self) -> None:
        """Between a claim and its reply."""
        if process := self._any():
            process.link.at_claim = partial(self._pause, process)

    def _terminate_after_claim(self) -> None:
        """When the messages of a claim are open, or wait for their instant."""
        if process := self._any():
            stop, context = partial(self._terminate, process), copy_context()
            process.link.at_claim = partial(
                self.loop.call_later, AFTER_CLAIM, stop, context=context
            )

    def _kill(self, this: SimProcess | None = None) -> None:
        process = this or self._any()
        if process and not process.stopping:
            self.counts["kills"] += 1
            self.judge.excuse(process)
            self._gone(process)
            process.dead = True
            self._start()
            if self.options.same_machine:
                other = self.processes[-1]
                other.create_task(self._recover(other, process.worker_id))

    async def _recover(self, process: SimProcess, worker_id: str) -> None:
        await asyncio.sleep(RECOVERED_AFTER)
        for queue in process.queues:
            try:
                await _recover(queue, worker_id)
            except Unavailable:
                return

    def _pause(self, this: SimProcess | None = None) -> None:
        if process := this or self._any():
            self.counts["pauses"] += 1
            self.judge.excuse(process)
            process.pause(self.rng.choice(LENGTHS))

    def _cut_off(self) -> None:
        if process := self._any():
            self.counts["cuts"] += 1
            self.judge.excuse(process)
            process.link.cut_until = self.loop.time() + self.rng.choice(LENGTHS)
            process.link.disturb()

    def _lose_store(self) -> None:
        if self.store.server.down:
            return
        self.counts["outages"] += 1
        seconds = self.rng.choice(LENGTHS)
        self.store.server.down = True
        for process in self.processes:
            process.link.disturb(seconds)
        self.outage_is_long = seconds > LONG_OUTAGE
        if self.outage_is_long:
            self.judge.excuse_open()
        self.loop.call_later(seconds, self._find_store)

    def _find_store(self) -> None:
        self.store.server.down = self.outage_is_long = False

    def _terminate(self, this: SimProcess | None = None) -> None:
        process = this or self._any()
        if process and process.acts and not process.stopping:
            self.counts["stops"] += 1
            self._stop(process)
            self._start()

    def _stop(self, process: SimProcess) -> None:
        process.stopping = True
        self.watch(process.create_task(process.drain()))

    def drained(self, process: SimProcess) -> None:
        """A process was stopped, and its drain has returned."""
        held = self.claimed_by(process)
        registered = process.worker_id.encode() in self.stored("workers")
        if not process.link.disturbed and (held or registered):
            raise Broken(f"a process has ended, holds {held} and is registered: {registered}")
        self.judge.excuse(process)
        self._gone(process)
        process.dead = True

    def _gone(self, process: SimProcess) -> None:
        self.judge.gone(process)
        self.processes.remove(process)
