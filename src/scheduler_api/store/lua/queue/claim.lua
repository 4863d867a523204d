#!lua flags=allow-oom
-- Leases due messages to one process; parks those that their destination may not get now.
--
-- ARGV[1] count: messages (1–100)
-- ARGV[2] lease, ms
-- ARGV[3] worker_id of the process
-- ARGV[4] nonce: a call with the nonce of the last one returns the same messages again
-- ARGV[5] limit_share: concurrency of a destination without settings, in this partition
-- ARGV[6] ahead: ms before it is due that a message may be leased
-- ARGV[7] slots of the process; 0: claims do not divide them
-- ARGV[8] free_slots of these
-- ARGV[9] queued: leases of the process that wait for a permit
-- ARGV[10] line_count: destinations of which messages of this partition wait for a permit in the
--          process, waited a moment ago, or were parked when the process settled one
-- ARGV[11…] (destination, waiting)… of each of these
--   waiting  how many wait now
-- …         (destination, open)… of each destination that the process knows
--   open  its requests to the destination; -1: the destination answers quickly and may have any slot,
--         but has no request now; -2: it answers quickly and has requests
-- Returns {now, fence, next_at, next_lease_end, dropped, schema, last_fence,
--          (id, due, record, progress, permit)…}
--   fence           of these claims; 0 if nothing was due
--   next_at         when anything may be claimed next, ms; -1: nothing waits
--   next_lease_end  when the next lease of any process ends, ms; -1: there is none
--   dropped         ids taken out of `due` because they had no record
--   schema          of the data; 0: they have no mark
--   last_fence      of the last claim of any process
--   progress        '' if the message was never tried
--   permit          1: its request may be opened; 0: it waits for a permit of the process
-- needs: keys data arguments clock record finished places candidates in_flight limits claims flow queueing
local schema, last_fence, withholds = check_data(true)
local count, lease, worker_id, nonce = number(ARGV[1]), number(ARGV[2]), ARGV[3], ARGV[4]
local limit_share, ahead, now = number(ARGV[5]), number(ARGV[6]), clock()
local slots, free_slots, queued = number(ARGV[7]), number(ARGV[8]), number(ARGV[9])
local early = math.floor(ahead / 2) -- ms before the head is due: the next claim, which may get several
local OPENED = 16 -- destinations that may have opened, checked in one call
local RECHECK = 250 -- ms until a process checks destinations again that it has no slot for
local KEPT = math.floor(slots / 32) -- slots for destinations that answer quickly
local AT_ONE_INSTANT = 1000 -- leases that end in one ms, searched for those of a lost claim
local MAX_BYTES = 4 * 1024 * 1024 -- of records leased, so that large bodies cannot block the store

local ids, dues, records, permits = {}, {}, {}, {} -- of the messages that are returned
local opening = 0 -- how many of these have a permit
local leased, granted = {}, {} -- destination → how many of these; how many of them have a permit
local bytes, missing = 0, {} -- of the records; ids without one

local function answer(fence, next_at, next_lease_end, last)
  local again_at = now + RECHECK
  if withholds and (next_at < 0 or next_at > again_at) then next_at = again_at end
  local reply = {now, tonumber(fence), next_at, next_lease_end, #missing, schema, last}
  local progress = #ids > 0 and call('HMGET', PROGRESS, unpack(ids))
  for i, id in ipairs(ids) do
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3] = id, dues[i], records[i]
    reply[n + 4], reply[n + 5] = progress[i] or '', permits[i]
  end
  return reply
end

local open = {} -- requests of the process to each destination, with those of this call
local process = {
  worker_id = worker_id,
  open = open,
  lines = {},
  waiting = {},
  granted = granted,
  first_parked = {},
}
local first_open = 11 + 2 * number(ARGV[10])
for i = 11, first_open - 1, 2 do
  append(process.lines, ARGV[i])
  process.waiting[ARGV[i]] = number(ARGV[i + 1])
end
for i = first_open, #ARGV, 2 do open[ARGV[i]] = number(ARGV[i + 1]) end

