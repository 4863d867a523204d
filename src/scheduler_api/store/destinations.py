"""The destinations of all partitions: list, get, set_limit."""

from collections.abc import Sequence
from functools import reduce
from typing import Final, NamedTuple

import msgspec

from scheduler_api.domain.destination import Destination, DestinationPage, Hold, Limits
from scheduler_api.domain.errors import DestinationNotFound, OutcomeUnknown, Unavailable
from scheduler_api.domain.url import destination_name
from scheduler_api.store.codec.cursor import pack_step, unpack_step
from scheduler_api.store.codec.limits import pack_limits, unpack_hold, unpack_limits, unpack_stats
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.replies import DestinationRow, rows

READ_BATCH: Final = 100  # destinations; such a call blocks the store for less than 1 ms
READ_FOR_A_PAGE: Final = 2_000  # destinations, after which a page ends, however few belong on it


def share(concurrency: int, partition: int, partitions: int) -> int:
    """A partition's share of a destination's limit: at least 1, else nothing is sent."""
    whole, rest = divmod(concurrency, partitions)
    return max(1, whole + (partition < rest))


class Step(NamedTuple):
    """The position at which a list continues.

    Its places are, for each partition, the destinations with claims, then the parked ones; the last
    place has those with settings. A place is read by the server's cursor, in no order.
    """

    place: int
    scan: int = 0  # the server's cursor in it
    after: bytes = b""  # the last name read at this cursor


FIRST_STEP: Final = Step(0)


class _Part(NamedTuple):
    """A destination in one partition."""

    destination: Destination
    has_claims: bool  # with or without permits
    has_parked: bool


