"""The messages of all partitions: create, create_many, get, list, cancel."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, cast

import structlog

from scheduler_api.domain.errors import (
    DuplicateMessage,
    MessageNotFound,
    OutcomeUnknown,
    StoreFull,
    StoreUnavailable,
    Unavailable,
)
from scheduler_api.domain.instant import format_instant
from scheduler_api.domain.message import Accepted, Listed, Message, Page, State
from scheduler_api.store.codec.cursor import pack_cursor, unpack_cursor
from scheduler_api.store.codec.limits import unpack_hold
from scheduler_api.store.codec.progress import unpack_log, unpack_progress
from scheduler_api.store.codec.record import from_ms, pack_tail, to_ms, unpack_head, unpack_record
from scheduler_api.store.connection.batching import Batcher, all_results
from scheduler_api.store.connection.notifier import Notifier
from scheduler_api.store.connection.scripts import ERRORS, Scripts
from scheduler_api.store.connection.uploads import SMALL_CALL, Uploads, split_calls
from scheduler_api.store.keys import FINISHED, partition_of
from scheduler_api.store.replies import (
    CreateArgs,
    CreateHead,
    CreateRow,
    GetReply,
    ListHead,
    ListRow,
    head_and_rows,
)
from scheduler_api.store.stored_bytes import CHECK_AFTER, MESSAGE_OVERHEAD, Growth

log = structlog.get_logger()

NOTIFY_WITHIN: Final = 30_000  # ms until due; the safety poll finds later heads in time
CREATE_BATCH: Final = 100  # messages; such a call blocks the store for 1–2 ms
ROWS_A_CALL: Final = 100  # of a list; a call of 100 blocks the store for less than 1 ms

Position = tuple[int, bytes]  # in a list: due ms and id of a message; valid in every partition
WAITING: Final = (b"due", b"parked")  # places
START: Final[Position] = (-1, b"")  # before every message
Stored = datetime | DuplicateMessage | Unavailable  # when it is scheduled for, or why it is not


class Messages:
    """The messages of all partitions."""

    def __init__(
        self,
        scripts: Sequence[Scripts],
        notifier: Notifier,
        uploads: Uploads,
        growth: Growth,
        *,
        limit_shares: Sequence[int],
    ) -> None:
        """`limit_shares`: see Queue; of each partition."""
        self._scripts = scripts
        self._notifier = notifier
        self._uploads = uploads
        self._growth = growth
        self._limit_shares = limit_shares
        self._creating: list[Batcher[CreateArgs, datetime | DuplicateMessage]] = [
            Batcher(partial(self._create, partition)) for partition in range(len(scripts))
        ]

    def _partition(self, message_id: bytes) -> int:
        return partition_of(message_id, len(self._scripts))

    async def create(self, message_id: str, accepted: Accepted) -> datetime:
        """When it is scheduled for. Raises: DuplicateMessage, StoreUnavailable, StoreFull.

        OutcomeUnknown, with the fact `messageId`: it may have been stored.
        """
        packed = message_id.encode()
        new = new_of(packed, accepted)
        submitted = self._creating[self._partition(packed)].submit(new, len(new.tail))
        del accepted, new  # the body is held once while it waits
        try:
            created = await submitted
        except OutcomeUnknown as error:
            raise _unknown(message_id, error) from error
        if isinstance(created, DuplicateMessage):
            raise created
        return created

    async def create_many(self, batch: Sequence[tuple[str, Accepted]]) -> Sequence[Stored]:
        """The result of each, in order.

        The calls to one partition follow each other, so that of two messages with the same id the
        first is stored. They are not gathered with other calls, as those of `create` are.
        """
        packed = [message_id.encode() for message_id, _ in batch]
        places: dict[int, list[int]] = {}  # partition → which of the batch it keeps
        for place, message_id in enumerate(packed):
            places.setdefault(self._partition(message_id), []).append(place)
        results = await asyncio.gather(
            *(
                self._create_all(one, [(packed[i], batch[i][1]) for i in these])
                for one, these in places.items()
            )
        )
        found: dict[int, Stored] = {}
        for these, stored in zip(places.values(), results, strict=True):
            found.update(zip(these, stored, strict=True))
        return [found[place] for place in range(len(packed))]

    async def _create_all(
        self, partition: int, batch: Sequence[tuple[bytes, Accepted]]
    ) -> Sequence[Stored]:
        """The result of each. After a failure the rest fail: they would wait for the same store."""
        stored: list[Stored] = []
        news = (new_of(message_id, accepted) for message_id, accepted in batch)
        for some in split_calls(news, _size, CREATE_BATCH):
            try:
                stored += await self._create(partition, some)
            except OutcomeUnknown as error:
                stored += [_unknown(message_id.decode(), error) for message_id, *_ in some]
                return stored + [StoreUnavailable()] * (len(batch) - len(stored))
            except Unavailable as error:
                return stored + [error] * (len(batch) - len(stored))
        return stored

    async def _create(
        self, partition: int, batch: Sequence[CreateArgs]
    ) -> list[datetime | DuplicateMessage]:
        args: list[bytes | str | int] = [NOTIFY_WITHIN]
        size = 0
        for new in batch:
            args += new
            size += len(new.tail)
        run = self._scripts[partition].run_safely
        calling = (
            run("create", *args)
            if size <= SMALL_CALL
            else self._uploads.run(size, run, "create", *args)
        )
        try:
            reply = await calling
        except StoreFull:
            self._growth.check_due.set()  # finished messages may take the room
            raise
        self._growth.bytes += size + MESSAGE_OVERHEAD * len(batch)
        if self._growth.bytes > CHECK_AFTER:
            self._growth.check_due.set()
        head, rows = head_and_rows(reply, CreateHead, CreateRow)
        if head.announced:
            self._notifier.notify(partition)
        return [_created(row) for row in rows]

    async def get(self, message_id: str) -> Message:
        """The message and its state. Raises: MessageNotFound, StoreUnavailable."""
        asked = message_id.encode()
        partition = self._partition(asked)
        found = GetReply(
            *await self._scripts[partition].run("get", asked, self._limit_shares[partition])
        )
        if found.place == b"missing":
            raise MessageNotFound(f"There is no message {message_id!r}.")
        record, progress = unpack_record(found.record), unpack_progress(found.progress)
        return Message(
            id=message_id,
            url=record.url,
            spec=record.spec,
            state=_state(found.place, progress.attempts),
            hold=unpack_hold(found.hold, found.hold_until),
            created_at=from_ms(record.created_ms),
            scheduled_at=from_ms(record.scheduled_ms),
            next_attempt_at=from_ms(found.due) if found.place in WAITING else None,
            attempts=unpack_log(progress.log),
            attempts_made=progress.attempts,
            crashes=progress.crashes,
        )

    async def list(self, limit: int, cursor: str | None) -> Page:
        """Pending messages, soonest first. Raises: Invalid (the cursor), StoreUnavailable."""
        position = unpack_cursor(cursor) if cursor else START
        rows: list[Listed] = []
        while True:
            wanted = limit - len(rows)
            total, more, found = await self._next(position, wanted)
            if found:
                position = _position(found[-1])
            rows += (listed for row in found if row.record and (listed := _listed(row)))
            if not more or len(rows) >= limit:
                return Page(rows, total, pack_cursor(*position) if more else None)

    async def _next(self, after: Position, limit: int) -> tuple[int, bool, Sequence[ListRow]]:
        """How many are pending, whether there are more, and up to `limit` after a position."""
        replies = await self._list(after, _share_of_page(limit, len(self._scripts)))
        total = sum(head.total for head, _ in replies)
        # Rows that a partition has not returned yet come after its last row.
        seen_up_to = min((_position(rows[-1]) for head, rows in replies if head.more), default=None)
        rows = sorted((row for _, rows in replies for row in rows), key=_position)
        if seen_up_to is not None:
            rows = [row for row in rows if _position(row) <= seen_up_to]
        more = seen_up_to is not None or len(rows) > limit
        return total, more, rows[:limit]

    async def _list(
        self, after: Position, limit: int
    ) -> Sequence[tuple[ListHead, Sequence[ListRow]]]:
        calls = (scripts.run("list", *after, limit) for scripts in self._scripts)
        return [head_and_rows(reply, ListHead, ListRow) for reply in await all_results(calls)]

    async def count(self) -> int:
        """How many are pending. Raises: StoreUnavailable."""
        return sum(head.total for head, _ in await self._list(START, 0))

    async def cancel(self, message_id: str) -> None:
        """Remove a message that waits.

        Raises: MessageNotFound, MessageFinished, MessageInFlight, StoreUnavailable, OutcomeUnknown.
        """
        asked = message_id.encode()
        partition = self._partition(asked)
        try:
            limit_share = self._limit_shares[partition]
            word = await self._scripts[partition].run("cancel", asked, limit_share)
        except OutcomeUnknown as error:
            raise OutcomeUnknown(
                "Whether the message was cancelled is unknown; repeating the request is safe.",
                messageId=message_id,
            ) from error
        if word != b"ok":
            raise ERRORS[word]


def _size(new: CreateArgs) -> int:
    return len(new.tail)


def _unknown(message_id: str, error: OutcomeUnknown) -> OutcomeUnknown:
    """The message may have been stored; with the reason, unless there was only no reply."""
    reason = "" if str(error) == str(OutcomeUnknown()) else f"{error} "
    return OutcomeUnknown(
        f"{reason}It is not known whether the message was stored. "
        "It is safe to repeat the request with this `messageId` as its `id`.",
        messageId=message_id,
    )


def _position(row: ListRow) -> Position:
    return row.due, row.id


def _share_of_page(limit: int, partitions: int) -> int:
    """Rows to read from each: twice its share, so that one call is mostly enough for uneven ids."""
    return min(ROWS_A_CALL, limit if partitions == 1 else 2 * limit // partitions + 1)


def new_of(message_id: bytes, accepted: Accepted) -> CreateArgs:
    """A message for create.lua."""
    due_at = accepted.due_at
    delay = accepted.spec.delay or 0
    due = f"+{round(delay * 1000)}" if due_at is None else f"={to_ms(due_at)}"
    return CreateArgs(message_id, due, pack_tail(accepted))


def _created(row: CreateRow) -> datetime | DuplicateMessage:
    if row.word == b"ok":
        return from_ms(row.scheduled)
    state = _state(row.word, unpack_progress(row.progress).attempts)
    return DuplicateMessage(
        f"A message with this id exists; it is {state}. For a new message use another id.",
        state=state,
        scheduledFor=format_instant(from_ms(row.scheduled)),
    )


def _listed(row: ListRow) -> Listed | None:
    """The row; None if its record cannot be read: that must not hide the others."""
    try:
        attempts = unpack_progress(row.progress).attempts
        _, _, url = unpack_head(row.record)
    except ValueError:
        log.exception("record_unreadable", message_id=row.id.decode())
        return None
    state = _state(row.place, attempts)
    return Listed(row.id.decode(), url, state, from_ms(row.due), attempts)


_STATES: Final[dict[bytes, Any]] = {
    b"leased": "delivering",
    **{state.encode(): state for state in FINISHED},
}


def _state(place: bytes, attempts: int) -> State:
    """The place of a message is its state; one that waits is `retrying` once it was tried."""
    waits: State = "retrying" if attempts else "scheduled"
    return cast("State", _STATES.get(place, waits))
