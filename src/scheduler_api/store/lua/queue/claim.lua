#!lua flags=allow-oom
-- Leases due messages to one process; parks what its destination may not get now.
--
-- ARGV[1] how many (1–100)   ARGV[2] lease, ms   ARGV[3] epoch of the process
-- ARGV[4] nonce: the same again returns the same set again
-- ARGV[5] limit of a destination   ARGV[6] ms ahead of its instant that a message may be leased
-- ARGV[7] slots of the process; 0: it does not ration them   ARGV[8] how many of them are free
-- ARGV[9…] destination, requests that the process has open to it, for each that it knows; -1: the
--          destination answers quickly and may have any slot
-- Returns {now, fence, when anything may be claimed next, head of `leases` (ms, -1: never), number
--          of ids dropped because they had no record, schema of the data (0: they bear no mark),
--          fence of the last claim of any process, then id, due ms, record, progress ('' if never
--          tried) for each}
-- needs: keys data arguments clock record in_flight places limits finished claims flow
local schema, last_fence, withholds = check_data(true)
local most, lease, epoch, nonce = number(ARGV[1]), number(ARGV[2]), ARGV[3], ARGV[4]
local limit, ahead, now = number(ARGV[5]), number(ARGV[6]), clock()
local slots, free_slots = number(ARGV[7]), number(ARGV[8])
local early = math.floor(ahead / 2) -- a claim is due so much before the head: it may take several
local LOOK = 128 -- ids looked at from each end of what is due
local OPENED = 16 -- destinations whose time has come, looked at in one call
local LOOK_AGAIN = 250 -- ms until a process looks again at destinations that it has no slot for
local KEPT = math.floor(slots / 32) -- slots for destinations that answer quickly
local AT_ONE_INSTANT = 1000 -- leases that end in one ms, of which a lost claim's are sought
local BYTES = 4 * 1024 * 1024 -- of records taken, so that large bodies cannot block

local ids, dues, records = {}, {}, {} -- of the messages that are returned
local bytes, missing = 0, {} -- of the records; ids without one

