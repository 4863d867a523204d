-- Flow control: how many messages of a destination may be leased now, by its concurrency, its rate,
-- its pause and the probes of an unreachable one; and letting go what is parked when that changes.
-- needs: keys arguments clock places limits in_flight

-- When anything may be claimed next, ms, or -1: a message is due (or `early` ms before), or a
-- destination opens.
local function soonest(early)
  local due, opens = head(DUE), head(OPENS)
  if due >= 0 then due = math.max(0, due - (early or 0)) end
  if due < 0 or opens < 0 then return math.max(due, opens) end
  return math.min(due, opens)
end

local BREAKS_AT = 5 -- failures to connect in a row; from then on one probe at a time is sent

-- How often in a row a destination could not be connected to, and when the next probe may be sent.
local function failures(dest, now)
  local found = has_rules() and call('HGET', UNREACHABLE, dest) or ''
  local count, probe_at = found:match('^(%d+) (%d+)$')
  if not count then return 0, 0 end
  probe_at = tonumber(probe_at)
  return tonumber(count), probe_at > now + MAX_PAUSE and now or probe_at
end

-- A rate is kept by the generic cell rate algorithm: what is due later than `ahead` has to wait.
-- What a rate lets through in 100 ms may go at once, so that a high one takes few wake-ups; a low
-- one may be 10 ms ahead of its beat, so that a late timer does not make it slower.
local function beat(dest, interval, now)
  local ahead = math.max(10, 100 - interval)
  local next_at = tonumber(call('HGET', RATE, dest) or 0) or 0
  local believed = next_at <= now + ahead + interval + 1
  return believed and math.max(now, next_at) or now, ahead
end

-- How many more messages of a destination may be leased now. If none: why, and from when on, if it
-- is only a matter of time.
local function room(dest, limit, now)
  local most, interval, paused = settings(dest, limit)
  if paused then return 0, 'paused' end
  local failed, probe_at = failures(dest, now)
  local broken = failed >= BREAKS_AT
  if broken and now < probe_at then return 0, 'unreachable', probe_at end
  local free = (broken and 1 or most) - in_flight(dest)
  if free <= 0 then return 0, broken and 'unreachable' or 'full' end
  if interval == 0 then return free end
  local next_at, ahead = beat(dest, interval, now)
  local in_time = math.floor((now + ahead - next_at) / interval) + 1
  if in_time <= 0 then return 0, 'rate', math.ceil(next_at - ahead / 2) end
  return math.min(free, in_time)
end

-- Whether anything of a destination is parked; if not, it is struck off the list of those.
local function still_parked(dest)
  if call('EXISTS', PARKED .. dest) == 1 then return true end
  call('SREM', PARKING, dest)
  return false
end

local UNPARKED_AT_ONCE = 100 -- of one destination; the next claim goes on

-- After every change that can open a slot: one message for each open slot goes back to `due`.
-- (Handing over just one strands the rest when that one is cancelled before its claim.)
-- Notes in `opens` when to look again, if time decides. `most`: no more than these. `opened`: how many
-- slots have just opened; where claims withhold the others, only so many go. Claims let go the rest
-- themselves: here the shares are unknown, and all but a few would be read and parked again.
-- Returns how many.
local function unpark(dest, limit, now, most, opened)
  local free, _, opens_at = room(dest, limit, now)
  if free == 0 then
    if opens_at and still_parked(dest) then call('ZADD', OPENS, opens_at, dest) end
    return 0
  end
  local count = math.min(free, most or UNPARKED_AT_ONCE, UNPARKED_AT_ONCE)
  local freed = call('ZPOPMIN', PARKED .. dest, math.min(count, opened or count))
  if #freed == 0 then return 0 end
  if #freed / 2 == opened and opened < count and not call('ZSCORE', WITHHELD, dest) then
    for _, value in ipairs(call('ZPOPMIN', PARKED .. dest, count - opened)) do append(freed, value) end
  end
  local ids, dues = {}, {}
  for i = 1, #freed, 2 do
    append(ids, freed[i])
    append(dues, freed[i + 1], freed[i])
  end
  call('ZREM', TAKEN, unpack(ids))
  call('ZADD', DUE, unpack(dues))
  local moved = #freed / 2
  if still_parked(dest) and not most and free > moved and moved == UNPARKED_AT_ONCE then
    call('ZADD', OPENS, now, dest)
  end
  return moved
end
