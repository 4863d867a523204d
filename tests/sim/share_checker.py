"""Checks that a claim keeps enough of a process's slots free for destinations that are not slow."""

from collections import Counter
from collections.abc import Sequence

from scheduler_api.store.claims import Share


def objection(share: Share, claimed: Sequence[bytes]) -> str | None:
    """What is wrong with a claim for these destinations, in their order.

    A slow one may have twice what it leaves free of half of the slots. It may have one more if it
    has none open and a 32nd stays free, or if nothing at all is open.
    """
    if not share.slots:  # slots are not shared
        return None
    known = dict(zip(share.open[::2], share.open[1::2], strict=True))
    counts, free = Counter[bytes](), share.free
    for name in claimed:
        count = known.get(name, 0)
        if isinstance(count, int) and count >= 0:
            count += counts[name]
            first = free == share.slots or (count == 0 and free > share.slots // 32)
            if not first and count >= 2 * (free - share.slots / 2):
                return f"{count + 1} opened for {name!r} with {free} of {share.slots} slots free"
        counts[name] += 1
        free -= 1
    return None
