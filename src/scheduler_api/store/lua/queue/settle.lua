#!lua flags=allow-oom
-- Ends claims with their outcome; a claim that is no longer held changes nothing.
--
-- ARGV[1] worker_id
-- ARGV[2] limit_share: concurrency of a destination without settings, in this partition
-- ARGV[3] max_kept: messages kept in a finished state
-- ARGV[4…] (id, fence, verdict, ms, counts, log, reached, bucket, permit)… of each message
--          (1–100)
--   verdict  a finished state, or retry
--   ms       how long the message is kept, or until its next attempt
--   counts   "attempts crashes"
--   log      of its attempts
--   reached  whether the destination was reached: yes, no, or '' if that is unknown
--   bucket   number of the duration's bucket; '': the attempt is not counted
--   permit   1: the process gives a permit back with it; 0: it had none, or passed it on
-- Returns {sooner, word…}
--   sooner  1 if something may be claimed sooner than before
--   word    'stale' if the claim is no longer held; else what became of the destination, 'broken' or
--           'mended'; else 'parked' if messages of it are still parked, or 'ok'
-- needs: keys arguments clock hours finished places limits claims flow
local worker_id, limit_share, max_kept = ARGV[1], number(ARGV[2]), number(ARGV[3])
local now = clock()
local at = ' ' .. now .. '\n' -- in each progress
local FIRST_PAUSE = 1000 -- ms until the first probe; each pause is twice as long
local MAX_UNREACHABLE = 10000 -- destinations of which failures to connect are known
local reply, unparked, old = {0}, 0, soonest()
local claims -- id → its claim
local settled = {} -- ids of the claims that end
local ended, given_back = {}, {} -- destination → how many claims; with how many of them a permit
local dests, parked = {}, {} -- number of the word → destination; destination → whether more are parked
local forgotten, progress = {}, {} -- ids; id, progress …
local places = {retry = {}} -- verdict → due, or end of the retention, id …
for _, state in ipairs(STATES) do places[state] = {} end
local results = {} -- destination → its marks, and each mark's count, of this call

-- Any response sets the count of failures to connect back to 0.
local function reached(dest)
  local failed = failures(dest, now)
  if failed > 0 then call('HDEL', UNREACHABLE, dest) end
  return failed >= BREAKS_AT and 'mended' or 'ok'
end

-- Makes room for one more destination: of five chosen at random, the one whose probe was due first
-- is forgotten. Its parked messages are due again, and its failures are counted from 0.
local function forget_unreachable()
  if call('HLEN', UNREACHABLE) < MAX_UNREACHABLE then return end
  local some, first, first_at = call('HRANDFIELD', UNREACHABLE, 5, 'WITHVALUES'), nil, math.huge
  for i = 1, #some, 2 do
    local probe_at = tonumber(some[i + 1]:match('%d+$') or 0)
    if probe_at < first_at then first, first_at = some[i], probe_at end
  end
  call('HDEL', UNREACHABLE, first)
  if still_parked(first) then call('ZADD', OPENS, now, first) end
end

-- A pause counts once: requests that were open when it began do not lengthen it.
local function missed(dest)
  local failed, probe_at = failures(dest, now)
  if failed >= BREAKS_AT and now < probe_at then return 'ok' end
  if failed == 0 then forget_unreachable() end
  failed, probe_at = failed + 1, now
  if failed >= BREAKS_AT then
    probe_at = now + math.min(MAX_PAUSE, FIRST_PAUSE * 2 ^ (failed - BREAKS_AT))
  end
  call('HSET', UNREACHABLE, dest, failed .. ' ' .. probe_at)
  ruled = true
  return failed == BREAKS_AT and 'broken' or 'ok'
end

-- Notes a mark of an attempt, in the order in which marks first come: the same on every run.
local function note(dest, mark)
  local marks = results[dest] or {}
  results[dest] = marks
  if not marks[mark] then append(marks, mark) end
  marks[mark] = (marks[mark] or 0) + 1
end

local function add(text, mark, count)
  local from, to, known = text:find(' ' .. mark .. ':(%d+)')
  if not from then return text .. ' ' .. mark .. ':' .. count end
  return text:sub(1, to - #known) .. known + count .. text:sub(to + 1)
end

-- Adds the noted marks to the counts of this hour, by two commands for any number of destinations.
local function add_results()
  local hour, key = this_hour(now)
  local names, fields = {''}, {'', hour}
  for dest in pairs(results) do append(names, dest) end
  if #names == 1 then return end
  local known = call('HMGET', key, unpack(names))
  if known[1] ~= tostring(hour) then
    call('UNLINK', key)
    known = {}
  end
  for i = 2, #names do
    local text, marks = known[i] or '', results[names[i]]
    for _, mark in ipairs(marks) do text = add(text, mark, marks[mark]) end
    append(fields, names[i], text)
  end
  call('HSET', key, unpack(fields))
end

-- Decides what becomes of a message; `settle_all` writes it.
local function settle(id, fence, verdict, ms, counts, log, was_reached, bucket, permit)
  local dest = held(claims[id], fence, worker_id)
  if not dest then return 'stale' end
  claims[id] = nil -- another outcome of it is stale
  append(settled, id)
  dests[#reply + 1] = dest
  ended[dest] = (ended[dest] or 0) + 1
  if permit == '1' then given_back[dest] = (given_back[dest] or 0) + 1 end
  if bucket ~= '' then note(dest, bucket) end
  if bucket ~= '' and verdict == 'delivered' then note(dest, 'd') end
  ms = tonumber(ms)
  if verdict ~= 'retry' and ms <= 0 then
    append(forgotten, id)
  else
    append(progress, id, counts .. ' ' .. verdict .. at .. log)
    append(places[verdict], now + ms, id)
  end
  return was_reached == 'yes' and reached(dest) or was_reached == 'no' and missed(dest) or 'ok'
end

local function settle_all()
  drop_claims(settled, worker_id, ended, given_back)
  forget(forgotten)
  if #progress > 0 then call('HSET', PROGRESS, unpack(progress)) end
  enqueue(places.retry)
  for _, state in ipairs(STATES) do finish(state, places[state], max_kept) end
end

assert(#ARGV % 9 == 3, 'nine arguments a message')
for i = 7, #ARGV, 9 do number(ARGV[i]) end

local ids = {}
for i = 4, #ARGV, 9 do append(ids, ARGV[i]) end
claims = claims_of(ids)
for i = 4, #ARGV, 9 do
  append(reply, settle(unpack(ARGV, i, i + 8)))
end
settle_all()
add_results()
for dest, count in pairs(ended) do
  local moved, may_queue = unpark(dest, limit_share, now, nil, count)
  unparked = unparked + moved
  -- The process may queue parked messages in the place of those that it has sent.
  local passed_on = may_queue and count > (given_back[dest] or 0)
  if (moved > 0 or passed_on) and still_parked(dest) then
    parked[dest] = true
    if passed_on then reply[1] = 1 end
  end
end
for i = 2, #reply do
  if reply[i] == 'ok' and parked[dests[i]] then reply[i] = 'parked' end
end
local new = soonest()
if unparked > 0 or new >= 0 and (old < 0 or new < old) then reply[1] = 1 end
return reply
