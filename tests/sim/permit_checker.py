"""Checks that the permits which the store counts are those that processes hold.

A permit is the right to have one request open to a destination. The store counts how many each
process has; which message has one is known to the process alone.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from tests.sim.replica import Replica

QUEUED_PER_PERMIT: Final = 3  # of a process, for one destination; see lua/queue/claim.lua

_CLAIM: Final = re.compile(rb"([0-9]+) (\S+) \S+ (\S+) ([01])")
_COUNTS: Final = re.compile(rb"(?<!\S)(\S+) ([0-9]+) ([0-9]+)(?!\S)")

Texts = Mapping[bytes, bytes]


class ClaimText(NamedTuple):
    """A field of `claims`."""

    fence: int
    worker_id: str
    destination: bytes
    permit: bool  # whether the claim got one; it may have been passed on since


def split(claim: bytes) -> ClaimText | None:
    """The parts of a field of `claims`; None if it is damaged."""
    found = _CLAIM.fullmatch(claim)
    return found and ClaimText(int(found[1]), found[2].decode(), found[3], found[4] == b"1")


def counts(text: bytes) -> dict[str, tuple[int, int]]:
    """A field of `inflight`: worker id → its permits and its claims."""
    found = _COUNTS.findall(text)
    return {worker_id.decode(): (int(permits), int(claims)) for worker_id, permits, claims in found}


def in_flight(text: bytes) -> int:
    """The permits of all processes in a field of `inflight`."""
    return sum(permits for permits, _ in counts(text).values())


def objection(
    partition: int, claims: Texts, inflight: Texts, replica: "Replica", *, exact: bool
) -> str | None:
    """What is wrong with the permits of a process.

    Never may more of its messages have one than the store counts; if it lost no lease, there are
    no fewer. `exact`: whether that is checked, too.
    """
    holders = _holders(claims, replica)
    for destination, text in inflight.items():
        counted, _ = counts(text).get(replica.worker_id, (0, 0))
        held = holders.pop(destination, 0)
        line = partition, destination
        if counted < held:
            return f"{held} permits for {destination!r} are held, {counted} are counted"
        if exact and counted > held and line not in replica.lossy:
            return f"{counted} permits for {destination!r} are counted, {held} are held"
        if not counted:
            replica.lossy.discard(line)
    if +holders:
        return f"permits are held, and not counted: {dict(holders)}"
    return None


def _holders(claims: Texts, replica: "Replica") -> Counter[bytes]:
    """Destination → number of the process's claims that have a permit."""
    known = {(one.claimed.id.encode(), one.claimed.fence): one for one in replica.leases}
    given_up = {(one.claimed.id.encode(), one.claimed.fence) for one in replica.given_up}
    holders = Counter[bytes]()
    for message_id, text in claims.items():
        claim = split(text)
        if claim is None or claim.worker_id != replica.worker_id:
            continue
        lease = known.get((message_id, claim.fence))
        if lease:
            holders[claim.destination] += lease.claimed.permit
        elif (message_id, claim.fence) not in given_up:  # the reply of its claim was lost
            holders[claim.destination] += claim.permit
    return holders
