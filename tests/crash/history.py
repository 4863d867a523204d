"""The history of a campaign (creates, answers, kills, arrivals), and its judgement. Pure."""

import math
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

SENT: Final = 1.0  # seconds after a kill in which a request may arrive that was sent before
Outcome = Literal["ok", "failed", "unknown"]  # unknown: no answer came


@dataclass
class Offer:
    """A message that a caller asked to create."""

    due_at: float  # seconds since 1970
    outcome: Outcome


@dataclass
class Arrival:
    """One request at the receiver."""

    id: str
    attempt: int
    at: float  # seconds since 1970
    status: int  # of the response
    answered_at: float = math.inf  # seconds since 1970, just before the response


@dataclass
class Kill:
    """A process was killed, or suspended for longer than its leases."""

    what: str
    at: float  # seconds since 1970
    in_flight: Set[str]  # ids that it had claimed: each may arrive a second time


@dataclass
class History:
    """The history of one campaign."""

    offers: dict[str, Offer] = field(default_factory=dict)  # by id
    deleted_at: dict[str, float] = field(default_factory=dict)  # seconds since 1970, at the 200
    maybe_deleted: set[str] = field(default_factory=set)  # DELETEs without an answer
    arrivals: list[Arrival] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)


class Verdict(msgspec.Struct):
    """The judgement, and the figures on which it rests."""

    messages: int  # acknowledged
    lost: list[str]  # acknowledged, not deleted, never answered with 200
    ghosts: list[str]  # arrived though never created, or after a DELETE that was answered with 200
    early: list[str]  # arrived before their time
    duplicates: int  # requests beyond the first of an attempt
    bound: int  # limit of duplicates: messages in flight at the kills
    late_s: float  # longest delay of a first arrival after healing
    recovery_s: float  # longest time from a kill to the next request for a message in flight
    open: int = 0  # most requests open at once
    limit: float = 0  # of the destination

    @property
    def sound(self) -> bool:
        """Whether the promises were kept; the campaign judges the lateness."""
        within = self.duplicates <= self.bound and self.open <= self.limit
        return within and not (self.lost or self.ghosts or self.early)


def judge(history: History, healed_at: float, limit: float = math.inf) -> Verdict:
    """Judge a history after which nothing is pending; `limit`: of requests open at once."""
    return Verdict(
        messages=sum(offer.outcome == "ok" for offer in history.offers.values()),
        lost=sorted(_lost(history)),
        ghosts=sorted({it.id for it in history.arrivals if _is_ghost(history, it)}),
        early=sorted({it.id for it in history.arrivals if _is_early(history, it)}),
        duplicates=len(history.arrivals) - len({(it.id, it.attempt) for it in history.arrivals}),
        bound=sum(len(kill.in_flight) for kill in history.kills),
        late_s=round(max(_late(history, healed_at), default=0.0), 3),
        recovery_s=round(max(_recoveries(history), default=0.0), 3),
        open=_most_open(history),
        limit=limit,
    )


def _lost(history: History) -> Iterator[str]:
    delivered = {it.id for it in history.arrivals if it.status == 200}
    for message_id, offer in history.offers.items():
        gone = message_id in history.deleted_at or message_id in history.maybe_deleted
        if offer.outcome == "ok" and not gone and message_id not in delivered:
            yield message_id


def _is_ghost(history: History, arrival: Arrival) -> bool:
    if arrival.id not in history.offers:
        return True
    return arrival.at > history.deleted_at.get(arrival.id, float("inf"))


def _is_early(history: History, arrival: Arrival) -> bool:
    offer = history.offers.get(arrival.id)
    return offer is not None and arrival.at < offer.due_at


def _late(history: History, healed_at: float) -> Iterator[float]:
    seen: set[str] = set()
    for arrival in sorted(history.arrivals, key=lambda it: it.at):
        offer = history.offers.get(arrival.id)
        if offer and arrival.id not in seen and arrival.at > healed_at:
            yield arrival.at - max(offer.due_at, healed_at)
        seen.add(arrival.id)


def _most_open(history: History) -> int:
    """Without requests of a process that was killed, as the receiver may not know its end."""
    instants: list[tuple[float, int]] = []
    for it in history.arrivals:
        if not any(it.id in kill.in_flight and it.at < kill.at + SENT for kill in history.kills):
            instants += [(it.at, 1), (it.answered_at, -1)]
    most = open_now = 0
    for _, change in sorted(instants):
        open_now += change
        most = max(most, open_now)
    return most


def _recoveries(history: History) -> Iterator[float]:
    """From each kill to the next request for what it had in flight; retries do not count."""
    for kill in history.kills:
        before = {it.id: it.attempt for it in history.arrivals if it.at <= kill.at}
        after: dict[str, float] = {}
        for it in history.arrivals:
            is_again = it.attempt == before.get(it.id, it.attempt)
            if it.id in kill.in_flight and it.at > kill.at and is_again:
                after.setdefault(it.id, it.at - kill.at)
        yield from after.values()
