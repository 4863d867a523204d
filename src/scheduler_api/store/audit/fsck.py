"""Checks the data of a running store against the invariants, and repairs them.

One script reads all keys about a message at once: otherwise a message that moves meanwhile would
seem damaged. Each step is small, so that it delays no other call.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from scheduler_api.domain.duration import milliseconds
from scheduler_api.store.audit.invariants import (
    Finding,
    Snapshot,
    destination_claimed,
    of_destinations,
    of_messages,
)
from scheduler_api.store.codec.record import destination_of
from scheduler_api.store.connection.client import Client
from scheduler_api.store.connection.scripts import FAILURES, Scripts, unavailable
from scheduler_api.store.keys import FINISHED, Keys
from scheduler_api.store.replies import ClaimsRow, InspectRow, rows

STEP: Final = 50  # messages a call
KEYS: Final = ("due", "taken", "leases", "claims", *FINISHED, "payloads", "progress")  # of ids
REPAIRS: Final = {  # word of repair.lua → what was done
    "due": "put back to due",
    "leased": "leased again; the lease is over unless its holder renews it",
    **{state: f"put back to {state}" for state in FINISHED},
    "dropped": "dropped: there is nothing to send",
    "sound": "correct by now",
}


class Fsck:
    """The check of one partition."""

    def __init__(
        self,
        redis: Client,
        keys: Keys,
        scripts: Scripts,
        *,
        limit_share: int,
        keep: Mapping[str, timedelta],
    ) -> None:
        """`limit_share`, `keep`: see Queue."""
        self.messages = 0  # records seen
        self._redis = redis
        self._keys = keys
        self._scripts = scripts
        self._limit_share = limit_share
        self._keep = [part for state, span in keep.items() for part in (state, milliseconds(span))]
        self._seen: set[tuple[str, bytes]] = set()

    async def run(self, *, repair: bool) -> AsyncIterator[Finding]:
        """Everything that is wrong, each finding once. Raises: StoreUnavailable."""
        names = await self._names()
        parked = [name for name in map(self._keys.parked_for, names) if name is not None]
        for key in KEYS:
            async for finding in self._messages(key, b"", repair):
                yield finding
        for dest in parked:
            async for finding in self._messages("parked", dest, repair):
                yield finding
        for start in range(0, len(parked) or 1, STEP):
            async for finding in self._destinations(parked[start : start + STEP], repair):
                yield finding
        for name in names:
            if not self._keys.owns(name):
                yield Finding("stranger", name, "is not a key of this service")

    async def _names(self) -> list[bytes]:
        try:
            return [name async for name in self._redis.scan_iter(f"{self._keys.base}*", count=1000)]
        except FAILURES as error:
            raise unavailable(error) from error

    async def _messages(self, key: str, dest: bytes, repair: bool) -> AsyncIterator[Finding]:
        async for seen in self._steps(key, dest):
            if key == "payloads":
                self.messages += len(seen)
            found = [it for it in of_messages(_snapshot(seen, dest)) if self._is_new(it)]
            acts = await self._repair(seen, dest, found) if repair and found else {}
            for finding in found:
                yield replace(finding, repair=acts.get(finding.subject))

    async def _steps(self, key: str, dest: bytes) -> AsyncIterator[list[InspectRow]]:
        cursor = b"0"
        while True:
            cursor, *reply = await self._scripts.run("inspect", key, dest, cursor, STEP)
            yield rows(reply, InspectRow)
            if cursor == b"0":
                return

    def _is_new(self, finding: Finding) -> bool:
        known = (finding.rule, finding.subject) in self._seen
        self._seen.add((finding.rule, finding.subject))
        return not known

    async def _repair(
        self, seen: Sequence[InspectRow], dest: bytes, found: Iterable[Finding]
    ) -> dict[bytes, str]:
        """Repair the messages found: id → what was done."""
        wrong = sorted({finding.subject for finding in found})
        words = await self._scripts.run("repair", dest, len(wrong), *wrong, *self._keep)
        touched = {dest, *(it for row in seen if row.id in wrong for it in _destinations(row))}
        await self._recount(touched - {b""})
        return {one: REPAIRS[word.decode()] for one, word in zip(wrong, words, strict=True)}

    async def _recount(self, dests: Iterable[bytes]) -> None:
        if names := sorted(dests):
            await self._scripts.run("recount_claims", self._limit_share, *names)

    async def _destinations(self, parked: Sequence[bytes], repair: bool) -> AsyncIterator[Finding]:
        found = await self._counts(parked)
        stranded = {it.subject for it in found if it.rule == "stranded"}
        if stranded:
            # The claim of a due message of the destination would unpark them: search for one, then
            # check again.
            stranded -= await self._due_of(stranded)
            still = {it.subject for it in await self._counts(parked) if it.rule == "stranded"}
            stranded &= still
        for finding in found:
            if (finding.rule == "stranded" and finding.subject not in stranded) or (
                not self._is_new(finding)
            ):
                continue
            if repair:
                await self._recount([finding.subject])
            act = "counted again; messages that may be sent were unparked" if repair else None
            yield replace(finding, repair=act)

    async def _counts(self, parked: Sequence[bytes]) -> list[Finding]:
        claims, in_flight, parked_rows = await self._scripts.run("read_claims", *parked)
        counts = dict(zip(parked, rows(parked_rows, ClaimsRow), strict=True))
        snapshot = replace(
            _snapshot([], b""),
            claims=dict(zip(claims[::2], claims[1::2], strict=True)),
            inflight=dict(zip(in_flight[::2], in_flight[1::2], strict=True)),
            parked={
                dest: {b"%d" % n for n in range(row.parked)}
                for dest, row in counts.items()
                if row.parked
            },
            parking={dest for dest, row in counts.items() if row.listed},
            limits={dest: row.settings for dest, row in counts.items() if row.settings},
            unreachable={dest: row.failures for dest, row in counts.items() if row.failures},
            opens={dest for dest, row in counts.items() if row.watched},
        )
        return list(of_destinations(snapshot, self._limit_share))

    async def _due_of(self, dests: set[bytes]) -> set[bytes]:
        """Those that have a message in `due`."""
        found: set[bytes] = set()
        async for seen in self._steps("due", b""):
            found |= {destination_of(row.head) for row in seen if row.head}
        return found & dests


def _destinations(row: InspectRow) -> Iterable[bytes]:
    if row.claim:
        yield destination_claimed(row.claim)
    if row.head:
        yield destination_of(row.head)


def _snapshot(seen: Sequence[InspectRow], dest: bytes) -> Snapshot:
    """What the keys have about these messages; `dest`: whose parked ones were looked through."""
    keys: dict[str, set[bytes]] = {}
    parked: dict[bytes, set[bytes]] = {}
    for row in seen:
        for key in row.keys.decode().split():
            keys.setdefault(key, set()).add(row.id)
            if key == "parked":
                parked.setdefault(destination_of(row.head), set()).add(row.id)
            if key == "parked_elsewhere":
                parked.setdefault(dest, set()).add(row.id)
    return Snapshot(
        due=keys.get("due", set()),
        taken=keys.get("taken", set()),
        leases=keys.get("leases", set()),
        finished={state: keys.get(state, set()) for state in FINISHED},
        parked=parked,
        claims={row.id: row.claim for row in seen if row.claim},
        inflight={},
        payloads={row.id: row.head for row in seen if row.head},
        progress=keys.get("progress", set()),
    )
