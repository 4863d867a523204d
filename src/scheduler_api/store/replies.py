"""What the scripts take and return, one NamedTuple a shape.

Field names are those in the head comment of the script. A reply is a head, then rows: the fields of
each one after the other. An argument that a script takes for each message is a row too.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar

Head = TypeVar("Head", bound=NamedTuple)
Row = TypeVar("Row", bound=NamedTuple)


def head_and_rows(reply: Sequence[Any], head: type[Head], row: type[Row]) -> tuple[Head, list[Row]]:
    """A whole reply, by name."""
    size = len(head._fields)
    return head._make(reply[:size]), rows(reply[size:], row)


def rows(reply: Sequence[Any], row: type[Row]) -> list[Row]:
    """A reply that is rows alone, or the rest of another one."""
    size, make = len(row._fields), row._make
    return [make(reply[at : at + size]) for at in range(0, len(reply), size)]


class CreateArgs(NamedTuple):
    """A message for create.lua."""

    id: bytes
    asked: str  # when it is due: "=ms" at an instant, "+ms" after now
    tail: bytes  # its record from the 14th byte on


class CreateHead(NamedTuple):
    """The beginning of a reply of create.lua."""

    now: int  # ms
    announced: int  # 1 if a new head of `due` was announced


class CreateRow(NamedTuple):
    """What became of a message."""

    word: bytes  # ok, or the place of the message that has the id already
    scheduled: int  # when that message, or the new one, is scheduled for, ms
    progress: bytes  # of that message; b"" if it was never tried


class GetReply(NamedTuple):
    """The reply of get.lua."""

    place: bytes
    due: int  # ms; -1 if it is finished or missing
    record: bytes
    progress: bytes
    hold: bytes  # why it is parked; b"" if it is not, or may be sent now
    hold_until: int  # ms; -1 if time alone does not end it


class ListHead(NamedTuple):
    """The beginning of a reply of list.lua."""

    total: int  # pending messages
    more: int  # 1 if there are others after the last row


class ListRow(NamedTuple):
    """A pending message in a list."""

    id: bytes
    due: int  # ms
    place: bytes
    record: bytes  # up to the end of its URL, or whole; b"" if there is none
    progress: bytes  # its first line, or whole


class ClaimHead(NamedTuple):
    """The beginning of a reply of claim.lua."""

    now: int  # ms
    fence: int  # of these claims; 0 if nothing was due
    next_at: int  # when anything may be claimed next, ms; -1: nothing waits
    next_lease_end: int  # ms; -1: there is no lease
    dropped: int  # ids without a record
    schema: int  # of the data; 0: they have no mark
    last_fence: int  # of the last claim of any process


class ClaimRow(NamedTuple):
    """A claimed message."""

    id: bytes
    due: int  # ms
    record: bytes
    progress: bytes  # b"" if it was never tried
    permit: int  # 1: its request may be opened; 0: it waits for a permit of the process


class RecoverHead(NamedTuple):
    """The beginning of a reply of recover.lua."""

    cursor: bytes  # of the next call; b"0": all claims were checked
    returned: int  # how many messages are due again


class SettleArgs(NamedTuple):
    """A message for settle.lua."""

    id: bytes
    fence: int
    verdict: str
    ms: int  # how long the message is kept, or until its next attempt
    counts: str  # "attempts crashes"
    log: bytes
    reached: str  # whether the destination was reached: yes, no, or "" if that is unknown
    bucket: int | str  # number of the duration's bucket; "": the attempt is not counted
    permit: int  # 1: the process gives a permit back with it; 0: it had none, or passed it on


class RestoreArgs(NamedTuple):
    """A message for restore.lua."""

    id: bytes
    due: int  # ms
    created: int | str  # ms; "" for now
    rest: bytes  # its record from the 8th byte on
    progress: bytes  # b"" if it was never tried


class DestinationRow(NamedTuple):
    """A destination in a reply of read_destinations.lua."""

    name: bytes
    in_flight: int  # permits: open requests
    queued: int  # messages that wait for a permit in a process
    parked: int  # messages
    settings: bytes  # b"" if none are set
    failures: int  # to connect, in a row
    hold: bytes  # why no more messages may be leased now; b"" if more may be leased
    hold_until: int  # ms; -1 if time alone does not end it
    results: bytes  # of attempts in this hour and the last one


class InspectRow(NamedTuple):
    """What the keys have about a message."""

    id: bytes
    keys: bytes  # names of the keys that have the id, with spaces between them
    claim: bytes  # b"" if there is none
    head: bytes  # record up to the end of its URL; b"" if there is no record


class ClaimsRow(NamedTuple):
    """A destination in a reply of read_claims.lua."""

    parked: int  # messages
    settings: bytes  # b"" if none are set
    failures: bytes  # to connect, as they are stored; b"" if there are none
    watched: int  # 1 if it is in `opens` or `withheld`
    listed: int  # 1 if it is in `parking`


# Script → the shapes that its head comment names, in their order.
SHAPES: Final[dict[str, tuple[type[NamedTuple], ...]]] = {
    "create": (CreateArgs, CreateHead, CreateRow),
    "get": (GetReply,),
    "list": (ListHead, ListRow),
    "claim": (ClaimHead, ClaimRow),
    "settle": (SettleArgs,),
    "recover": (RecoverHead,),
    "restore": (RestoreArgs,),
    "read_destinations": (DestinationRow,),
    "inspect": (InspectRow,),
    "read_claims": (ClaimsRow,),
}
