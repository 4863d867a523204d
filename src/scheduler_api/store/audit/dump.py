"""Whole messages, for an export and an import: nothing of a message is lost between two stores."""

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
from scheduler_api.store.replies import ListHead, ListRow, RestoreArgs, head_and_rows

DUMP_BATCH: Final = 100  # messages in one call

Position = tuple[int, bytes]  # due ms and id of the last message of an export that was interrupted
Restored = Literal["ok", "same", "other"]  # ok: stored; same, other: the message that has the id


class Dumped(msgspec.Struct, frozen=True):
    """A pending message with all that is stored of it."""

    id: str
    due_ms: int  # of its next attempt
    record: Record
    attempts: int  # made
    crashes: int  # processes that ended while they sent it
    log: list[Attempt]  # the newest attempts, oldest first


class Restorable(msgspec.Struct, frozen=True):
    """A message to store, with its history."""

    id: str
    due_ms: int  # of its next attempt
    created_ms: int | None  # None: now
    scheduled_ms: int
    accepted: Accepted
    attempts: int = 0  # made
    crashes: int = 0  # processes that ended while they sent it
    log: Sequence[Attempt] = ()  # the newest attempts, oldest first


class Dump:
    """The messages of all partitions, whole."""

    def __init__(self, scripts: Sequence[Scripts]) -> None:
        """`scripts`: of each partition."""
        self._scripts = scripts

    async def pending(self, after: Position | None = None) -> AsyncIterator[Dumped]:
        """The pending messages after a position, partition by partition, soonest first.

        Raises: StoreUnavailable; ValueError, msgspec.MsgspecError for a damaged record.
        """
        first = partition_of(after[1], len(self._scripts)) if after else 0
        for scripts in self._scripts[first:]:
            async for message in _pending(scripts, after or (-1, b"")):
                yield message
            after = None

    async def restore(self, messages: Sequence[Restorable]) -> list[Restored]:
        """Store each message, unless another one has its id.

        A message is the same if its request and the instant that it is scheduled for are the same.
        Each message is stored whole or not at all; a repeated call is safe.
        Raises: StoreUnavailable, StoreFull.
        """
        words: dict[int, Restored] = {}
        for partition, scripts in enumerate(self._scripts):
            here = [
                number
                for number, message in enumerate(messages)
                if partition_of(message.id.encode(), len(self._scripts)) == partition
            ]
            args = (_args(messages[number]) for number in here)
            reply: list[bytes] = []
            for some in split_calls(args, _size, DUMP_BATCH):
                reply += await scripts.run("restore", *(part for parts in some for part in parts))
            for number, word in zip(here, reply, strict=True):
                words[number] = cast("Restored", word.decode())
        return [words[number] for number in range(len(messages))]


async def _pending(scripts: Scripts, after: Position) -> AsyncIterator[Dumped]:
    more = 1
    while more:
        reply = await scripts.run("list", *after, DUMP_BATCH, 1)
        head, rows = head_and_rows(reply, ListHead, ListRow)
        more = head.more
        for row in rows:
            after = (row.due, row.id)
            if row.record:
                yield _dumped(row)


def _dumped(row: ListRow) -> Dumped:
    progress = unpack_progress(row.progress)
    return Dumped(
        row.id.decode(),
        row.due,
        unpack_record(row.record),
        progress.attempts,
        progress.crashes,
        unpack_log(progress.log),
    )


def _size(args: RestoreArgs) -> int:
    return len(args.rest) + len(args.progress)


def _args(message: Restorable) -> RestoreArgs:
    return RestoreArgs(
        message.id.encode(),
        message.due_ms,
        "" if message.created_ms is None else message.created_ms,
        pack_scheduled(message.scheduled_ms) + pack_tail(message.accepted),
        pack_progress(message.attempts, message.crashes, message.log),
    )
