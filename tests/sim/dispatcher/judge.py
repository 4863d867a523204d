"""What receivers saw, and whether it may be: the promises that a dispatcher alone can break."""

from typing import TYPE_CHECKING, Any, Final

from scheduler_api.store.claims import Claimed
from scheduler_api.store.codec.record import to_ms
from scheduler_api.store.replies import ClaimHead, ClaimRow, head_and_rows
from tests.sim.dispatcher.limits import LimitHistory
from tests.sim.dispatcher.queued import Queued
from tests.sim.ledger import Broken

if TYPE_CHECKING:
    from tests.sim.dispatcher.world import SimProcess, World

# Seconds, where nothing fails and slots are plenty: a claim reads again after 0.25 s what the
# other partition's claim left no slot for (lua/queue/claim.lua).
MAX_LATENESS: Final = 0.5
ABORTED_AFTER: Final = 0.5  # seconds after a pause, within which lost requests are aborted
# Seconds after a lower limit or a pause of a destination, within which messages that were leased
# before may still be sent; besides, a message may be leased some time before it is due.
LOWERED_WITHIN: Final = 1.5
LOST_FOR: Final = 12.0  # seconds in which a claim whose reply was lost is repeated


class Message:
    """One message, and what may happen to it."""

    __slots__ = ("answers", "cancelled", "due_ms", "id", "losses", "sends")

    def __init__(self, message_id: str, due_ms: int, answers: tuple[int, ...]) -> None:
        """`answers`: statuses of the 1st, 2nd, … attempt; the last one repeats."""
        self.id = message_id
        self.due_ms = due_ms
        self.answers = answers
        self.cancelled = False
        self.losses = 0  # faults that may have ended a lease of it
        self.sends: list[Send] = []

    def answer(self, attempt: int) -> int:
        """The status of the receiver's answer."""
        return self.answers[min(attempt, len(self.answers)) - 1]


class Send:
    """One request."""

    __slots__ = ("attempt", "began", "destination", "excused", "message_id", "open", "process")

    def __init__(self, process: "SimProcess", claimed: Claimed) -> None:
        self.process = process
        self.began = process.loop.time()
        self.message_id = claimed.id
        self.destination = claimed.destination
        self.attempt = claimed.attempts + 1
        self.open = True
        self.excused = False  # whether a fault may lead to a second request of this attempt

    @property
    def running(self) -> bool:
        """Whether it is open, and its process has had the time to abort it."""
        process = self.process
        resumed = process.loop.time() - process.paused_until
        return self.open and process.acts and resumed > ABORTED_AFTER


class Judge:
    """Of one world. Its methods raise Broken."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.messages: dict[str, Message] = {}
        self.limits = LimitHistory(world)
        self.queued = Queued(world)
        self.sends = 0
        self._open: dict[Send, None] = {}  # on the wire

    def sent(self, process: "SimProcess", claimed: Claimed) -> Send:
        """A request starts."""
        world, message = self._world, self.messages[claimed.id]
        attempt = claimed.attempts + 1
        _require(not message.cancelled, message, "sent after it was deleted")
        due_ms = max(message.due_ms, to_ms(claimed.due_at))
        _require(world.store_ms >= due_ms, message, "early")
        _require(world.holds_lease(process, message.id), message, "sent without a lease")
        _require(claimed.permit, message, "sent without a permit")
        _require(claimed.crashes <= message.losses, message, "counted as crashed, nothing crashed")
        for other in message.sends:
            _require(not other.running, message, "sent while another request of it was open")
            once = other.attempt < attempt or other.excused
            _require(once, message, "sent twice though nothing had failed")
        in_process = sum(it.process is process for it in self._open)
        # A claim whose reply was lost comes back after its slots were given to another partition.
        fits = in_process < world.options.slots or process.link.disturbed
        _require(fits, message, "more open requests than slots")
        late = (world.store_ms - message.due_ms) / 1000
        on_time = late <= MAX_LATENESS or attempt > 1 or not world.options.calm
        _require(on_time, message, f"{late} s late")
        send = Send(process, claimed)
        send.excused = world.outage_is_long or process.link.cut
        message.sends.append(send)
        self.sends += 1
        self._open[send] = None
        self._within_limit(send, message)
        return send

    def ended(self, send: Send, *, reached: bool) -> None:
        """A request is no longer on the wire."""
        send.open = False
        self._open.pop(send, None)
        self.queued.ended(send, reached=reached)

    def gone(self, process: "SimProcess") -> None:
        """A process has ended, and its connections with it."""
        for send in [it for it in self._open if it.process is process]:
            self.ended(send, reached=False)
        self.queued.gone(process)

    def _within_limit(self, started: Send, message: Message) -> None:
        """No more requests are open to a destination than it may have, over all processes."""
        partition = self._world.partition_of(started.message_id)
        open_to_it = sum(
            it.destination == started.destination
            and self._world.partition_of(it.message_id) == partition
            and self._counts(it)
            for it in self._open
        )
        process, world = started.process, self._world
        since = world.loop.time() - world.options.ahead - LOWERED_WITHIN
        # It may hold what it claimed before: suspended, or until a lost claim is repeated.
        if max(process.link.disturbed_at + LOST_FOR, process.paused_until) > since:
            since = 0.0
        limit = self.limits.highest(partition, started.destination, since)
        _require(
            open_to_it <= limit, message, f"one of {open_to_it} open requests, the limit is {limit}"
        )

    def _counts(self, send: Send) -> bool:
        """Not if its process was suspended until its lease ended, and is about to abort it."""
        return send.running or self._world.holds_lease(send.process, send.message_id)

    def excuse(self, process: "SimProcess") -> None:
        """A fault met a process: what it holds may be sent again, and counted as a crash."""
        for message in self.messages.values():
            held = self._world.is_claimed_by(process, message.id)
            message.losses += held
            for send in message.sends:
                send.excused |= send.process is process and (held or send.open)

    def claim_lost(self, reply: list[Any]) -> None:
        """A claim's reply was lost, and its slots may go to another partition until it expires."""
        if self._world.options.partitions > 1:
            for row in head_and_rows(reply, ClaimHead, ClaimRow)[1]:
                self.messages[row.id.decode()].losses += 1

    def excuse_open(self) -> None:
        """A long outage may end every lease, so that requests are aborted and made again."""
        for send in self._open:
            send.excused = True

    def all_known(self, process: "SimProcess") -> None:
        """A process knows what it has leased, so that no message waits for its lease's end."""
        link = process.link
        if link.calls or link.lost_claims or process.stopping or not process.acts:
            return
        leases = process.dispatcher._leases
        known = {lease.claimed.id for lease in (*leases._held.values(), *leases.queued)}
        for claimed in self._world.claimed_by(process) - known:
            _require(False, self.messages[claimed], "leased and forgotten")

    def close(self) -> None:
        """Every message was sent or deleted."""
        for message in self.messages.values():
            _require(bool(message.sends) or message.cancelled, message, "lost: never sent")


def _require(holds: bool, message: Message, promise: str) -> None:
    if not holds:
        raise Broken(f"{promise}: message {message.id}")
