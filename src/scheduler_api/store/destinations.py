"""Destinations as the api asks for them: list, get, set_limit."""

from collections.abc import Sequence
from functools import reduce
from typing import Final

import msgspec

from scheduler_api.domain.errors import DestinationNotFound, OutcomeUnknown, Unavailable
from scheduler_api.domain.limits import Destination, Hold, Limits
from scheduler_api.store.codec import pack_limits, unpack_hold, unpack_limits, unpack_results
from scheduler_api.store.scripts import Scripts

MOST_PARKING: Final = 1_000  # destinations with parked messages in a list, of each partition
COLUMNS: Final = 8  # of a destination in the script's reply


def share(concurrency: int, partition: int, partitions: int) -> int:
    """A partition's part of a destination's limit: each message must get through somewhere."""
    whole, rest = divmod(concurrency, partitions)
    return max(1, whole + (partition < rest))


class Destinations:
    """The destinations of all partitions, among which what is allowed is divided."""

    def __init__(self, partitions: Sequence[Scripts], *, concurrency: int) -> None:
        """`concurrency`: the default of a destination, in all partitions together."""
        self._partitions = partitions
        self._concurrency = concurrency

    async def list(self) -> list[Destination]:
        """Those with load or settings, the busiest first. Raises: StoreUnavailable."""
        found: dict[str, Destination] = {}
        for destination in await self._read():
            here = found.get(destination.name)
            found[destination.name] = _together(here, destination) if here else destination
        return sorted(found.values(), key=lambda it: (-it.in_flight - it.waiting, it.name))

    async def get(self, name: str) -> Destination:
        """How it is doing. Raises: DestinationNotFound, StoreUnavailable."""
        found = await self._one(name)
        load = found.in_flight or found.waiting or found.connect_failures
        if not (found.limits or load or found.results.attempts):
            raise DestinationNotFound
        return found

    async def set_limit(self, name: str, limits: Limits | None) -> Destination:
        """Replace its settings; None: back to the default.

        Raises: DestinationNotFound, if there are none to be taken away; StoreUnavailable;
        OutcomeUnknown, also if some partitions have them and others do not.
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
        raise DestinationNotFound(f"{name} has no settings of its own.")

    def _share(self, partition: int) -> int:
        return share(self._concurrency, partition, len(self._partitions))

    def _field(self, limits: Limits | None, partition: int) -> bytes:
        if limits is None:
            return b""
        partitions = len(self._partitions)
        here = share(limits.concurrency, partition, partitions) if limits.concurrency else 0
        return pack_limits(limits, here, partitions)

    async def _one(self, name: str) -> Destination:
        return reduce(_together, await self._read(name.encode()))

    async def _read(self, *names: bytes) -> Sequence[Destination]:
        """Each once for every partition that knows it."""
        replies = [
            await scripts.run("list_destinations", self._share(partition), MOST_PARKING, *names)
            for partition, scripts in enumerate(self._partitions)
        ]
        return [
            self._unpack(*reply[i : i + COLUMNS])
            for reply in replies
            for i in range(0, len(reply), COLUMNS)
        ]

    def _unpack(
        self,
        name: bytes,
        in_flight: int,
        parked: int,
        field: bytes,
        failures: int,
        why: bytes,
        until_ms: int,
        results: bytes,
    ) -> Destination:
        limits = unpack_limits(field)
        return Destination(
            name=name.decode(),
            limits=limits,
            concurrency=(limits and limits.concurrency) or self._concurrency,
            in_flight=in_flight,
            waiting=parked,
            connect_failures=failures,
            hold=unpack_hold(why, until_ms),
            results=unpack_results(results),
        )


def _together(one: Destination, other: Destination) -> Destination:
    """The same destination in two partitions."""
    return msgspec.structs.replace(
        one,
        limits=one.limits or other.limits,
        in_flight=one.in_flight + other.in_flight,
        waiting=one.waiting + other.waiting,
        connect_failures=max(one.connect_failures, other.connect_failures),
        hold=_both(one.hold, other.hold),
        results=one.results + other.results,
    )


def _both(one: Hold | None, other: Hold | None) -> Hold | None:
    """What holds up two partitions: nothing, if it does not hold up one of them."""
    if one is None or other is None:
        return None
    instants = [hold.until for hold in (one, other) if hold.until]
    return Hold(one.reason, min(instants, default=None))
