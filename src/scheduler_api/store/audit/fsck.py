"""Checks the data of a living store against the invariants, and repairs them; asked by cli.

What is wrong with a message is seen by one script that looks at all keys at once, so that what
moves meanwhile is not taken for damage. Each step is small: it holds up nobody.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

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
from scheduler_api.store.keys import Keys

STEP: Final = 50  # messages a look
COLUMNS: Final = 4  # of a message in the reply of inspect.lua
PLACES: Final = ("due", "taken", "leases", "claims", "delivered", "failed", "payloads", "progress")
ACTS: Final = {  # the word of repair.lua → what was done
    "due": "put back to due",
    "leased": "its lease was made anew, and is over unless its holder renews it",
    "delivered": "put back to the delivered",
    "failed": "put back to the failed",
    "dropped": "dropped: there is nothing to send",
    "sound": "came right meanwhile",
}

_MS: Final = timedelta(milliseconds=1)

Row = tuple[bytes, bytes, bytes, bytes]  # id, letters, claim, head of the record


class Checked(msgspec.Struct, frozen=True):
    """A finding, and what was done about it."""

    finding: Finding
    act: str | None = None  # None: nothing


class Fsck:
    """The check of one partition."""

    def __init__(
        self,
        redis: Client,
        keys: Keys,
        scripts: Scripts,
        *,
        concurrency: int,
        keep_delivered: timedelta,
        keep_failed: timedelta,
    ) -> None:
        self.messages = 0  # records seen
        self._redis = redis
        self._keys = keys
        self._scripts = scripts
        self._concurrency = concurrency
        self._keep = (keep_delivered // _MS, keep_failed // _MS)
        self._seen: set[tuple[str, bytes]] = set()

    async def run(self, *, repair: bool) -> AsyncIterator[Checked]:
        """Everything that is wrong, each told once. Raises: StoreUnavailable."""
        names = await self._names()
        parked = [name for name in map(self._keys.parked_for, names) if name is not None]
        for place in PLACES:
            async for checked in self._place(place, b"", repair):
                yield checked
        for dest in parked:
            async for checked in self._place("parked", dest, repair):
                yield checked
        for start in range(0, len(parked) or 1, STEP):
            async for checked in self._destinations(parked[start : start + STEP], repair):
                yield checked
        for name in names:
            if not self._keys.owns(name):
                yield Checked(Finding("stranger", name, "is a key of nobody"))

    async def _names(self) -> list[bytes]:
        try:
            return [name async for name in self._redis.scan_iter(f"{self._keys.base}*", count=1000)]
        except FAILURES as error:
            raise unavailable(error) from error

    async def _place(self, place: str, dest: bytes, repair: bool) -> AsyncIterator[Checked]:
        async for rows in self._steps(place, dest):
            if place == "payloads":
                self.messages += len(rows)
            found = [it for it in of_messages(_snapshot(rows, dest)) if self._is_new(it)]
            acts = await self._repair(rows, dest, found) if repair and found else {}
            for finding in found:
                yield Checked(finding, acts.get(finding.subject))

    async def _steps(self, place: str, dest: bytes) -> AsyncIterator[list[Row]]:
        cursor = b"0"
        while True:
            cursor, *reply = await self._scripts.run("inspect", place, dest, cursor, STEP)
            yield [_row(reply[i : i + COLUMNS]) for i in range(0, len(reply), COLUMNS)]
            if cursor == b"0":
                return

    def _is_new(self, finding: Finding) -> bool:
        known = (finding.rule, finding.subject) in self._seen
        self._seen.add((finding.rule, finding.subject))
        return not known

    async def _repair(
        self, rows: Sequence[Row], dest: bytes, found: Iterable[Finding]
    ) -> dict[bytes, str]:
        """What was done about each message."""
        wrong = sorted({finding.subject for finding in found})
        words = await self._scripts.run("repair", *self._keep, dest, *wrong)
        touched = {dest, *(it for row in rows if row[0] in wrong for it in _destinations(row))}
        await self._recount(touched - {b""})
        return {one: ACTS[word.decode()] for one, word in zip(wrong, words, strict=True)}

    async def _recount(self, dests: Iterable[bytes]) -> None:
        if names := sorted(dests):
            await self._scripts.run("recount", self._concurrency, *names)

    async def _destinations(self, parked: Sequence[bytes], repair: bool) -> AsyncIterator[Checked]:
        found = await self._counts(parked)
        stranded = {it.subject for it in found if it.rule == "stranded"}
        if stranded:
            # Nobody holds them up now, but a due message of theirs may be about to: look for one,
            # and whether they are still stranded after that.
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
            act = "counted anew, and let go what may go" if repair else None
            yield Checked(finding, act)

    async def _counts(self, parked: Sequence[bytes]) -> list[Finding]:
        claims, inflight, told = await self._scripts.run("read_counts", *parked)
        rows = [(dest, *told[i * 5 : i * 5 + 5]) for i, dest in enumerate(parked)]
        snapshot = _snapshot([], b"")
        snapshot = msgspec.structs.replace(
            snapshot,
            claims=dict(zip(claims[::2], claims[1::2], strict=True)),
            inflight={
                dest: int(count) if count.isdigit() else -1
                for dest, count in zip(inflight[::2], inflight[1::2], strict=True)
            },
            parked={
                dest: {b"%d" % n for n in range(number)} for dest, number, *_ in rows if number
            },
            parking={dest for dest, *_, is_listed in rows if is_listed},
            limits={dest: own for dest, _, own, *_ in rows if own},
            unreachable={dest: failures for dest, _, _, failures, *_ in rows if failures},
            opens={dest for dest, _, _, _, opens, _ in rows if opens},
        )
        return list(of_destinations(snapshot, self._concurrency))

    async def _due_of(self, dests: set[bytes]) -> set[bytes]:
        """Those of which a message is due."""
        found: set[bytes] = set()
        async for rows in self._steps("due", b""):
            found |= {destination_of(head) for _, _, _, head in rows if head}
        return found & dests


def _row(reply: Sequence[Any]) -> Row:
    message_id, letters, claim, head = reply
    return message_id, letters, claim, head


def _destinations(row: Row) -> Iterable[bytes]:
    _, _, claim, head = row
    if claim:
        yield destination_claimed(claim)
    if head:
        yield destination_of(head)


def _snapshot(rows: Sequence[Row], dest: bytes) -> Snapshot:
    """All that the keys say about these messages; `dest`: whose parked ones were looked through."""

    def having(letter: bytes) -> set[bytes]:
        return {message_id for message_id, letters, _, _ in rows if letter in letters}

    parked: dict[bytes, set[bytes]] = {}
    for message_id, letters, _, head in rows:
        if b"p" in letters:
            parked.setdefault(destination_of(head), set()).add(message_id)
        if b"q" in letters:
            parked.setdefault(dest, set()).add(message_id)
    return Snapshot(
        due=having(b"d"),
        taken=having(b"t"),
        leases=having(b"l"),
        delivered=having(b"s"),
        failed=having(b"f"),
        parked=parked,
        claims={message_id: claim for message_id, _, claim, _ in rows if claim},
        inflight={},
        payloads={message_id: head for message_id, _, _, head in rows if head},
        progress=having(b"g"),
    )
