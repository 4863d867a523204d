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
-- ARGV[10…] (destination, open)… of each destination that the process knows
--   open  its requests to the destination; negative: the destination answers quickly and may have any
--         slot. -1: it has no request now; -2: it has some; -3 - n: and n leases of this partition
--         wait for the permits of these requests, or waited a moment ago
-- Returns {now, fence, next_at, next_lease_end, dropped, schema, last_fence,
--          (id, due, record, progress, permit)…}
--   fence           of these claims; 0 if nothing was due
--   next_at         when anything may be claimed next, ms; -1: nothing waits
--   next_lease_end  when the next lease of any process ends, ms; -1: there is none
--   dropped         ids taken out of `due` because they had no record
--   schema          of the data; 0: they have no mark
--   last_fence      of the last claim of any process
--   progress        '' if the message was never tried
--   permit          1: its request may be opened; 0: only when the process passes it a permit
-- needs: keys data arguments clock record finished places in_flight limits claims flow
local schema, last_fence, withholds = check_data(true)
local count, lease, worker_id, nonce = number(ARGV[1]), number(ARGV[2]), ARGV[3], ARGV[4]
local limit_share, ahead, now = number(ARGV[5]), number(ARGV[6]), clock()
local slots, free_slots, queued = number(ARGV[7]), number(ARGV[8]), number(ARGV[9])
local early = math.floor(ahead / 2) -- ms before the head is due: the next claim, which may get several
local READ_IDS = 128 -- ids read from each end of what is due
local OPENED = 16 -- destinations that may have opened, checked in one call
local RECHECK = 250 -- ms until a process checks destinations again that it has no slot for
local KEPT = math.floor(slots / 32) -- slots for destinations that answer quickly
local QUEUED_PER_PERMIT = 3 -- messages that may wait in a process for each of its permits
local AT_ONE_INSTANT = 1000 -- leases that end in one ms, searched for those of a lost claim
local MAX_BYTES = 4 * 1024 * 1024 -- of records leased, so that large bodies cannot block the store

local ids, dues, records, permits = {}, {}, {}, {} -- of the messages that are returned
local opening = 0 -- how many of these have a permit
local queueing = {} -- destination → how many have none
local bytes, missing = 0, {} -- of the records; ids without one