class Destinations:
    """The destinations of all partitions; limits are divided among the partitions."""

    def __init__(self, partitions: Sequence[Scripts], *, concurrency: int) -> None:
        """`concurrency`: of a destination without settings, in all partitions together."""
        self._partitions = partitions
        self._concurrency = concurrency

    async def get(self, name: str) -> Destination:
        """Its load and its settings. Raises: DestinationNotFound, StoreUnavailable."""
        found = await self._one(name)
        load = found.in_flight or found.waiting or found.connect_failures
        if not (found.limits or load or found.stats.attempts):
            raise DestinationNotFound
        return found

    async def set_limit(self, name: str, limits: Limits | None) -> Destination:
        """Replace its settings; None deletes them.

        Raises: DestinationNotFound, if there are none to delete; StoreUnavailable; OutcomeUnknown,
        also if some partitions have the new settings and others do not.
        """
        had: list[int] = []
        try:
            for partition, scripts in enumerate(self._partitions):
                field = self._field(limits, partition)
                had.append(await scripts.run("set_limit", name.encode(), field))
            if limits or any(had):
                return await self._one(name)
        except Unavailable as error:
            if not had:
                raise
            raise OutcomeUnknown from error
        raise DestinationNotFound(f"{name} has no limits set; the defaults apply.")

    def _share(self, partition: int) -> int:
        return share(self._concurrency, partition, len(self._partitions))

    def _field(self, limits: Limits | None, partition: int) -> bytes:
        if limits is None:
            return b""
        partitions = len(self._partitions)
        here = share(limits.concurrency, partition, partitions) if limits.concurrency else 0
        return pack_limits(limits, here, partitions)

    async def _one(self, name: str) -> Destination:
        (parts,) = await self._read([name])
        return _whole(parts)

    async def _read(self, names: Sequence[str]) -> Sequence[Sequence[_Part]]:
        """For each name its part in every partition."""
        encoded = [name.encode() for name in names]
        replies = [
            await scripts.run("read_destinations", self._share(partition), *encoded)
            for partition, scripts in enumerate(self._partitions)
        ]
        return [
            [self._unpack(row) for row in parts]
            for parts in zip(*(rows(reply, DestinationRow) for reply in replies), strict=True)
        ]

    async def list(self, limit: int, cursor: str | None = None) -> DestinationPage:
        """Those with load or settings. Raises: Invalid (the cursor), StoreUnavailable.

        Destinations with load and without settings come first, then those with settings. On a page
        the busiest come first. A page may be short although there are more.
        """
        start = Step(*unpack_step(cursor, 2 * len(self._partitions))) if cursor else FIRST_STEP
        at: Step | None = start
        found: dict[str, Destination] = {}
        read = 0
        while at is not None and len(found) < limit and read < READ_FOR_A_PAGE:
            place = at.place
            names, at = await self._names(at, min(READ_BATCH, limit - len(found)))
            read += len(names)
            for parts in await self._read(names) if names else ():
                if _belongs(place, parts, start):
                    whole = _whole(parts)
                    found.setdefault(whole.name, whole)
        page = sorted(found.values(), key=lambda it: (-it.in_flight - it.waiting, it.name))
        total = len(page) if cursor is None and at is None else None
        return DestinationPage(page, total, pack_step(*at) if at else None)

    async def _names(self, at: "Step", limit: int) -> tuple[Sequence[str], "Step | None"]:
        """Up to `limit` names, and where to continue."""
        partition, which = divmod(at.place, 2)
        source = ("inflight", "parking")[which]
        if partition == len(self._partitions):  # each partition has the settings of all
            partition, source = 0, "limits"
        cursor, *found = await self._partitions[partition].run(
            "list_destinations", source, at.scan, READ_BATCH
        )
        names = sorted(name for name in set(found) if name > at.after)
        following: Step | None = Step(at.place, int(cursor))
        if len(names) > limit:
            following = Step(at.place, at.scan, names[limit - 1])
        elif not int(cursor):
            following = None if source == "limits" else Step(at.place + 1)
        decoded = (name.decode(errors="replace") for name in names[:limit])
        return list(dict.fromkeys(map(destination_name, decoded))), following

    def _unpack(self, row: DestinationRow) -> _Part:
        limits = unpack_limits(row.settings)
        destination = Destination(
            name=row.name.decode(),
            limits=limits,
            concurrency=(limits and limits.concurrency) or self._concurrency,
            in_flight=row.in_flight,
            waiting=row.queued + row.parked,
            connect_failures=row.failures,
            hold=unpack_hold(row.hold, row.hold_until),
            stats=unpack_stats(row.results),
        )
        return _Part(destination, row.in_flight + row.queued > 0, row.parked > 0)


def _belongs(place: int, parts: Sequence[_Part], start: Step) -> bool:
    """Whether a destination found at a place is shown there, on the page that begins at `start`.

    One with settings is shown at the last place, any other at the first place where it has load.
    If it got that load after the place was read, it is shown where it is found.
    """
    if parts[0].destination.limits:
        return place == 2 * len(parts)
    has = [there for part in parts for there in (part.has_claims, part.has_parked)]
    if not any(has[place : place + 1]):
        return False
    first = has.index(True)
    read_before = first < start.place or (first == start.place and start != Step(first))
    return first == place or not read_before


def _whole(parts: Sequence[_Part]) -> Destination:
    """The destination in all partitions."""
    return reduce(_together, (part.destination for part in parts))


def _together(one: Destination, other: Destination) -> Destination:
    """The same destination in two partitions."""
    return msgspec.structs.replace(
        one,
        limits=one.limits or other.limits,
        in_flight=one.in_flight + other.in_flight,
        waiting=one.waiting + other.waiting,
        connect_failures=max(one.connect_failures, other.connect_failures),
        hold=_both(one.hold, other.hold),
        stats=one.stats + other.stats,
    )


def _both(one: Hold | None, other: Hold | None) -> Hold | None:
    """The hold of two partitions: none if one of them has none."""
    if one is None or other is None:
        return None
    instants = [hold.until for hold in (one, other) if hold.until]
    return Hold(one.reason, min(instants, default=None))
