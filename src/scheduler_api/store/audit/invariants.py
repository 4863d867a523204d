"""The invariants that hold between any two script calls, as rules over a snapshot of the keys.

Pure: the snapshot may be of a running store or of a model. One snapshot can show a breach of the
invariants 1–4, 6, 7 and 18 of the design. 5 is about a claim: a limit may since have been set below
the number in flight.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from typing import Final, Literal, NamedTuple

import msgspec

from scheduler_api.store.codec.record import destination_of

Rule = Literal[
    "one_place",
    "no_record",
    "no_place",
    "progress_alone",
    "lease_without_claim",
    "claim_without_lease",
    "taken",
    "inflight",
    "stranded",
    "parked_empty",
    "parking",
    "stranger",
]

# Rule → its number in the design; `taken` is part of the first: it has the messages out of `due`.
NUMBERS: Final[Mapping[Rule, int]] = {
    "one_place": 1,
    "taken": 1,
    "no_record": 2,
    "no_place": 2,
    "lease_without_claim": 3,
    "claim_without_lease": 3,
    "inflight": 4,
    "stranded": 6,
    "parked_empty": 7,
    "parking": 7,
    "progress_alone": 18,
    "stranger": 18,
}

BREAKS_AT: Final = 5  # failures to connect in a row, as in lua/lib/flow.lua

# The fields, as the scripts read them.
_CLAIM: Final = re.compile(rb"[0-9]+ (\S+) \S+ (\S+)")
_COUNTS: Final = re.compile(rb"(\S+) ([0-9]{1,20}) ([0-9]{1,20})(?![0-9])")
_LIMITS: Final = re.compile(rb"([0-9]+) [0-9.e+-]+ ([0-9])")
_UNREACHABLE: Final = re.compile(rb"([0-9]+) ([0-9]+)$")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one partition at one instant: whole, or everything that they have on some ids."""

    due: Set[bytes]
    taken: Set[bytes]
    leases: Set[bytes]
    finished: Mapping[str, Set[bytes]]  # finished state → ids
    parked: Mapping[bytes, Set[bytes]]  # destination → ids
    claims: Mapping[bytes, bytes]
    inflight: Mapping[bytes, bytes]
    payloads: Mapping[bytes, bytes]  # id → record, or as much of it as ends after its URL
    progress: Set[bytes]
    parking: Set[bytes] = frozenset()  # destinations
    limits: Mapping[bytes, bytes] = {}
    unreachable: Mapping[bytes, bytes] = {}
    opens: Set[bytes] = frozenset()  # destinations
    withheld: Set[bytes] = frozenset()  # destinations; empty if `meta` does not say that it exists
    strangers: Set[bytes] = frozenset()  # other keys with the prefix of the partition


class Finding(msgspec.Struct, frozen=True, order=True):
    """An invariant that does not hold."""

    rule: Rule
    subject: bytes  # an id; for inflight, stranded, parked_empty, parking a destination; or a key
    detail: str  # in words
    repair: str | None = None  # what was done about it, in words; None: nothing

    def __str__(self) -> str:
        return f"{NUMBERS[self.rule]} {self.rule}: {self.subject!r} {self.detail}"


def findings(snapshot: Snapshot, limit_share: int) -> list[Finding]:
    """Everything wrong in a whole snapshot; `limit_share`: see Queue."""
    return [
        *of_messages(snapshot),
        *of_destinations(snapshot, limit_share),
        *(Finding("stranger", key, "is not a key of this service") for key in snapshot.strangers),
    ]


def of_messages(snapshot: Snapshot) -> Iterator[Finding]:
    """What is wrong with single messages; the snapshot may be of some ids only."""
    places = _places(snapshot)
    everywhere = set[bytes]().union(*places.values())
    if len(everywhere) < sum(map(len, places.values())):
        yield from _in_several(places)
    records = snapshot.payloads.keys()
    claimed = {one for one, claim in snapshot.claims.items() if destination_claimed(claim)}
    rules: tuple[tuple[Rule, Set[bytes], str], ...] = (
        ("no_record", everywhere - records, "is in a place, but has no record"),
        ("no_place", records - everywhere, "has a record, but is in no place"),
        ("progress_alone", snapshot.progress - records, "has a progress, but no record"),
        ("lease_without_claim", snapshot.leases - claimed, "is leased, but not claimed"),
        (
            "claim_without_lease",
            snapshot.claims.keys() - snapshot.leases,
            "is claimed, but not leased",
        ),
        (
            "taken",
            snapshot.taken ^ _out_of_due(snapshot),
            "is leased or parked, and not in `taken`; or the reverse",
        ),
    )
    for rule, wrong, detail in rules:
        for message_id in wrong:
            yield Finding(rule, message_id, detail)