-- How many more requests the process may open to a destination. Slow destinations share half of the
-- slots: each may have twice as many as it leaves free of that half, so that some stay free however
-- many slow destinations there are. Of the other half each destination gets one to begin with.
local function share(dest)
  local opened, left = open[dest] or 0, free_slots - opening
  if slots == 0 or opened < 0 then return math.huge end
  local more = math.ceil((2 * left - slots - opened) / 3)
  if opened == 0 and left > KEPT or left == slots then return math.max(1, more) end
  return math.max(0, more)
end

local function take(id, due, record, permit)
  local n = #ids + 1
  ids[n], dues[n], records[n], permits[n] = id, tonumber(due), record, permit
  opening = opening + permit
end

-- The claim that the process made at `at`, and whose reply was lost. Its leases still end at one
-- instant, as the process does not know of them and renews none; few other leases end then.
local function again(at)
  local fence, ends, lease_end = 0, {}, at + lease
  local leased =
    call('ZRANGE', LEASES, lease_end, lease_end, 'BYSCORE', 'LIMIT', 0, AT_ONE_INSTANT)
  local claims = #leased > 0 and call('HMGET', CLAIMS, unpack(leased))
  for i, id in ipairs(leased) do
    local its_fence, its_worker_id, its_nonce, _, permit = split_claim(claims[i])
    local is_its_own = its_worker_id == worker_id and its_nonce == nonce
    local record = is_its_own and call('HGET', PAYLOADS, id)
    if record then
      fence = its_fence
      append(ends, now + lease, id)
      take(id, due_of(id, now), record, permit)
    end
  end
  set_leases(ends) -- whole again: the process counts the leases from this call, not from the lost one
  call('HSET', WORKERS, worker_id, now .. ' ' .. nonce)
  return answer(fence, soonest(early), head(LEASES), last_fence)
end

-- Most calls of an idle process find nothing, and must be cheap: if there is no lease, no reply
-- with leases was lost.
local next_lease_end = head(LEASES)
local last_claim = next_lease_end >= 0 and call('HGET', WORKERS, worker_id)
local last_at, last_nonce = (last_claim or ''):match('^(%d+) (%S+)$')
if last_nonce == nonce then return again(tonumber(last_at)) end

local first = soonest(early)
if not withholds and #process.lines == 0 and (first < 0 or first > now) then
  return answer(0, first, next_lease_end, last_fence)
end

-- Unparks messages that wait for a slot of a process, if this one has slots for them. The destinations
-- that were checked last come last, so that each is checked in turn.
local function unpark_withheld()
  if not withholds then return end
  for _, dest in ipairs(call('ZRANGE', WITHHELD, 0, OPENED - 1)) do
    local has_room, max_count = room(dest, limit_share, now) > 0, share(dest)
    if max_count > 0 or not has_room then unpark(dest, limit_share, now, max_count) end
    if has_room and still_parked(dest) then
      call('ZADD', WITHHELD, now, dest)
    else
      call('ZREM', WITHHELD, dest) -- what is still parked has another reason
    end
  end
  withholds = call('EXISTS', WITHHELD) == 1
  if not withholds then call('HDEL', META, 'withheld') end
end

-- Notes that messages were parked because this process has no slot; another process may have one.
local function withhold(dest)
  if withholds and call('ZSCORE', WITHHELD, dest) then return end
  call('ZADD', WITHHELD, now, dest)
  call('HSET', META, 'withheld', 1)
  call('SPUBLISH', WAKEUP, now)
  withholds = true
end

-- Counts messages against their destination's rate. Returns whether it has one.
local function spend(dest, granted_count)
  local _, interval = settings(dest, limit_share)
  if interval == 0 then return false end
  local next_at = next_by_rate(dest, interval, now) + granted_count * interval
  call('HSET', RATE, dest, string.format('%.3f', next_at))
  return true
end

unpark_opened(limit_share, now, OPENED)
unpark_withheld()
local rooms, may_queue, queue_rooms, parked, withheld = {}, {}, {}, {}, {} -- each by destination
local gone, taken, ends, claims = {}, {}, {}, {} -- ids; due, id …; lease end, id …; id, claim …
local found, candidates = due_now(now, now + ahead), {} -- id, due ms …; ids
local due_count, last = #found / 2, 0 -- candidates that are due; the last one that was decided
add_parked(process, found, math.min(count, free_slots - queued), limit_share, now)
for i = 1, #found, 2 do append(candidates, found[i]) end
local fence = #candidates > 0 and call('HINCRBY', META, 'fence', 1) or 0
local claimed_by = fence .. ' ' .. worker_id .. ' ' .. nonce .. ' '
local lease_end = tostring(now + lease) -- once, as a number becomes text slowly

