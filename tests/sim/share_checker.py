"""Checks that a claim keeps enough of a process's slots free for destinations that are not slow."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from scheduler_api.store.claims import Claimed, Share

QUICK: Final = -1  # instead of a number of open requests; less than that: and it has some


def objection(share: Share, claimed: Sequence[Claimed]) -> str | None:
    """What is wrong with a claim of these messages, in their order.

    A slow destination may have twice what it leaves free of half of the slots. It may have one more
    if it has none open and a 32nd stays free, or if nothing at all is open. A message without a
    permit takes no slot: it waits behind a quick destination's requests, if there are slots for all
    that wait.
    """
    known = dict(zip(share.open[::2], share.open[1::2], strict=True))
    counts, free = Counter[bytes](), share.free
    for place, one in enumerate(claimed):
        name = one.destination
        count = known.get(name, 0)
        if not one.permit:
            is_quick = isinstance(count, int) and count <= QUICK
            open_ = is_quick and (count != QUICK or counts[name] > 0)
            if not open_ or place >= share.free - share.queued:
                return f"one more is queued for {name!r} with {share.queued} behind {share.free}"
            continue
        if share.slots and isinstance(count, int) and count > QUICK:  # else slots are not shared
            count += counts[name]
            first = free == share.slots or (count == 0 and free > share.slots // 32)
            if not first and count >= 2 * (free - share.slots / 2):
                return f"{count + 1} opened for {name!r} with {free} of {share.slots} slots free"
        counts[name] += 1
        free -= 1
    return None
