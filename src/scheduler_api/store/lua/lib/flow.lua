-- Flow control: how many messages of a destination may be leased now, by its concurrency, its rate,
-- its pause and the probes of an unreachable one; and unparking when that changes.
-- needs: keys arguments clock places limits in_flight

local BREAKS_AT = 5 -- failures to connect in a row; from then on one probe at a time is sent
local UNPARK_BATCH = 100 -- messages of one destination; the next claim unparks more

-- When anything may be claimed next, ms, or -1: a message is due (or `early` ms before), or a
-- destination opens.
local function soonest(early)
  local due, opens = head(DUE), head(OPENS)
  if due >= 0 then due = math.max(0, due - (early or 0)) end
  if due < 0 or opens < 0 then return math.max(due, opens) end
  return math.min(due, opens)
end

-- How many connections to a destination failed in a row, and when the next probe may be sent, ms.
local function failures(dest, now)
  local found = has_rules() and call('HGET', UNREACHABLE, dest) or ''
  local count, probe_at = found:match('^(%d+) (%d+)$')
  if not count then return 0, 0 end
  probe_at = tonumber(probe_at)
  return tonumber(count), probe_at > now + MAX_PAUSE and now or probe_at
end

-- When a destination's rate lets the next message through, ms, and how far ahead of that it may go.
-- A rate is kept by the generic cell rate algorithm: a message that is due later than `ahead` waits.
-- Messages that a rate lets through in 100 ms may go at once, so that a high rate needs few wake-ups;
-- with a low rate one may be 10 ms early, so that a late timer does not make it slower.
local function next_by_rate(dest, interval, now)
  local ahead = math.max(10, 100 - interval)
  local next_at = tonumber(call('HGET', RATE, dest) or 0) or 0
  local believed = next_at <= now + ahead + interval + 1
  return believed and math.max(now, next_at) or now, ahead
end

-- How many more requests to a destination may be opened now. If none: why, and from when on, ms, if
-- it is only a matter of time. Fourth, whether processes may lease more messages than that, which wait
-- for the permits of their open requests: not above a lowered limit, nor where time decides.
local function room(dest, limit_share, now)
  local max_leased, interval, paused = settings(dest, limit_share)
  if paused then return 0, 'paused' end
  local failed, probe_at = failures(dest, now)
  local broken = failed >= BREAKS_AT
  if broken and now < probe_at then return 0, 'unreachable', probe_at end
  local free = (broken and 1 or max_leased) - in_flight(dest)
  local may_queue = free >= 0 and interval == 0 and not broken
  if free <= 0 then return 0, broken and 'unreachable' or 'full', nil, may_queue end
  if interval == 0 then return free, nil, nil, may_queue end
  local next_at, ahead = next_by_rate(dest, interval, now)
  local in_time = math.floor((now + ahead - next_at) / interval) + 1
  if in_time <= 0 then return 0, 'rate', math.ceil(next_at - ahead / 2) end
  return math.min(free, in_time)
end

-- Puts parked messages of a destination back into `due`: one for each slot that is free. Called after
-- every change that can free a slot. (If only one were unparked and then cancelled before its claim,
-- the others would stay parked.) Writes into `opens` when to try again, if that depends on time alone.
-- `max_count`: no more messages than this. `opened`: how many slots this change freed; where claims
-- withhold the other parked messages, no more than these. (Only a claim knows the shares of a
-- process: it would read most of the others, and park them again.)
-- Returns how many messages; and whether processes may lease more, which wait for permits, see `room`.
local function unpark(dest, limit_share, now, max_count, opened)
  local free, _, opens_at, may_queue = room(dest, limit_share, now)
  if free == 0 then
    if opens_at and still_parked(dest) then call('ZADD', OPENS, opens_at, dest) end
    return 0, may_queue
  end
  local count = math.min(free, max_count or UNPARK_BATCH, UNPARK_BATCH)
  local popped = pop_parked(dest, math.min(count, opened or count))
  if #popped == 0 then return 0, may_queue end
  if #popped / 2 == opened and opened < count and not call('ZSCORE', WITHHELD, dest) then
    for _, value in ipairs(pop_parked(dest, count - opened)) do append(popped, value) end
  end
  enqueue_parked(popped)
  local moved = #popped / 2
  if still_parked(dest) and not max_count and free > moved and moved == UNPARK_BATCH then
    call('ZADD', OPENS, now, dest)
  end
  return moved, may_queue
end

-- Unparks messages that wait for their destination's rate, or for the next probe, of up to `count`
-- destinations that have opened.
local function unpark_opened(limit_share, now, count)
  local moved = 0
  for _, dest in ipairs(call('ZRANGE', OPENS, '-inf', now, 'BYSCORE', 'LIMIT', 0, count)) do
    call('ZREM', OPENS, dest)
    moved = moved + unpark(dest, limit_share, now)
    if moved > 2 * UNPARK_BATCH then return end
  end
end