local function answer(fence, next_at, next_lease_end, last)
  local again_at = now + RECHECK
  if withholds and (next_at < 0 or next_at > again_at) then next_at = again_at end
  local reply = {now, tonumber(fence), next_at, next_lease_end, #missing, schema, last}
  local progress = #ids > 0 and call('HMGET', PROGRESS, unpack(ids))
  for i, id in ipairs(ids) do
    append(reply, id, dues[i])
    append(reply, records[i], progress[i] or '')
    append(reply, permits[i])
  end
  return reply
end

local open = {} -- requests of the process to each destination, with those of this call
local lines = {} -- destinations of which messages wait, or waited a moment ago, in the process
for i = 10, #ARGV, 2 do
  open[ARGV[i]] = number(ARGV[i + 1])
  if open[ARGV[i]] <= -3 then append(lines, ARGV[i]) end
end

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
  append(ids, id)
  append(dues, tonumber(due))
  append(records, record)
  append(permits, permit)
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

-- Due messages, alternately the oldest and the newest: a backlog must not hide fresh messages.
local function due_now()
  local latest = now + ahead
  local old = call('ZRANGE', DUE, '-inf', latest, 'BYSCORE', 'LIMIT', 0, READ_IDS, 'WITHSCORES')
  if #old < 2 * READ_IDS then return old end
  -- With so many overdue, nothing is leased ahead: it would wait in a slot that another could use.
  local new = call('ZRANGE', DUE, now, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, READ_IDS, 'WITHSCORES')
  if #new < 2 * READ_IDS then return old end -- most are due only in a moment; none is hidden
  local both, seen = {}, {}
  for i = 1, 2 * READ_IDS, 2 do
    for _, from in ipairs({old, new}) do
      if not seen[from[i]] then
        seen[from[i]] = true
        append(both, from[i], from[i + 1])
      end
    end
  end
  return both
end

-- Most calls of an idle process find nothing, and must be cheap: if there is no lease, no reply
-- with leases was lost.
local next_lease_end = head(LEASES)
local last_claim = next_lease_end >= 0 and call('HGET', WORKERS, worker_id)
local last_at, last_nonce = (last_claim or ''):match('^(%d+) (%S+)$')
if last_nonce == nonce then return again(tonumber(last_at)) end

local first = soonest(early)
if not withholds and #lines == 0 and (first < 0 or first > now) then
  return answer(0, first, next_lease_end, last_fence)
end

-- Unparks messages that wait for their destination's rate, or for the next probe.
local function unpark_opened()
  local moved = 0
  for _, dest in ipairs(call('ZRANGE', OPENS, '-inf', now, 'BYSCORE', 'LIMIT', 0, OPENED)) do
    call('ZREM', OPENS, dest)
    moved = moved + unpark(dest, limit_share, now)
    if moved > 2 * READ_IDS then return end
  end
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

-- How many more messages of a destination may wait for its permits in the process.
local function wanted(dest)
  local counts, waiting = counts_of(dest, worker_id), math.max(0, -3 - open[dest])
  return counts and QUEUED_PER_PERMIT * counts.permits - waiting - (queueing[dest] or 0) or 0
end

-- Unparks messages that may wait for permits in this process, unless enough others are due.
local function unpark_wanted()
  if #lines == 0 then return end
  local left = math.min(count, free_slots - queued) - call('ZCOUNT', DUE, '-inf', now + ahead)
  for _, dest in ipairs(lines) do
    local _, _, _, may_wait = room(dest, limit_share, now)
    local wanted_count = may_wait and math.min(left, wanted(dest)) or 0
    if wanted_count > 0 then
      local popped = pop_parked(dest, wanted_count)
      left = left - #popped / 2
      if #popped > 0 then enqueue_parked(popped) end
      still_parked(dest)
    end
  end
end

unpark_opened()
unpark_withheld()
unpark_wanted()
local rooms, may_queue, granted = {}, {}, {} -- each by destination, as the next two
local parked, withheld = {}, {}
local gone, taken, ends, claims = {}, {}, {}, {} -- ids; due, id …; lease end, id …; id, claim …
local found, candidates = due_now(), {}
for i = 1, #found, 2 do append(candidates, found[i]) end
local fence = #candidates > 0 and call('HINCRBY', META, 'fence', 1) or 0

local read, first_read = {}, 1 -- records, and the number of the candidate that has the first
local read_size = 1 -- records in the next read: more and more, as long as they are small

-- A candidate's record; with it the records of the next candidates are read, if they can be leased.
local function record_of(i)
  if read[i - first_read + 1] == nil then
    local last_read = math.min(#candidates, i - 1 + math.min(read_size, count - #ids))
    read, first_read = call('HMGET', PAYLOADS, unpack(candidates, i, last_read)), i
    local size = 0
    for _, record in ipairs(read) do size = size + #(record or '') end
    read_size = size > MAX_BYTES / READ and 1 or math.min(READ, 2 * read_size)
  end
  return read[i - first_read + 1]
end

-- Whether the process may lease a message that gets no permit.
local function may_wait(dest)
  if (open[dest] or 0) > -2 or not may_queue[dest] or #ids >= free_slots - queued then return false end
  return wanted(dest) > 0
end

-- 1 if the process gets a permit for a message, 0 if it may lease it without one; nil: neither.
local function permit_for(dest)
  if not rooms[dest] then
    local free, _, _, may = room(dest, limit_share, now)
    rooms[dest], may_queue[dest] = free, may
  end
  if rooms[dest] > 0 and share(dest) > 0 then
    rooms[dest], granted[dest] = rooms[dest] - 1, (granted[dest] or 0) + 1
    if (open[dest] or 0) >= 0 then open[dest] = (open[dest] or 0) + 1 end
    return 1
  end
  if rooms[dest] > 0 or not may_wait(dest) then return nil end
  queueing[dest] = (queueing[dest] or 0) + 1
  return 0
end

for i, id in ipairs(candidates) do
  if #ids >= count or bytes > MAX_BYTES then break end
  local due, record = found[2 * i], record_of(i)
  append(gone, id)
  if not record then
    append(missing, id)
  else
    local dest = destination_of(record)
    bytes = bytes + #record
    append(taken, due, id)
    local permit = permit_for(dest)
    if permit then
      append(ends, now + lease, id)
      append(claims, id, table.concat({fence, worker_id, nonce, dest, permit}, ' '))
      add_claim(dest, worker_id, permit)
      take(id, due, record, permit)
    else
      withheld[dest] = rooms[dest] > 0 or nil
      parked[dest] = parked[dest] or {}
      append(parked[dest], due, id)
    end
  end
end
forget(missing)
take_out_of_due(gone, taken)
set_leases(ends)
if #claims > 0 then
  call('HSET', CLAIMS, unpack(claims))
  call('HSET', WORKERS, worker_id, now .. ' ' .. nonce)
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
