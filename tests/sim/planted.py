"""Mistakes that are known to be made, each planted to see it caught: the simulation's own test.

A mistake is in a script (text there → what is put in its place) or in what a process does
(replica.Rules). A text that is not found exactly once is an error: the list follows the scripts.
"""

from typing import Final

import msgspec

from scheduler_api.store.connection.script_text import NAMES, lua_text, path_of, source
from tests.sim.model import OTHER, PARTITIONS
from tests.sim.replica import Rules

SEAM: Final = "call('ECHO', 'seam')"  # where one script acts as two calls


class Planted(msgspec.Struct, frozen=True):
    """One mistake."""

    name: str  # what is done wrong, in words
    script: str | None = None  # its name, or that of a file in lua/: "lib/claims"
    right: str = ""
    wrong: str = ""
    rules: Rules = Rules()

    def sources(self) -> dict[str, str]:
        """Script as it is → with the mistake. Raises: ValueError, if it has no place there."""
        if self.script is None:
            return {}
        numbers = (*PARTITIONS, OTHER)
        folder, _, lib = self.script.rpartition("/")
        if folder:
            libs = {lib: self._spoilt(lua_text(f"{self.script}.lua"))}
            every = [(name, number) for name in NAMES for number in numbers]
            changed = {source(name, None, n): source(name, libs, n) for name, n in every}
            return {script: spoilt for script, spoilt in changed.items() if script != spoilt}
        own = _own(self.script)
        spoilt, wholes = self._spoilt(own), [source(self.script, None, n) for n in numbers]
        return {whole: whole.replace(own, spoilt) for whole in wholes}

    def _spoilt(self, text: str) -> str:
        if text.count(self.right) != 1:
            raise ValueError(f"{self.name!r} has {text.count(self.right)} places in {self.script}")
        return text.replace(self.right, self.wrong)


def _own(name: str) -> str:
    """What is the script's own, without the first line."""
    return lua_text(path_of(name)).partition("\n")[2]


def _rule(name: str, **broken: bool) -> Planted:
    return Planted(name, rules=Rules(**broken))


