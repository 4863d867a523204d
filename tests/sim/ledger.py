"""What callers were answered, what receivers saw, what the store did; checks the promises.

It knows what really happened, also in calls whose reply was lost. A broken promise raises Broken.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from scheduler_api.domain.attempt import reached
from scheduler_api.domain.message import Accepted, State
from scheduler_api.domain.retry import MAX_ATTEMPTS, Delivered, Retry
from scheduler_api.domain.url import destination_name
from scheduler_api.store.claims import Claimed, Outcome
from scheduler_api.store.queue import MAX_CRASHES
from tests.sim.destination_checker import Flow

if TYPE_CHECKING:
    from tests.sim.lease import Lease

GONE: Final = 410  # the answer after which nothing more is sent


class Broken(AssertionError):
    """A promise was broken; the text names it and the message."""


REPEAT_WITHIN: Final = 120_000  # ms, as in create.lua


class Offer:
    """A message that a caller asked for; its payload is its number."""

    __slots__ = (
        *("accepted", "answers", "cancelled", "deadly", "ended", "holder", "message_id"),
        *(
            "created_ms",
            "not_before",
            "number",
            "reaps",
            "retries",
            "sends",
            "stored",
            "acknowledged",
        ),
    )

    def __init__(
        self, number: int, message_id: str, accepted: Accepted, answers: tuple[int, ...]
    ) -> None:
        """`answers`: statuses of the 1st, 2nd, … attempt, 0 for a crash; the last one repeats."""
        self.number = number
        self.message_id = message_id
        self.accepted = accepted
        self.answers = answers
        self.acknowledged = False  # whether the caller got a 201
        self.stored = False  # whether the store ever had it
        self.begin(0, 0)
        self.stored = False

    def begin(self, scheduled_ms: int, created_ms: int) -> None:
        """The store has it as a new message."""
        self.stored = True
        self.created_ms = created_ms  # by the store's clock
        self.cancelled = False
        self.ended: State | None = None
        self.not_before = scheduled_ms  # ms, by the store's clock: no attempt starts earlier
        self.retries = 0  # attempts that were settled
        self.reaps = 0  # leases that expired
        self.sends: list[Lease] = []  # requests whose outcome is not settled
        self.holder: Lease | None = None  # lease of the last claim

    @property
    def destination(self) -> str:
        """The name of its destination."""
        return destination_name(self.accepted.url.authority)

    @property
    def pending(self) -> bool:
        """Whether it must still be sent."""
        return self.stored and not self.cancelled and self.ended is None

    def is_new_again(self, store_ms: int) -> bool:
        """Whether an identical request is a new message, if this one has finished."""
        return self.accepted.due_at is None and store_ms - self.created_ms > REPEAT_WITHIN

    def answer(self, attempt: int) -> int:
        """The status of the receiver's answer; 0: the process dies of it."""
        return self.answers[min(attempt, len(self.answers)) - 1]