local read, dests = {}, {} -- records, and the destination of each
local first_read = 1 -- number of the candidate that has the first
local read_size = 1 -- records in the next read: more and more, as long as they are small

-- A candidate's record and destination. With it the records of the next candidates are read, if they
-- can be leased.
local function record_of(i)
  local n = i - first_read + 1
  if read[n] == nil then
    local last_read = math.min(#candidates, i - 1 + math.min(read_size, count - #ids))
    read, dests = call('HMGET', PAYLOADS, unpack(candidates, i, last_read)), {}
    first_read, n = i, 1
    local size = 0
    for j, record in ipairs(read) do
      size = size + #(record or '')
      dests[j] = destination_of(record or '')
    end
    read_counts(dests)
    read_size = size > MAX_BYTES / READ and 1 or math.min(READ, 2 * read_size)
  end
  return read[n], dests[n]
end

-- 1 if the process gets a permit for a message, 0 if it may lease it without one; nil: neither.
local function permit_for(dest, due, was_parked)
  if not rooms[dest] then
    local free, _, _, may = room(dest, limit_share, now)
    rooms[dest], may_queue[dest] = free, may
  end
  if rooms[dest] > 0 then
    if share(dest) == 0 then return nil end
    rooms[dest], granted[dest] = rooms[dest] - 1, (granted[dest] or 0) + 1
    if (open[dest] or 0) >= 0 then open[dest] = (open[dest] or 0) + 1 end
    return 1
  end
  if #ids >= free_slots - queued then return nil end
  queue_rooms[dest] = queue_rooms[dest] or queue_room(process, dest, may_queue[dest])
  if queue_rooms[dest] <= 0 then return nil end
  if not was_parked and is_behind_parked(process, dest, due) then return nil end
  queue_rooms[dest] = queue_rooms[dest] - 1
  return 0
end

for i, id in ipairs(candidates) do
  if #ids >= count or bytes > MAX_BYTES then break end
  last = i
  local due, record, dest = found[2 * i], record_of(i)
  append(gone, id)
  if not record then
    append(missing, id)
  else
    bytes = bytes + #record
    append(taken, due, id)
    local permit = permit_for(dest, due, i > due_count)
    if permit then
      append(ends, lease_end, id)
      append(claims, id, claimed_by .. dest .. (permit == 1 and ' 1' or ' 0'))
      leased[dest] = (leased[dest] or 0) + 1
      take(id, due, record, permit)
    else
      withheld[dest] = rooms[dest] > 0 or nil
      parked[dest] = parked[dest] or {}
      append(parked[dest], due, id)
    end
  end
end
local undecided = {} -- those of the candidates that were parked; id, due ms …
for i = math.max(last, due_count) + 1, #candidates do append(undecided, candidates[i], found[2 * i]) end
if #undecided > 0 then enqueue_parked(undecided) end
for _, id in ipairs(missing) do remove_waiting(id, '?') end
forget(missing)
take_out_of_due(gone, taken)
set_leases(ends)
if #claims > 0 then
  call('HSET', CLAIMS, unpack(claims))
  call('HSET', WORKERS, worker_id, now .. ' ' .. nonce)
  for dest, its_count in pairs(leased) do
    add_claims(dest, worker_id, its_count, granted[dest] or 0)
  end
  write_counts()
end
local timed = {} -- destinations for which time decides when the next message may go
for dest, granted_count in pairs(granted) do
  timed[dest] = has_rules() and spend(dest, granted_count) or nil
end
for dest, waiting in pairs(parked) do
  park(dest, waiting)
  timed[dest] = not withheld[dest] or nil
  if withheld[dest] then withhold(dest) end
end
for dest in pairs(timed) do unpark(dest, limit_share, now) end -- notes when it opens
return answer(fence, soonest(early), head(LEASES), math.max(fence, last_fence))
