"""Mistakes that are known to be made, each planted to see it caught: the simulation's own test.

A mistake is in a script (text there → what is put in its place) or in what a process does
(replica.Rules). A text that is not found exactly once is an error: the list follows the scripts.
"""

from importlib.resources import files
from typing import Final

import msgspec

from scheduler_api.store.scripts import NAMES, source
from tests.sim.replica import Rules

PRELUDE: Final = "prelude"
SEAM: Final = "call('ECHO', 'seam')"  # where one script stands for two calls


class Planted(msgspec.Struct, frozen=True):
    """One mistake."""

    name: str  # what is done wrong, in words
    script: str | None = None  # a file of lua/
    right: str = ""
    wrong: str = ""
    rules: Rules = Rules()

    def sources(self) -> dict[str, str]:
        """Script as it is → with the mistake. Raises: ValueError, if it has no place there."""
        if self.script is None:
            return {}
        if self.script == PRELUDE:
            prelude = self._spoilt(_text(PRELUDE))
            return {source(name): source(name, prelude) for name in NAMES}
        whole, own = source(self.script), _own(self.script)
        return {whole: whole.replace(own, self._spoilt(own))}

    def _spoilt(self, text: str) -> str:
        if text.count(self.right) != 1:
            raise ValueError(f"{self.name!r} has {text.count(self.right)} places in {self.script}")
        return text.replace(self.right, self.wrong)


def _text(name: str) -> str:
    return (files("scheduler_api.store") / "lua" / f"{name}.lua").read_text()


def _own(name: str) -> str:
    """What is the script's own, without the first line."""
    return _text(name).partition("\n")[2]


def _rule(name: str, **broken: bool) -> Planted:
    return Planted(name, rules=Rules(**broken))


PLANTED: Final = (
    Planted(
        "an outcome is taken without a look at its fence",
        PRELUDE,
        "if its_fence == fence and its_epoch == epoch then",
        "if its_epoch == epoch then",
    ),
    Planted(
        "an outcome is taken without a look at its process",
        PRELUDE,
        "if its_fence == fence and its_epoch == epoch then",
        "if its_fence == fence then",
    ),
    Planted(
        "a claim takes out of due in one call and leases in another",
        "claim",
        "if #gone > 0 then call('ZREM', DUE, unpack(gone)) end",
        f"if #gone > 0 then call('ZREM', DUE, unpack(gone)) end {SEAM}",
    ),
    Planted(
        "a create writes its place in one call and its record in another",
        "create",
        "  call('HSET', PAYLOADS, id, '\\1' .. u48(now) .. u48(due) .. tail)\n"
        "  call('ZADD', DUE, due, id)",
        f"  call('ZADD', DUE, due, id) {SEAM}\n"
        "  call('HSET', PAYLOADS, id, '\\1' .. u48(now) .. u48(due) .. tail)",
    ),
    Planted(
        "a settle ends the claim in one call and puts the message back in another",
        "settle",
        "  drop_claim(id, dest)\n",
        f"  drop_claim(id, dest) {SEAM}\n",
    ),
    Planted(
        "the same nonce claims other messages",
        "claim",
        "if last and last:match(' (%S+)$') == nonce then return again() end",
        "",
    ),
    Planted(
        "a claim that is asked for again keeps the lease of the lost one",
        "claim",
        "call('ZADD', LEASES, now + lease, claims[i])",
        "",
    ),
    Planted(
        "a claim exceeds the limit by one",
        "claim",
        "if rooms[dest] == 0 then",
        "if rooms[dest] == -1 then",
    ),
    Planted(
        "what is over the limit is parked where nobody looks",
        "claim",
        "  call('ZADD', PARKED .. dest, unpack(waiting))\n",
        "",
    ),
    Planted(
        "freed slots are handed to one parked message",
        PRELUDE,
        "call('ZPOPMIN', PARKED .. dest, math.min(free, UNPARKED_AT_ONCE))",
        "call('ZPOPMIN', PARKED .. dest, 1)",
    ),
    Planted(
        "a cancelled message keeps the slot that it was handed",
        "cancel",
        "unpark(dest, limit, clock())",
        "",
    ),
    Planted(
        "a message on the wire can be cancelled",
        "cancel",
        "if where == 'leased' then return 'in_flight' end",
        "",
    ),
    Planted(
        "an ended claim stays counted as in flight",
        PRELUDE,
        "if call('HINCRBY', INFLIGHT, dest, -1) <= 0 then call('HDEL', INFLIGHT, dest) end",
        "",
    ),
    Planted(
        "a crash is not counted",
        PRELUDE,
        "return attempts, crashes + 1, rest",
        "return attempts, tonumber(crashes), rest",
    ),
    Planted(
        "a crash forgets the attempts made",
        PRELUDE,
        "return attempts, crashes + 1, rest",
        "return 0, crashes + 1, rest",
    ),
    Planted(
        "with the leases that ran out the others are reaped",
        "reap",
        "call('ZRANGE', LEASES, '-inf', now, 'BYSCORE'",
        "call('ZRANGE', LEASES, '-inf', '+inf', 'BYSCORE'",
    ),
    Planted(
        "a renewal revives a lease that was reaped",
        "renew",
        "if dest then call('ZADD', LEASES, now + lease, ARGV[i]) end",
        "call('ZADD', LEASES, now + lease, ARGV[i])",
    ),
    Planted(
        "what is released is not due again",
        "release",
        "    call('ZADD', DUE, due, id)\n",
        "",
    ),
    Planted(
        "a retry is due by a clock that is slow",
        "settle",
        "call('ZADD', DUE, now + ms, id)",
        "call('ZADD', DUE, now - 2000 + ms, id)",
    ),
    Planted(
        "a create replaces what is pending",
        "create",
        "if not finished or identical(old, due, tail, relative) then",
        "if identical(old, due, tail, relative) then",
    ),
    Planted(
        "a create that is asked for again sends again",
        "create",
        "if not finished or identical(old, due, tail, relative) then",
        "if not finished then",
    ),
    Planted(
        "the list leaves out what is leased or parked",
        "list",
        "local due, taken = page_of(DUE), page_of(TAKEN)",
        "local due, taken = page_of(DUE), {}",
    ),
    Planted(
        "what is purged leaves its progress",
        PRELUDE,
        "  call('HDEL', PROGRESS, id)\nend",
        "end",
    ),
    Planted(
        "the purge takes what is pending",
        "purge",
        "ipairs({DELIVERED, FAILED})",
        "ipairs({DELIVERED, FAILED, DUE})",
    ),
    Planted(
        "a restart of the store grants nobody the time to settle",
        "greet",
        "outage_until = known and now + lease or 0",
        "outage_until = 0",
    ),
    _rule("a claim without a reply is asked for with a new nonce", keeps_nonce=False),
    _rule("a request is started after its lease's end", heeds_deadline=False),
    _rule("a store that comes back is reaped at once", waits_to_reap=False),
    _rule("an outcome without a reply is not told again", repeats_settle=False),
    _rule("a 201 is answered before the store has written", answers_what_was_written=False),
)