local function answer(fence, next_at, next_end, last)
  local again_at = now + LOOK_AGAIN
  if withholds and (next_at < 0 or next_at > again_at) then next_at = again_at end
  local reply = {now, tonumber(fence), next_at, next_end, #missing, schema, last}
  local progress = #ids > 0 and call('HMGET', PROGRESS, unpack(ids))
  for i, id in ipairs(ids) do
    append(reply, id, dues[i])
    append(reply, records[i], progress[i] or '')
  end
  return reply
end

local open = {} -- requests that the process has to each destination, those of this call included
for i = 9, #ARGV, 2 do open[ARGV[i]] = number(ARGV[i + 1]) end

-- How many more requests the process may open to a destination. Slow destinations share half of the
-- slots: each may have twice as many as it leaves free of that half, so that however many of them
-- there are, some stay free. Of the other half each destination gets one to begin with.
local function share(dest)
  local count, left = open[dest] or 0, free_slots - #ids
  if slots == 0 or count < 0 then return math.huge end
  local more = math.ceil((2 * left - slots - count) / 3)
  if count == 0 and left > KEPT or left == slots then return math.max(1, more) end
  return math.max(0, more)
end

local function take(id, due, record)
  append(ids, id)
  append(dues, tonumber(due))
  append(records, record)
end

-- The claim that the process made at `at` and got no reply to. Its leases still end at one instant,
-- as the process does not know of them and renews none; few others do.
local function again(at)
  local fence, ends = 0, at + lease
  local leased = call('ZRANGE', LEASES, ends, ends, 'BYSCORE', 'LIMIT', 0, AT_ONE_INSTANT)
  local claims = #leased > 0 and call('HMGET', CLAIMS, unpack(leased))
  for i, id in ipairs(leased) do
    local its_fence, its_epoch, its_nonce = split_claim(claims[i])
    local record = its_epoch == epoch and its_nonce == nonce and call('HGET', PAYLOADS, id)
    if record then
      fence = its_fence
      -- Anew: the process reckons the leases from its last call, not from the one that got lost.
      call('ZADD', LEASES, now + lease, id)
      take(id, due_of(id, now), record)
    end
  end
  call('HSET', WORKERS, epoch, now .. ' ' .. nonce)
  return answer(fence, soonest(early), head(LEASES), last_fence)
end

-- What is due, alternately from the oldest and the newest: a backlog must not hide what is fresh.
local function due_now()
  local latest = now + ahead
  local old = call('ZRANGE', DUE, '-inf', latest, 'BYSCORE', 'LIMIT', 0, LOOK, 'WITHSCORES')
  if #old < 2 * LOOK then return old end
  -- Where so much is overdue, nothing is leased ahead, to wait in a slot that another could use.
  local new = call('ZRANGE', DUE, now, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, LOOK, 'WITHSCORES')
  if #new < 2 * LOOK then return old end -- most of it is due in a moment only, and none is hidden
  local both, seen = {}, {}
  for i = 1, 2 * LOOK, 2 do
    for _, from in ipairs({old, new}) do
      if not seen[from[i]] then
        seen[from[i]] = true
        append(both, from[i], from[i + 1])
      end
    end
  end
  return both
end

-- Most looks of a process at rest find nothing, and shall cost next to nothing: where nobody holds a
-- lease, none was lost with a reply.
local next_end = head(LEASES)
local last = next_end >= 0 and call('HGET', WORKERS, epoch)
local last_at, last_nonce = (last or ''):match('^(%d+) (%S+)$')
if last_nonce == nonce then return again(tonumber(last_at)) end

local first = soonest(early)
if not withholds and (first < 0 or first > now) then return answer(0, first, next_end, last_fence) end

-- Lets go on what waits for a destination's rate, or for the next probe.
local function let_go()
  local moved = 0
  for _, dest in ipairs(call('ZRANGE', OPENS, '-inf', now, 'BYSCORE', 'LIMIT', 0, OPENED)) do
    call('ZREM', OPENS, dest)
    moved = moved + unpark(dest, limit, now)
    if moved > 2 * LOOK then return end
  end
end

-- Lets go on what waits for a slot of a process, if this one has some for it. Those that were looked
-- at last come last, so that all have their turn.
local function reopen()
  if not withholds then return end
  for _, dest in ipairs(call('ZRANGE', WITHHELD, 0, OPENED - 1)) do
    local has_room, count = room(dest, limit, now) > 0, share(dest)
    if count > 0 or not has_room then unpark(dest, limit, now, count) end
    if has_room and still_parked(dest) then
      call('ZADD', WITHHELD, now, dest)
    else
      call('ZREM', WITHHELD, dest) -- what is still parked has another reason
    end
  end
  withholds = call('EXISTS', WITHHELD) == 1
  if not withholds then call('HDEL', META, 'withheld') end
end

-- Notes that messages were parked for want of a slot of this process; others may have one.
local function withhold(dest)
  if withholds and call('ZSCORE', WITHHELD, dest) then return end
  call('ZADD', WITHHELD, now, dest)
  call('HSET', META, 'withheld', 1)
  call('SPUBLISH', WAKEUP, now)
  withholds = true
end

-- Counts what was leased for a destination's rate; whether it has one.
local function spend(dest, count)
  local _, interval = settings(dest, limit)
  if interval == 0 then return false end
  call('HSET', RATE, dest, string.format('%.3f', beat(dest, interval, now) + count * interval))
  return true
end

let_go()
reopen()
local rooms, leased, parked, withheld, leases, claims, taken, gone = {}, {}, {}, {}, {}, {}, {}, {}
local found, candidates = due_now(), {}
for i = 1, #found, 2 do append(candidates, found[i]) end
local fence = #candidates > 0 and call('HINCRBY', META, 'fence', 1) or 0

local read, first_read = {}, 1 -- records, and the number of the candidate that has the first
local at_once = 1 -- records in the next read: more and more, as long as they are small

-- A candidate's record; read with it are those of the next, if as many can be leased.
local function record_of(i)
  if read[i - first_read + 1] == nil then
    local last_read = math.min(#candidates, i - 1 + math.min(at_once, most - #ids))
    read, first_read = call('HMGET', PAYLOADS, unpack(candidates, i, last_read)), i
    local size = 0
    for _, record in ipairs(read) do size = size + #(record or '') end
    at_once = size > BYTES / READ and 1 or math.min(READ, 2 * at_once)
  end
  return read[i - first_read + 1]
end

for i, id in ipairs(candidates) do
  if #ids >= most or bytes > BYTES then break end
  local due, record = found[2 * i], record_of(i)
  append(gone, id)
  if not record then
    append(missing, id)
  else
    local dest = destination_of(record)
    bytes = bytes + #record
    rooms[dest] = rooms[dest] or room(dest, limit, now)
    append(taken, due, id)
    if rooms[dest] == 0 or share(dest) == 0 then
      withheld[dest] = rooms[dest] > 0 or nil
      parked[dest] = parked[dest] or {}
      append(parked[dest], due, id)
    else
      rooms[dest], leased[dest] = rooms[dest] - 1, (leased[dest] or 0) + 1
      append(leases, now + lease, id)
      append(claims, id, table.concat({fence, epoch, nonce, dest}, ' '))
      if (open[dest] or 0) >= 0 then open[dest] = (open[dest] or 0) + 1 end
      take(id, due, record)
    end
  end
end
forget(missing)
if #gone > 0 then call('ZREM', DUE, unpack(gone)) end
if #taken > 0 then call('ZADD', TAKEN, unpack(taken)) end
if #claims > 0 then
  call('ZADD', LEASES, unpack(leases))
  call('HSET', CLAIMS, unpack(claims))
  call('HSET', WORKERS, epoch, now .. ' ' .. nonce)
end
local timed = {}
for dest, count in pairs(leased) do
  add_in_flight(dest, count)
  timed[dest] = has_rules() and spend(dest, count) or nil
end
for dest, waiting in pairs(parked) do
  call('ZADD', PARKED .. dest, unpack(waiting))
  call('SADD', PARKING, dest)
  timed[dest] = not withheld[dest] or nil
  if withheld[dest] then withhold(dest) end
end
for dest in pairs(timed) do unpark(dest, limit, now) end -- notes when it opens
return answer(fence, soonest(early), head(LEASES), math.max(fence, last_fence))
