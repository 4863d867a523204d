"""Messages as the api asks for them: create, get, list, cancel."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from scheduler_api.domain.errors import DuplicateMessage, MessageNotFound
from scheduler_api.domain.message import Accepted, Listed, Message, Page, State
from scheduler_api.domain.moments import format_instant
from scheduler_api.store.batching import Batcher
from scheduler_api.store.codec import (
    from_ms,
    pack_cursor,
    pack_tail,
    to_ms,
    unpack_cursor,
    unpack_head,
    unpack_log,
    unpack_progress,
    unpack_record,
)
from scheduler_api.store.heads import Heads
from scheduler_api.store.scripts import ERRORS, Scripts

ANNOUNCED_WITHIN: Final = 30_000  # ms; later heads are found by the safety poll in time
ROWS_A_CALL: Final = 100  # of the list; a call of 100 holds up the store for less than 1 ms
COLUMNS: Final = 5  # of a listed row in the script's reply
HEAD: Final = 3  # the column that is empty where a damaged data set has no record

New = tuple[str, Accepted]  # its id, and what was asked


class Messages:
    """The messages of one partition."""

    def __init__(self, scripts: Scripts, heads: Heads, *, concurrency: int) -> None:
        """`concurrency`: how many may be in flight to one destination."""
        self._scripts = scripts
        self._heads = heads
        self._concurrency = concurrency
        self._creating: Batcher[New, datetime | DuplicateMessage] = Batcher(self._create)

    async def create(self, message_id: str, accepted: Accepted) -> datetime:
        """When it is scheduled for. Raises: DuplicateMessage, StoreUnavailable, StoreFull."""
        created = await self._creating.submit((message_id, accepted))
        if isinstance(created, DuplicateMessage):
            raise created
        return created

    async def _create(self, batch: Sequence[New]) -> list[datetime | DuplicateMessage]:
        args: list[bytes | str | int] = [ANNOUNCED_WITHIN]
        for message_id, accepted in batch:
            args += (message_id.encode(), _asked_due(accepted), pack_tail(accepted))
        _, announced, *replies = await self._scripts.run("create", *args)
        if announced:
            self._heads.announce()
        return [_created(*replies[i : i + 3]) for i in range(0, len(replies), 3)]

    async def get(self, message_id: str) -> Message:
        """The message as it stands. Raises: MessageNotFound, StoreUnavailable."""
        place, due, packed, counted = await self._scripts.run("get", message_id.encode())
        if place == b"missing":
            raise MessageNotFound(f"There is no message {message_id!r}.")
        record, progress = unpack_record(packed), unpack_progress(counted)
        return Message(
            id=message_id,
            url=record.url,
            spec=record.spec,
            state=_state(place, progress.attempts),
            parked=place == b"parked",
            created_at=from_ms(record.created_ms),
            scheduled_at=from_ms(record.scheduled_ms),
            next_attempt_at=from_ms(due) if place in (b"due", b"parked") else None,
            attempts=unpack_log(progress.log),
            attempts_made=progress.attempts,
            crashes=progress.crashes,
        )

    async def list(self, limit: int, cursor: str | None) -> Page:
        """Pending messages, soonest first. Raises: Invalid (the cursor), StoreUnavailable."""
        due, message_id = unpack_cursor(cursor) if cursor else (-1, b"")
        rows: list[Listed] = []
        while True:
            most = min(ROWS_A_CALL, limit - len(rows))
            total, more, *reply = await self._scripts.run("list", due, message_id, most)
            if reply:
                message_id, due = reply[-COLUMNS], reply[1 - COLUMNS]
            found = (reply[i : i + COLUMNS] for i in range(0, len(reply), COLUMNS))
            rows += (_listed(*row) for row in found if row[HEAD])
            if not more or len(rows) >= limit:
                return Page(rows, total, pack_cursor(due, message_id) if more else None)

    async def count(self) -> int:
        """How many are pending. Raises: StoreUnavailable."""
        total, *_ = await self._scripts.run("list", -1, b"", 0)
        return int(total)

    async def cancel(self, message_id: str) -> None:
        """Remove one that waits. Raises: MessageNotFound, MessageFinished, MessageInFlight, …"""
        word = await self._scripts.run("cancel", message_id.encode(), self._concurrency)
        if word != b"ok":
            raise ERRORS[word]


def _asked_due(accepted: Accepted) -> str:
    if accepted.due_at is None:
        return f"+{accepted.spec.delay_ms}"
    return f"={to_ms(accepted.due_at)}"


def _created(word: bytes, scheduled: int, progress: bytes) -> datetime | DuplicateMessage:
    if word == b"ok":
        return from_ms(scheduled)
    state = _state(word, unpack_progress(progress).attempts)
    return DuplicateMessage(
        f"A message with this id exists; it is {state}.",
        state=state,
        scheduledFor=format_instant(from_ms(scheduled)),
    )


def _listed(message_id: bytes, due: int, place: bytes, head: bytes, counts: bytes) -> Listed:
    attempts = unpack_progress(counts).attempts
    _, _, url = unpack_head(head)
    return Listed(message_id.decode(), url, _state(place, attempts), from_ms(due), attempts)


_STATES: Final[dict[bytes, Any]] = {
    b"leased": "delivering",
    b"delivered": "delivered",
    b"failed": "failed",
}


def _state(place: bytes, attempts: int) -> State:
    """A message's state is where it is; one that waits was tried before, or was not."""
    waits: State = "retrying" if attempts else "scheduled"
    state: State = _STATES.get(place, waits)
    return state
