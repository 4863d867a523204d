#!lua flags=allow-oom
-- Ends claims with their outcome; a claim that is no longer held changes nothing.
--
-- ARGV[1] epoch   ARGV[2] limit of a destination   ARGV[3] most records kept on a shelf
-- ARGV[4…] for each message (1–100): id, fence, verdict (delivered, failed, retry), ms (how long
--          the record is kept, or until the next attempt), "attempts crashes", attempts' log,
--          whether the destination was reached ('yes', 'no', '' if nobody knows), number of its
--          duration's bucket ('': not to be counted)
-- Returns {1 if something may be claimed sooner than before, then a word for each: 'stale', or
--          'ok', or instead of it what became of the destination: 'broken' or 'mended'}
-- needs: keys arguments clock limits hours finished claims flow
local epoch, limit, most, now = ARGV[1], number(ARGV[2]), number(ARGV[3]), clock()
local FIRST_PAUSE = 1000 -- ms until the first probe; each pause is twice as long
local UNREACHABLE_KNOWN = 10000 -- destinations that could not be connected to
local reply, unparked, old = {0}, 0, soonest()
local claims = {} -- id → its claim
local ended, freed = {}, {} -- ids of the claims that end; destination → how many
local forgotten, progress = {}, {} -- ids; id, progress …
local places = {retry = {}, delivered = {}, failed = {}} -- for each: score, id …
local results = {} -- destination → its marks, and each mark's count, of this call

-- Any answer ends the count of failures to connect.
local function reached(dest)
  local failed = failures(dest, now)
  if failed > 0 then call('HDEL', UNREACHABLE, dest) end
  return failed >= BREAKS_AT and 'mended' or 'ok'
end

-- Makes room for one more destination: of five chosen at random, the one whose probe was due first
-- is forgotten. What is parked for it goes on, and counts its failures anew.
local function forget_unreachable()
  if call('HLEN', UNREACHABLE) < UNREACHABLE_KNOWN then return end
  local some, first, first_at = call('HRANDFIELD', UNREACHABLE, 5, 'WITHVALUES'), nil, math.huge
  for i = 1, #some, 2 do
    local probe_at = tonumber(some[i + 1]:match('%d+$') or 0)
    if probe_at < first_at then first, first_at = some[i], probe_at end
  end
  call('HDEL', UNREACHABLE, first)
  if still_parked(first) then call('ZADD', OPENS, now, first) end
end

-- Requests that were open when the destination broke tell nothing new: each pause counts once.
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

-- Notes a mark of an attempt, in the order of its first coming, which is the same everywhere.
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

-- Adds what was noted to the hour's counts: two commands, however many destinations there are.
local function count()
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
local function settle(id, fence, verdict, ms, tries, log, was_reached, bucket)
  local dest = held(claims[id], fence, epoch)
  if not dest then return 'stale' end
  claims[id] = nil -- another outcome of it is stale
  append(ended, id)
  freed[dest] = (freed[dest] or 0) + 1
  if bucket ~= '' then note(dest, bucket) end
  if bucket ~= '' and verdict == 'delivered' then note(dest, 'd') end
  if verdict ~= 'retry' and ms <= 0 then
    append(forgotten, id)
  else
    append(progress, id, table.concat({tries, ' ', verdict, ' ', now, '\n', log}))
    append(places[verdict], now + ms, id)
  end
  return was_reached == 'yes' and reached(dest) or was_reached == 'no' and missed(dest) or 'ok'
end

local function settle_all()
  drop_claims(ended, freed)
  forget(forgotten)
  if #progress > 0 then call('HSET', PROGRESS, unpack(progress)) end
  if #places.retry > 0 then call('ZADD', DUE, unpack(places.retry)) end
  shelve(DELIVERED, places.delivered, most)
  shelve(FAILED, places.failed, most)
end

assert(#ARGV % 8 == 3, 'eight arguments a message')
for i = 7, #ARGV, 8 do number(ARGV[i]) end

local ids = {}
for i = 4, #ARGV, 8 do append(ids, ARGV[i]) end
for i, claim in ipairs(call('HMGET', CLAIMS, unpack(ids))) do claims[ids[i]] = claim end
for i = 4, #ARGV, 8 do
  local id, fence, verdict, ms, tries, log, was_reached, bucket = unpack(ARGV, i, i + 7)
  append(reply, settle(id, fence, verdict, tonumber(ms), tries, log, was_reached, bucket))
end
settle_all()
count()
for dest, opened in pairs(freed) do
  unparked = unparked + unpark(dest, limit, now, nil, opened)
end
local new = soonest()
if unparked > 0 or new >= 0 and (old < 0 or new < old) then reply[1] = 1 end
return reply