PLANTED: Final = (
    Planted(
        "settle accepts an outcome with another fence",
        "lib/claims",
        "if its_fence == fence and its_worker_id == worker_id then",
        "if its_worker_id == worker_id then",
    ),
    Planted(
        "settle accepts an outcome of another process",
        "lib/claims",
        "if its_fence == fence and its_worker_id == worker_id then",
        "if its_fence == fence then",
    ),
    Planted(
        "the number of partitions is not compared",
        "lib/data",
        "if partitions and partitions ~= PARTITIONS then",
        "if false then",
    ),
    Planted(
        "a partition without a mark accepts messages",
        "lib/data",
        "  if not partitions and not may_be_unmarked then error({err = 'UNMARKED'}) end\n",
        "",
    ),
    Planted(
        "a partition that the data do not have is marked",
        "check_schema",
        "if ARGV[3] ~= '1' and call('HEXISTS', META, 'partitions') == 0 then return 0 end",
        "",
    ),
    Planted(
        "claim takes messages out of `due` in one call and leases them in another",
        "claim",
        "set_leases(ends)\nif",
        f"{SEAM} set_leases(ends)\nif",
    ),
    Planted(
        "create writes the place in one call and the record in another",
        "create",
        "  call('HSET', PAYLOADS, unpack(records))\n  enqueue(dues)",
        f"  enqueue(dues) {SEAM}\n  call('HSET', PAYLOADS, unpack(records))",
    ),
    Planted(
        "settle ends the claim in one call and puts the message back in another",
        "settle",
        "  drop_claims(settled, worker_id, ended, given_back)\n",
        f"  drop_claims(settled, worker_id, ended, given_back) {SEAM}\n",
    ),
    Planted(
        "claim returns other messages for a repeated nonce",
        "claim",
        "if last_nonce == nonce then return again(tonumber(last_at)) end",
        "",
    ),
    Planted(
        "a repeated claim does not renew the leases of the lost one",
        "claim",
        "  set_leases(ends) -- whole again",
        "  -- whole again",
    ),
    Planted(
        "claim exceeds the limit by one",
        "claim",
        "  if rooms[dest] > 0 then\n",
        "  if rooms[dest] > -1 then\n",
    ),
    Planted(
        "claim gives a slow destination any slot",
        "claim",
        "if slots == 0 or opened < 0 then",
        "if slots == 0 or opened < 99 then",
    ),
    Planted(
        "a destination without a slot is not added to `withheld`",
        "claim",
        "  if withheld[dest] then withhold(dest) end\n",
        "",
    ),
    Planted(
        "claims do not read that `withheld` has entries",
        "claim",
        "  call('HSET', META, 'withheld', 1)\n",
        "",
    ),
    Planted(
        "a destination is removed from `withheld` while its messages are parked",
        "claim",
        "if has_room and still_parked(dest) then",
        "if false then",
    ),
    Planted(
        "claim does not ask to be repeated for withheld destinations",
        "claim",
        "if withholds and (next_at < 0",
        "if false and (next_at < 0",
    ),
    Planted(
        "parked messages that are too large for a claim are in no place after it",
        "claim",
        "if #undecided > 0 then enqueue_parked(undecided) end",
        "",
    ),
    Planted(
        "messages over the limit are in no `parked` set",
        "lib/places",
        "  call('ZADD', PARKED .. dest, unpack(dues))\n",
        "",
    ),
    Planted(
        "freed slots unpark only one message",
        "lib/flow",
        "math.min(free, max_count or UNPARK_BATCH, UNPARK_BATCH)",
        "1",
    ),
    Planted(
        "an unparked message is also listed as taken out of `due`",
        "lib/places",
        "  call('ZREM', TAKEN, unpack(ids))\n  enqueue(dues)",
        "  enqueue(dues)",
    ),
    Planted(
        "a finished message that is replaced stays in its finished state",
        "create",
        "    remove_finished(replaced)\n",
        "",
    ),
    Planted(
        "cancel does not pass on the slot of an unparked message",
        "cancel",
        "unpark(dest, limit_share, clock(), nil, 1)",
        "",
    ),
    Planted(
        "cancel removes a leased message",
        "cancel",
        "if place == 'leased' then return 'in_flight' end",
        "",
    ),
    Planted(
        "an ended claim stays counted as in flight",
        "lib/claims",
        "    end_claims(dest, worker_id, ended[dest], given_back[dest] or 0)\n",
        "",
    ),
    Planted(
        "a crash is not counted",
        "lib/crashes",
        "return attempts or 0, (crashes or 0) + 1, log or '\\144'",
        "return attempts or 0, tonumber(crashes or 0), log or '\\144'",
    ),
    Planted(
        "a crash forgets the attempts made",
        "lib/crashes",
        "return attempts or 0, (crashes or 0) + 1, log or '\\144'",
        "return 0, (crashes or 0) + 1, log or '\\144'",
    ),
    Planted(
        "reap takes back leases that have not ended",
        "reap",
        "call('ZRANGE', LEASES, '-inf', now, 'BYSCORE'",
        "call('ZRANGE', LEASES, '-inf', '+inf', 'BYSCORE'",
    ),
    Planted(
        "renew revives a lease that was reaped",
        "renew",
        "if dest then append(ends, now + lease, id) end",
        "append(ends, now + lease, id)",
    ),
    Planted(
        "release does not put the message back into `due`",
        "release",
        "\nenqueue(dues)\n",
        "\n",
    ),
    Planted(
        "release forgets the nonce of a claim whose reply was lost",
        "release",
        "  call('SPUBLISH', WAKEUP, now)\nelse\n",
        "  call('SPUBLISH', WAKEUP, now)\nend\ndo\n",
    ),
    Planted(
        "a lease without a claim stops its partition",
        "reap",
        "  if not dest then\n",
        "  if not dest:lower() then\n",
    ),
    Planted(
        "a claim that `taken` has lost stops its partition",
        "lib/claims",
        "    or math.max(now, scheduled_of(call('HGET', PAYLOADS, id) or ''))\n",
        "",
    ),
    Planted(
        "a damaged count of permits stops its partition",
        "lib/in_flight",
        "'%S+ (%d+) %d+'",
        "'%S+ (%S+) %d+'",
    ),
    Planted(
        "a retry is due too early",
        "settle",
        "append(places[verdict], now + ms, id)",
        "append(places[verdict], now - 2000 + ms, id)",
    ),
    Planted(
        "create replaces a pending message",
        "create",
        "if not FINISHED[place] or identical(old, due, tail, relative) then",
        "if identical(old, due, tail, relative) then",
    ),
    Planted(
        "create accepts a repeated request of a finished message",
        "create",
        "if not FINISHED[place] or identical(old, due, tail, relative) then",
        "if not FINISHED[place] then",
    ),
    Planted(
        "a repeated delay is refused as long as its message is kept",
        "create",
        "if relative then return now - created_of(old) <= REPEAT_WITHIN end",
        "if relative then return true end",
    ),
    Planted(
        "list leaves out leased and parked messages",
        "list",
        "local due, taken = page_of(DUE), page_of(TAKEN)",
        "local due, taken = page_of(DUE), {}",
    ),
    Planted(
        "the ports of http and https make other destinations",
        "lib/record",
        "name = (port == ':80' or port == ':443') and host or host .. (port or '')",
        "name = host .. (port or '')",
    ),
    Planted(
        "a final dot makes another destination",
        "lib/record",
        "host = (host or authority):gsub('%.$', '')",
        "host = host or authority",
    ),
    Planted(
        "the list of destinations leaves out those with settings",
        "list_destinations",
        "which == 'limits' and LIMITS or INFLIGHT",
        "INFLIGHT",
    ),
    Planted(
        "the list of destinations leaves out those whose messages all wait for permits",
        "read_destinations",
        "append(reply, queued_claims(dest), call",
        "append(reply, 0, call",
    ),
    Planted(
        "a forgotten message leaves its progress",
        "lib/finished",
        "  call('HDEL', PROGRESS, unpack(ids))\nend",
        "end",
    ),
    Planted(
        "purge forgets pending messages",
        "purge",
        "for _, state in ipairs(STATES) do",
        "FINISHED.due = DUE\nfor _, state in ipairs({'delivered', 'failed', 'due'}) do",
    ),
    Planted(
        "trim forgets pending messages",
        "trim",
        "for _, state in ipairs(STATES) do",
        "FINISHED.due = DUE\nfor _, state in ipairs({'delivered', 'failed', 'due'}) do",
    ),
    Planted(
        "a forgotten message stays in its finished state",
        "lib/finished",
        "  call('ZREM', FINISHED[state], unpack(ids))\n  forget(ids)",
        "  forget(ids)",
    ),
    Planted(
        "a restart of the store gives no time to settle",
        "note_restart",
        "outage_until = known and now + lease or 0",
        "outage_until = 0",
    ),
    Planted(
        "the limit in the settings of a destination is ignored",
        "lib/limits",
        "return concurrency > 0 and concurrency or limit_share, tonumber(interval) or 0",
        "return limit_share, tonumber(interval) or 0",
    ),
    Planted(
        "claim leases messages of a paused destination",
        "lib/flow",
        "if paused then return 0, 'paused' end",
        "",
    ),
    Planted(
        "claimed messages are not charged to the rate",
        "claim",
        "call('HSET', RATE, dest, ",
        "string.format('%s %s', dest, ",
    ),
    Planted(
        "the instant at which a rate opens is not stored",
        "lib/flow",
        "    if opens_at and still_parked(dest) then call('ZADD', OPENS, opens_at, dest) end\n",
        "",
    ),
    Planted(
        "set_limit does not unpark messages",
        "set_limit",
        "  call('ZADD', OPENS, now, dest)\n",
        "",
    ),
    Planted(
        "an unreachable destination gets several probes at a time",
        "lib/flow",
        "(broken and 1 or max_leased)",
        "max_leased",
    ),
    Planted(
        "a probe is sent before its time",
        "lib/flow",
        "if broken and now < probe_at then return 0, 'unreachable', probe_at end",
        "",
    ),
    Planted(
        "a response does not end the count of failures to connect",
        "settle",
        "if failed > 0 then call('HDEL', UNREACHABLE, dest) end",
        "",
    ),
    Planted(
        "recover takes back the claims of a process that is alive",
        "recover",
        "if its_worker_id == worker_id and not dests[id]",
        "if not dests[id]",
    ),
    Planted(
        "restore replaces a pending message",
        "restore",
        "  if old then return same_message(old, rest) and 'same' or 'other' end\n",
        "",
    ),
    Planted(
        "repair leaves a message in no place",
        "repair",
        "    enqueue({due, id})\n",
        "",
    ),
    Planted(
        "recount_claims does not correct the counts in flight",
        "recount_claims",
        "recount(dests)\n",
        "",
    ),
    Planted(
        "settle gives back a permit that was passed on",
        "settle",
        "if permit == '1' then",
        "if true then",
    ),
    Planted(
        "settle gives no permit back",
        "settle",
        "if permit == '1' then",
        "if false then",
    ),
    Planted(
        "an outcome that is refused gives a permit back",
        "settle",
        "if not dest then return 'stale' end",
        "if not dest then\n"
        "local its = (claims[id] or ''):match('^%d+ %S+ %S+ (%S+)')\n"
        "if not its then return 'stale' end\n"
        "local permits, number, others = counts_of(its, worker_id)\n"
        "set_counts(its, worker_id, permits - permit, number, others)\n"
        "write_counts() return 'stale' end",
    ),
    Planted(
        "release gives no permit back",
        "release",
        "if ARGV[i + 2] == '1' then",
        "if false then",
    ),
    Planted(
        "a process keeps more permits than claims",
        "lib/in_flight",
        "math.min(permits - given_back, claims)",
        "permits - given_back",
    ),
    Planted(
        "a count that is corrected loses the permits of open requests",
        "lib/in_flight",
        "math.min(old[worker_id], its_claims)",
        "0",
    ),
    Planted(
        "a count that is lost comes back without permits",
        "lib/in_flight",
        "permits or math.huge",
        "permits or 0",
    ),
    Planted(
        "a repeated claim returns each message with a permit",
        "claim",
        "take(id, due_of(id, now), record, permit)",
        "take(id, due_of(id, now), record, 1)",
    ),
    Planted(
        "a repeated claim returns no permits",
        "claim",
        "take(id, due_of(id, now), record, permit)",
        "take(id, due_of(id, now), record, 0)",
    ),
    Planted(
        "messages wait for the permits of a destination over its lowered limit",
        "lib/flow",
        "local may_queue = free >= 0 and",
        "local may_queue =",
    ),
    Planted(
        "messages wait for the permits of a paused destination",
        "lib/flow",
        "return 0, 'paused' end",
        "return 0, 'paused', nil, true end",
    ),
    Planted(
        "messages wait for the permits of a destination with a rate",
        "lib/flow",
        "and interval == 0 and not broken",
        "and not broken",
    ),
    Planted(
        "messages wait for the permit of a probe",
        "lib/flow",
        "and interval == 0 and not broken",
        "and interval == 0",
    ),
    Planted(
        "messages wait for the permits of a slow destination",
        "lib/queueing",
        "local is_sent_to = opened == -2 or",
        "local is_sent_to = true or opened == -2 or",
    ),
    Planted(
        "more messages wait for each permit than may",
        "lib/queueing",
        "local QUEUED_PER_PERMIT = 3",
        "local QUEUED_PER_PERMIT = 4",
    ),
    Planted(
        "more messages wait for permits than slots are free",
        "claim",
        "#ids >= free_slots - queued",
        "#ids >= free_slots",
    ),
    Planted(
        "an outcome unparks messages of a destination that is paused or full",
        "lib/flow",
        "local free, _, opens_at, may_queue = room(dest, limit_share, now)",
        "local free, opens_at, may_queue = 1",
    ),
    _rule("a queued message is sent before it has a permit", waits_for_permit=False),
    _rule("a permit is passed on and given back as well", gives_permit_once=False),
    _rule("a claim without a reply is repeated with a new nonce", keeps_nonce=False),
    _rule("a request is started after its lease's end", heeds_deadline=False),
    _rule("a message claimed ahead is sent before it is due", heeds_instant=False),
    _rule("leases are reaped as soon as the store is back", waits_to_reap=False),
    _rule("a settle without a reply is not repeated", repeats_settle=False),
    _rule("a 201 is sent before the store has written", answers_what_was_written=False),
)
