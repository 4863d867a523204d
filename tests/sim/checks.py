"""What is checked while a schedule runs: the store's invariants, and every claim's result.

Promises to callers and receivers are checked by ledger.py, limits of destinations by
destination_checker.py, their permits by permit_checker.py, the sharing of slots by
share_checker.py.
"""

from collections import deque
from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Any, Final

from scheduler_api.store.audit.invariants import Snapshot, findings
from scheduler_api.store.claims import Claim, Share
from scheduler_api.store.keys import FINISHED
from tests.sim.destination_checker import new_claims
from tests.sim.ledger import Broken
from tests.sim.model import NOTHING, Content
from tests.sim.permit_checker import in_flight, objection

if TYPE_CHECKING:
    from tests.sim.replica import Replica
    from tests.sim.world import World

MAX_RECHECK: Final = 0.25  # seconds; see lua/queue/claim.lua
IMAGES: Final = 6  # checks back to which a store that is not durable may fall


class Checks:
    """The checks of one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._checked = -1  # changes of the store that the last check saw
        self.images: deque[Any] = deque(maxlen=IMAGES)  # of a store that loses its last writes

    def require(self, holds: bool, promise: str) -> None:
        """Raises: Broken, unless the world itself broke what the promise rests on."""
        if not holds and self._world.options.strict:
            raise Broken(promise)

    def invariants(self) -> None:
        """The invariants hold in every partition. Raises: Broken."""
        world = self._world
        if world.server.changes == self._checked:
            return
        self._checked = world.server.changes
        for partition, limit in enumerate(world.data.shares(world.options.concurrency)):
            found = findings(self._snapshot(partition), limit)
            if found:
                raise Broken(str(found[0]))
            self._permits(partition)
        if world.options.store == "loses_tail":
            self.images.append(world.server.image())

    def _permits(self, partition: int) -> None:
        """Each process has the permits that are counted for it."""
        world = self._world
        if world.options.store == "loses_tail":
            return
        claims = world.stored_in(partition, "claims")
        inflight = world.stored_in(partition, "inflight")
        for one in world.replicas:
            if one.recovered_alive:
                continue
            found = objection(partition, claims, inflight, one, exact=world.options.strict)
            if found:
                raise Broken(found)

    def _snapshot(self, partition: int) -> Snapshot:
        stored, places = self._world.server.stored(), self._world.data.places[partition]

        def of(name: str) -> Content:
            return stored.get(places[name], NOTHING)

        return Snapshot(
            due=of("due").keys(),
            taken=of("taken").keys(),
            leases=of("leases").keys(),
            finished={state: of(state).keys() for state in FINISHED},
            parked=self._parked(partition),
            claims=of("claims"),
            inflight=of("inflight"),
            payloads=of("payloads"),
            progress=of("progress").keys(),
            parking=of("parking").keys(),
            limits=of("limits"),
            unreachable=of("unreachable"),
            opens=of("opens").keys(),
            withheld=of("withheld").keys() if b"withheld" in of("meta") else frozenset(),
        )

    def within_limits(self, partition: int, share: Share, claim: Callable[[], Claim]) -> Claim:
        """Make a claim: it keeps to the destinations' limits, also if its reply is lost."""
        world = self._world
        before = world.stored_in(partition, "claims")
        try:
            return claim()
        finally:
            after = world.stored_in(partition, "claims")
            if after is not before and world.options.strict:
                now, latest = world.store_ms, world.ledger.latest
                new, inflight = new_claims(before, after), world.stored_in(partition, "inflight")
                waiting = dict(zip(share.lines[::2], share.lines[1::2], strict=True))
                found = world.flow.objection(partition, new, inflight, waiting, now, latest)
                if found:
                    raise Broken(found)

    def settles(self, partition: int, settle: Callable[[], list[bool]]) -> list[bool]:
        """Settle: it puts nothing back into `due` that its destination's limit holds up."""
        world = self._world
        before = self._parked(partition)
        done = settle()
        if not before:
            return done
        after, inflight = self._parked(partition), world.stored_in(partition, "inflight")
        for name, ids in before.items():
            if ids - after.get(name, frozenset()):
                open_ = in_flight(inflight.get(name, b""))
                may = world.flow.may_unpark(partition, name.decode(), open_)
                self.require(may, f"an outcome unparked messages of {name!r} beyond its limit")
        return done

    def _parked(self, partition: int) -> dict[bytes, Set[bytes]]:
        """Destination → its parked messages."""
        stored, prefix = self._world.server.stored(), self._world.data.places[partition]["parked:"]
        return {
            key.removeprefix(prefix): content.keys()
            for key, content in stored.items()
            if key.startswith(prefix)
        }

    def all_known(self, replica: "Replica", partition: int) -> None:
        """A process knows every claim under its id, so none has to wait for its lease's end."""
        known = {lease.claimed.id for lease in (*replica.leases, *replica.given_up)}
        worker_id = replica.worker_id.encode()
        for message_id, claim in self._world.stored_in(partition, "claims").items():
            ours = worker_id in claim.split(b" ") and message_id.decode() not in known
            self.require(not ours, f"the claim of {message_id!r} is not known to who made it")

    def nothing_due(self, partition: int, more_is_due: bool) -> None:
        """A claim that brought fewer messages than it might have left none that is due.

        `more_is_due`: what it said of itself; then a rate or a probe may have held some back.
        """
        options = self._world.options
        if more_is_due and (options.sets_limits or options.loses_destinations):
            return
        scores = self._world.stored_in(partition, "due").values()
        if min(scores, default=self._world.store_ms + 1) <= self._world.store_ms:
            raise Broken("a claim has left messages that are due")

    def looks_again(self, partition: int, due_in: float | None) -> None:
        """A claim returns when to claim again what it had no slot for."""
        late = due_in is None or due_in > MAX_RECHECK
        withheld = late and self._world.stored_in(partition, "withheld")
        self.require(not withheld, "no claim is planned for what waits for a slot")