def _places(snapshot: Snapshot) -> dict[str, Set[bytes]]:
    parked = {f"parked for {dest.decode()}": ids for dest, ids in snapshot.parked.items()}
    return {
        "due": snapshot.due,
        "leases": snapshot.leases,
        **snapshot.finished,
        **parked,
    }


def _in_several(places: Mapping[str, Set[bytes]]) -> Iterator[Finding]:
    where: dict[bytes, list[str]] = {}
    for name, ids in places.items():
        for message_id in ids:
            where.setdefault(message_id, []).append(name)
    for message_id, names in where.items():
        if len(names) > 1:
            yield Finding("one_place", message_id, f"is in {' and '.join(names)}")


def _out_of_due(snapshot: Snapshot) -> Set[bytes]:
    return set(snapshot.leases).union(*snapshot.parked.values())


def of_destinations(snapshot: Snapshot, limit_share: int) -> Iterator[Finding]:
    """What is wrong with the counts and the parked of destinations."""
    yield from _miscounted(snapshot)
    for dest in snapshot.parking ^ snapshot.parked.keys():
        yield Finding(
            "parking", dest, "has parked messages, and is not in `parking`; or the reverse"
        )
    waiting: Set[bytes] | None = None
    for dest, ids in snapshot.parked.items():
        if not ids:
            yield Finding("parked_empty", dest, "has an empty set of parked messages")
        elif not _held_up(snapshot, dest, limit_share):
            waiting = _waiting(snapshot) if waiting is None else waiting
            if dest not in waiting:
                yield Finding("stranded", dest, f"has room, but {len(ids)} stay parked")


def _miscounted(snapshot: Snapshot) -> Iterator[Finding]:
    """The destinations whose counts are not those of their claims."""
    claims: dict[bytes, Counter[bytes]] = {}  # destination → worker id → number
    for dest, worker_id in map(_destination_and_holder, snapshot.claims.values()):
        if dest:
            claims.setdefault(dest, Counter())[worker_id] += 1
    for dest in claims.keys() | snapshot.inflight.keys():
        its, text = claims.get(dest, Counter()), snapshot.inflight.get(dest, b"")
        counts = _counts(text)
        is_whole = b" ".join(b"%b %d %d" % one for one in counts) == text
        counted = sorted((one.worker_id, one.claims) for one in counts)
        if not (its and is_whole) or counted != sorted(its.items()):
            names = {worker_id.decode(errors="replace"): its[worker_id] for worker_id in its}
            yield Finding("inflight", dest, f"has the claims {names}, but its counts are {text!r}")
        elif any(one.permits > one.claims for one in counts):
            yield Finding("inflight", dest, f"has more permits than claims: {text!r}")


class Counts(NamedTuple):
    """What `inflight` has of a destination for one process."""

    worker_id: bytes
    permits: int
    claims: int


def _counts(text: bytes) -> list[Counts]:
    """A field of `inflight`; what is damaged is left out, as in the scripts."""
    found = _COUNTS.findall(text)
    return [Counts(worker_id, int(permits), int(claims)) for worker_id, permits, claims in found]


def in_flight(text: bytes) -> int:
    """The permits of all processes in a field of `inflight`."""
    return sum(counts.permits for counts in _counts(text))


def _held_up(snapshot: Snapshot, dest: bytes, limit_share: int) -> bool:
    """Whether messages may be parked: paused, at its limit, or claims will look at it again."""
    own, paused = _numbers(_LIMITS, snapshot.limits.get(dest, b""))
    failures, _ = _numbers(_UNREACHABLE, snapshot.unreachable.get(dest, b""))
    max_leased = 1 if failures >= BREAKS_AT else own or limit_share
    looked_at = dest in snapshot.opens or dest in snapshot.withheld
    return paused == 1 or in_flight(snapshot.inflight.get(dest, b"")) >= max_leased or looked_at


def _numbers(pattern: re.Pattern[bytes], field: bytes) -> tuple[int, int]:
    """The two numbers in a field; zeros if it is missing or damaged, as in the scripts."""
    found = pattern.match(field)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _waiting(snapshot: Snapshot) -> Set[bytes]:
    """The destinations with a message in `due`: its claim unparks their other messages."""
    records = (snapshot.payloads.get(message_id) for message_id in snapshot.due)
    return {destination_of(record) for record in records if record}


def destination_claimed(claim: bytes) -> bytes:
    """The destination in a field of `claims`; b'' if the field is damaged."""
    return _destination_and_holder(claim)[0]


def _destination_and_holder(claim: bytes) -> tuple[bytes, bytes]:
    """The destination and the worker id in a field of `claims`; b"" if the field is damaged."""
    found = _CLAIM.match(claim)
    return (found[2], found[1]) if found else (b"", b"")
