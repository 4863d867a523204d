#!lua flags=allow-oom
-- Leases due messages to one process; parks what its destination may not get now.
--
-- ARGV[1] how many (1–100)   ARGV[2] lease, ms   ARGV[3] epoch of the process
-- ARGV[4] nonce: the same again returns the same set again
-- ARGV[5] limit of a destination
-- Returns {now, fence, when anything may be claimed next, head of `leases` (ms, -1: never), number
--          of ids dropped because they had no record, schema of the data (0: they bear no mark),
--          fence of the last claim of any process, then id, due ms, record, progress ('' if never
--          tried) for each}
local most, lease, epoch, nonce = number(ARGV[1]), number(ARGV[2]), ARGV[3], ARGV[4]
local limit, now = number(ARGV[5]), clock()
local LOOK = 128 -- ids looked at from each end of what is due
local OPENED = 16 -- destinations whose time has come, looked at in one call
local BYTES = 4 * 1024 * 1024 -- of records read, so that large bodies cannot block

local reply, bytes, dropped = {}, 0, 0

local function answer(fence, next_at, last)
  last = last or call('HGET', META, 'fence') or 0
  local result = {now, tonumber(fence), next_at, head(LEASES), dropped, SCHEMA, tonumber(last)}
  for i = 1, #reply do result[i + 7] = reply[i] end
  return result
end

local function take(id, due, record)
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = id, tonumber(due), record
  reply[n + 4] = call('HGET', PROGRESS, id) or ''
end

local function again()
  local fence = 0
  local claims = call('HGETALL', CLAIMS)
  for i = 1, #claims, 2 do
    local its_fence, its_epoch, its_nonce = split_claim(claims[i + 1])
    if its_epoch == epoch and its_nonce == nonce then
      fence = its_fence
      -- Anew: the process reckons the leases from its last call, not from the one that got lost.
      call('ZADD', LEASES, now + lease, claims[i])
      take(claims[i], call('ZSCORE', TAKEN, claims[i]), call('HGET', PAYLOADS, claims[i]))
    end
  end
  return answer(fence, soonest())
end

-- What is due, alternately from the oldest and the newest: a backlog must not hide what is fresh.
local function due_now()
  local old = call('ZRANGE', DUE, '-inf', now, 'BYSCORE', 'LIMIT', 0, LOOK, 'WITHSCORES')
  if #old < 2 * LOOK then return old end
  local new = call('ZRANGE', DUE, now, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, LOOK, 'WITHSCORES')
  local both, seen = {}, {}
  for i = 1, 2 * LOOK, 2 do
    for _, from in ipairs({old, new}) do
      if not seen[from[i]] then
        seen[from[i]] = true
        both[#both + 1], both[#both + 2] = from[i], from[i + 1]
      end
    end
  end
  return both
end

local last = call('HGET', WORKERS, epoch)
if last and last:match(' (%S+)$') == nonce then return again() end

-- Most looks of a process at rest find nothing, and shall cost next to nothing.
local first = soonest()
if first < 0 or first > now then return answer(0, first) end

-- Lets go on what waits for a destination's rate, or for the next probe.
local function open()
  local moved = 0
  for _, dest in ipairs(call('ZRANGE', OPENS, '-inf', now, 'BYSCORE', 'LIMIT', 0, OPENED)) do
    call('ZREM', OPENS, dest)
    moved = moved + unpark(dest, limit, now)
    if moved > 2 * LOOK then return end
  end
end

-- Counts what was leased for a destination's rate; whether it has one.
local function spend(dest, count)
  local _, interval = settings(dest, limit)
  if interval == 0 then return false end
  call('HSET', RATE, dest, string.format('%.3f', beat(dest, interval, now) + count * interval))
  return true
end

open()
local rooms, leased, parked, leases, claims, taken, gone = {}, {}, {}, {}, {}, {}, {}
local candidates = due_now()
local fence = #candidates > 0 and call('HINCRBY', META, 'fence', 1) or 0
for i = 1, #candidates, 2 do
  if #leases >= 2 * most or bytes > BYTES then break end
  local id, due = candidates[i], candidates[i + 1]
  local record = call('HGET', PAYLOADS, id)
  gone[#gone + 1] = id
  if not record then
    dropped = dropped + 1
    forget(id)
  else
    local dest = destination(record)
    bytes = bytes + #record
    rooms[dest] = rooms[dest] or room(dest, limit, now)
    taken[#taken + 1], taken[#taken + 2] = due, id
    if rooms[dest] == 0 then
      parked[dest] = parked[dest] or {}
      table.insert(parked[dest], due)
      table.insert(parked[dest], id)
    else
      rooms[dest], leased[dest] = rooms[dest] - 1, (leased[dest] or 0) + 1
      leases[#leases + 1], leases[#leases + 2] = now + lease, id
      claims[#claims + 1] = id
      claims[#claims + 1] = table.concat({fence, epoch, nonce, dest}, ' ')
      take(id, due, record)
    end
  end
end
if #gone > 0 then call('ZREM', DUE, unpack(gone)) end
if #taken > 0 then call('ZADD', TAKEN, unpack(taken)) end
if #claims > 0 then
  call('ZADD', LEASES, unpack(leases))
  call('HSET', CLAIMS, unpack(claims))
  call('HSET', WORKERS, epoch, now .. ' ' .. nonce)
end
local timed = {}
for dest, count in pairs(leased) do
  call('HINCRBY', INFLIGHT, dest, count)
  timed[dest] = has_rules() and spend(dest, count) or nil
end
for dest, waiting in pairs(parked) do
  call('ZADD', PARKED .. dest, unpack(waiting))
  call('SADD', PARKING, dest)
  timed[dest] = true
end
for dest in pairs(timed) do unpark(dest, limit, now) end -- notes when it opens
return answer(fence, soonest(), fence)
