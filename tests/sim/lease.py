"""One claim of a simulated process, and what happened to it."""

from typing import TYPE_CHECKING, Final

from scheduler_api.delivery.timing import MARGIN_SHARE
from scheduler_api.store.claims import Claimed, Outcome
from tests.sim.ledger import Offer

if TYPE_CHECKING:
    from tests.sim.replica import Claimer, Replica

LEASE: Final = 15_000  # ms

Line = tuple[int, bytes]  # a partition and a destination: where messages wait for a permit


class Lease:
    """One claim, as in delivery/leases.py, and what happened to it."""

    __slots__ = (
        *("answered", "claimed", "claimed_ms", "claimer", "ends_ms", "excused", "exposed"),
        *("keeps", "offer", "outcome", "passes", "replica", "returns", "sending", "settled"),
        *("started", "took", "until_ms"),
    )

    def __init__(
        self, replica: "Replica", claimer: "Claimer", claimed: Claimed, offer: Offer, began_ms: int
    ) -> None:
        self.replica = replica
        self.claimer = claimer
        self.claimed = claimed
        self.offer = offer
        self.ends_ms = began_ms + LEASE  # by the process's own clock
        self.until_ms = replica.world.lease_end(claimed.id)  # by the store's
        waits = not claimed.permit and replica.world.rules.waits_for_permit
        self.sending = not waits  # the request is to be made, or open
        self.claimed_ms = replica.world.now  # by the process's own clock
        self.returns = False  # whether it is to be given back, as it got no permit
        self.started = False
        self.answered = False
        self.passes = 0  # how often its permit was passed on
        self.keeps = False  # whether its outcome and its permit wait for the reply to a claim
        self.took = False  # whether the receiver has seen the request
        self.settled = False  # whether the store has taken the outcome
        self.excused = False  # whether its process was paused or cut off since
        self.exposed = False  # whether the ledger counts it as open at a fault
        self.outcome: Outcome | None = None

    @property
    def line(self) -> Line:
        """Where it may wait for a permit: its partition and its destination."""
        return self.claimer.partition, self.claimed.destination

    @property
    def waits(self) -> bool:
        """Whether it waits for a permit."""
        return not (self.sending or self.answered or self.returns)

    @property
    def usable(self) -> bool:
        """Whether a request may start under it, or pass its permit on."""
        return self.replica.world.now < self.ends_ms - MARGIN_SHARE * LEASE

    @property
    def open(self) -> bool:
        """Whether its request is open."""
        return self.sending and self.started
