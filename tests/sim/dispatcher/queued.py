"""Messages that wait in a process for a permit: in which order they are sent, and how soon."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from scheduler_api.delivery.timing import MAX_QUEUED, QUICK_REQUEST
from scheduler_api.store.codec.record import destination_of
from scheduler_api.store.replies import ClaimHead, ClaimRow, head_and_rows
from tests.sim.ledger import Broken

if TYPE_CHECKING:
    from tests.sim.dispatcher.judge import Send
    from tests.sim.dispatcher.world import SimProcess, World

LATE: Final = 0.1  # seconds by which timers and calls may be late


class Waiting(NamedTuple):
    """A message without a permit."""

    line: tuple[bytes, bytes]  # a key of its partition, and its destination
    since: float  # monotonic seconds, when the process got it
    due_at: float  # monotonic seconds


class Instant:
    """The last instant at which requests of a process to a destination ended."""

    __slots__ = ("at", "quick", "slow", "started")

    def __init__(self, at: float) -> None:
        self.at = at  # monotonic seconds
        self.quick = 0  # requests that reached the destination and ended soon
        self.slow = 0  # other requests that ended
        self.started = 0  # messages that had waited for a permit


class Queued:
    """Those of one world. Its methods raise Broken."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._waiting: dict[SimProcess, dict[str, Waiting]] = {}  # the first one first
        self._instants: dict[tuple[SimProcess, bytes], Instant] = {}

    def claimed(self, process: "SimProcess", partition: bytes, reply: list[Any]) -> None:
        """A process got the reply to its claim."""
        now, waiting = self._world.loop.time(), self._waiting.setdefault(process, {})
        for row in head_and_rows(reply, ClaimHead, ClaimRow)[1]:
            if not row.permit:
                line = partition, destination_of(row.record)
                due_at = now + (row.due - self._world.store_ms) / 1000
                waiting[row.id.decode()] = Waiting(line, now, due_at)

    def released(self, process: "SimProcess", ids: Sequence[bytes]) -> None:
        """A process gives messages back, if the store answers; otherwise it repeats the call."""
        for message_id in ids:
            self._waiting.get(process, {}).pop(message_id.decode(), None)

    def gone(self, process: "SimProcess") -> None:
        """A process has ended."""
        self._waiting.pop(process, None)

    def ended(self, send: "Send", *, reached: bool) -> None:
        """A request is no longer open."""
        now, where = self._world.loop.time(), (send.process, send.destination)
        instant = self._instants.get(where)
        if instant is None or instant.at < now:
            instant = self._instants[where] = Instant(now)
        if reached and now - send.began < QUICK_REQUEST:
            instant.quick += 1
        else:
            instant.slow += 1

    def started(self, process: "SimProcess", message_id: str) -> None:
        """A message is sent: the first of its line, behind a quick request."""
        waiting = self._waiting.get(process, {})
        one = waiting.pop(message_id, None)
        if one is None:
            return
        now = self._world.loop.time()
        for other_id, other in waiting.items():
            if other.line == one.line and other.since < one.since and other.due_at < now - LATE:
                raise Broken(f"message {message_id} was sent before {other_id}, which came first")
        instant = self._instants.get((process, one.line[1]))
        if instant and instant.at == now:
            instant.started += 1
            if instant.slow and instant.started > instant.quick:
                raise Broken(f"message {message_id} was sent behind a request that was slow")

    def check(self, process: "SimProcess") -> None:
        """None waits for long."""
        if not process.acts:
            return
        now = self._world.loop.time()
        for message_id, one in self._waiting.get(process, {}).items():
            waited = now - max(one.since, one.due_at, process.paused_until)
            if waited > MAX_QUEUED + LATE:
                raise Broken(f"message {message_id} waits for a permit since {waited} s")