class Ledger:
    """The record of one world."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.strict = True  # False: the world breaks what the promises rest on
        self.offers: list[Offer] = []
        self.stored: dict[str, Offer] = {}  # id → the offer that the store holds
        self.latest = 0  # ms, the latest that the store's clock has shown
        self.sends = 0
        self.repeats = 0  # requests for an attempt that a receiver had already seen
        self.exposed = 0  # requests that a fault left open: each may be repeated

    def clock(self, ms: int) -> None:
        """The store's clock has shown `ms`."""
        self.latest = max(self.latest, ms)

    def require(self, holds: bool, offer: Offer, promise: str) -> None:
        """Raises Broken, unless the world itself broke what the promise rests on."""
        if not holds and self.strict:
            raise Broken(f"{promise}: message {offer.message_id!r}, offer {offer.number}")

    # Callers.

    def created(self, offer: Offer, scheduled_ms: int, created_ms: int) -> None:
        """The store wrote the message."""
        before = self.stored.get(offer.message_id)
        if before:
            self.require(not before.pending, before, "lost: overwritten while pending")
        self.stored[offer.message_id] = offer
        offer.begin(scheduled_ms, created_ms)

    def asked_again(self, offer: Offer) -> Offer:
        """A new message of the same request; what is still under way belongs to the first."""
        again = Offer(offer.number, offer.message_id, offer.accepted, offer.answers)
        self.offers[offer.number] = again
        return again

    def refused(self, offer: Offer, store_ms: int) -> None:
        """The store answered that the id is taken."""
        known = self.stored.get(offer.message_id)
        self.require(known is not None, offer, "refused as a duplicate of nothing")
        if known is offer and offer.ended:
            is_repeat = not offer.is_new_again(store_ms)
            self.require(is_repeat, offer, "refused as a repeat though its time is over")

    def cancelled(self, message_id: str) -> None:
        """The store removed the message with the id."""
        offer = self.stored.pop(message_id)
        self.require(offer.pending, offer, "cancelled though it had ended")
        offer.cancelled = True

    def pending(self, message_id: str) -> bool:
        """Whether the store must hold a message with the id that is still to be sent."""
        offer = self.stored.get(message_id)
        return offer is not None and offer.pending

    # Replicas.

    def claimed(self, lease: "Lease") -> None:
        """A process got the message by a claim."""
        offer, claimed = lease.offer, lease.claimed
        self.require(claimed.attempts == offer.retries, offer, "its attempts were miscounted")
        self.require(claimed.crashes == offer.reaps, offer, "its crashes were miscounted")
        self.require(claimed.attempts < MAX_ATTEMPTS, offer, "more attempts than there may be")
        holder = offer.holder
        if holder:
            newer = holder.claimed.fence < claimed.fence
            self.require(newer, offer, "claimed while another held it, or with an older fence")
        offer.holder = lease

    def offer_of(self, claimed: Claimed) -> Offer:
        """The offer of a claimed message, by its payload."""
        return self.offers[int(claimed.spec.body or b"")]

    def sent(self, lease: "Lease", store_ms: int) -> None:
        """A request starts."""
        offer = lease.offer
        self.require(not offer.cancelled, offer, "ghost: sent after it was deleted")
        self.require(offer.stored, offer, "ghost: sent though it was never offered")
        self.require(offer.ended is None, offer, "sent again after its end")
        self.require(self.latest >= offer.not_before, offer, "early")
        self.require(store_ms < lease.until_ms, offer, "started after the end of its lease")
        self.require(lease.claimed.permit, offer, "sent without a permit")
        for other in offer.sends:
            self._may_repeat(other)
        open_to_it = sum(self._is_open_to(one, offer) for one in lease.replica.world.open())
        most = self.flow.ever(offer.destination)
        self.require(open_to_it < most, offer, "its destination is over its limit")
        self.sends += 1
        self.repeats += any(other.took for other in offer.sends)
        offer.sends.append(lease)

    def expose(self, lease: "Lease") -> None:
        """A fault met its process, or it gave the lease up: the request may be repeated."""
        if lease.started and not lease.settled and not lease.exposed:
            lease.exposed = True
            self.exposed += 1

    def _may_repeat(self, other: "Lease") -> None:
        ran_out = other.until_ms <= self.latest
        self.require(ran_out, other.offer, "sent twice: another process holds it")
        if other.answered:
            self.require(other.excused, other.offer, "sent twice though nothing had happened")

    def _is_open_to(self, lease: "Lease", offer: Offer) -> bool:
        return lease.offer.destination == offer.destination and lease.until_ms > self.latest

    def settled(self, lease: "Lease", outcome: Outcome, taken: bool, now_ms: int) -> None:
        """The store answered `taken` to an outcome."""
        offer = lease.offer
        if lease.settled:
            self.require(not taken, offer, "settled twice")
            return
        if not taken:
            self.require(lease.excused, offer, "its outcome was refused though it was held")
            return
        lease.settled = True
        attempt = outcome.attempt
        was_reached = reached(attempt.status, attempt.error)
        self.flow.reached(lease.claimer.partition, offer.destination, was_reached, now_ms)
        self.require(offer.holder is lease, offer, "settled by one that no longer held it")
        offer.sends.clear()
        offer.retries += 1
        if isinstance(outcome.decision, Retry):
            offer.not_before = now_ms + outcome.decision.delay // timedelta(milliseconds=1)
        else:
            offer.ended = "delivered" if isinstance(outcome.decision, Delivered) else "failed"

    def taken_back(self, message_id: str, store_ms: int, failed: bool) -> None:
        """A claim was reaped, or recovered from a dead process."""
        offer = self.stored[message_id]
        offer.reaps += 1
        holder = offer.holder
        if holder and holder.replica.dead:
            holder.until_ms = 0
        elif holder and not holder.settled:
            self.require(holder.until_ms <= store_ms, offer, "reaped before its lease's end")
        spent = offer.reaps >= MAX_CRASHES
        self.require(failed is spent, offer, "given up too early or too late")
        if failed:
            offer.ended = "failed"

    # The end.

    def close(self) -> None:
        """Every message that was answered 201 or written was sent, deleted, or failed."""
        for offer in self.offers:
            if offer.acknowledged and not offer.stored:
                raise Broken(f"lost: offer {offer.number} was answered 201 and never written")
            if offer.pending and self.stored.get(offer.message_id) is offer:
                raise Broken(f"lost: {offer.message_id!r}, offer {offer.number}, never ended")
