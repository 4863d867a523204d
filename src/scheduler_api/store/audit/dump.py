"""Whole messages, as they move from one store to another; asked by transfer.py."""

from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal, cast

import msgspec

from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.message import Accepted
from scheduler_api.store.codec.progress import pack_progress, unpack_log, unpack_progress
from scheduler_api.store.codec.record import Record, pack_scheduled, pack_tail, unpack_record
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.connection.uploads import split_calls
from scheduler_api.store.keys import partition_of

DUMP_BATCH: Final = 100  # messages a call
COLUMNS: Final = 5  # of a message in the reply of list.lua

Position = tuple[int, bytes]  # due ms and id of a message: where to go on
Restored = Literal["ok", "same", "other"]


class Archived(msgspec.Struct, frozen=True):
    """A pending message, with all that is known of it."""

    id: str
    due_ms: int
    record: Record
    attempts: int
    crashes: int
    log: list[Attempt]


class Restorable(msgspec.Struct, frozen=True):
    """A message to be put in."""

    id: str
    due_ms: int  # of its next attempt
    created_ms: int | None  # None: now
    scheduled_ms: int
    accepted: Accepted
    attempts: int = 0
    crashes: int = 0
    log: Sequence[Attempt] = ()


class Archive:
    """The messages of all partitions, whole."""

    def __init__(self, scripts: Sequence[Scripts]) -> None:
        self._scripts = scripts

    async def pending(self, after: Position | None = None) -> AsyncIterator[Archived]:
        """Each pending message, partition by partition, soonest first; those after a position.

        Raises: StoreUnavailable; ValueError, msgspec.MsgspecError for a damaged record.
        """
        first = partition_of(after[1], len(self._scripts)) if after else 0
        for scripts in self._scripts[first:]:
            async for message in _pending(scripts, after or (-1, b"")):
                yield message
            after = None

    async def restore(self, messages: Sequence[Restorable]) -> list[Restored]:
        """Put each in, unless its id is taken: 'same' by this message, 'other' by another.

        Each is in whole or not at all; repeating is safe. Raises: StoreUnavailable, StoreFull.
        """
        words: dict[int, Restored] = {}
        for partition, scripts in enumerate(self._scripts):
            here = [
                number
                for number, message in enumerate(messages)
                if partition_of(message.id.encode(), len(self._scripts)) == partition
            ]
            reply: list[bytes] = []
            for some in split_calls(
                (_restored(messages[number]) for number in here), _size, DUMP_BATCH
            ):
                reply += await scripts.run("restore", *(part for parts in some for part in parts))
            for number, word in zip(here, reply, strict=True):
                words[number] = cast("Restored", word.decode())
        return [words[number] for number in range(len(messages))]


async def _pending(scripts: Scripts, after: Position) -> AsyncIterator[Archived]:
    more = 1
    while more:
        _, more, *reply = await scripts.run("list", *after, DUMP_BATCH, 1)
        for i in range(0, len(reply), COLUMNS):
            message_id, due, _, record, progress = reply[i : i + COLUMNS]
            after = (due, message_id)
            if record:
                yield _archived(message_id, due, record, progress)


def _archived(message_id: bytes, due: int, record: bytes, packed: bytes) -> Archived:
    progress = unpack_progress(packed)
    return Archived(
        message_id.decode(),
        due,
        unpack_record(record),
        progress.attempts,
        progress.crashes,
        unpack_log(progress.log),
    )


Parts = tuple[bytes, int, int | str, bytes, bytes]  # of a message, as restore.lua takes them


def _size(parts: Parts) -> int:
    *_, tail, progress = parts
    return len(tail) + len(progress)


def _restored(message: Restorable) -> Parts:
    created = "" if message.created_ms is None else message.created_ms
    return (
        message.id.encode(),
        message.due_ms,
        created,
        pack_scheduled(message.scheduled_ms) + pack_tail(message.accepted),
        pack_progress(message.attempts, message.crashes, message.log),
    )
