-- Inserted after the first line of every script: the keys, the clock, and the moves they share.
local DUE, TAKEN, LEASES, CLAIMS, INFLIGHT, PAYLOADS, PROGRESS, DELIVERED, FAILED, WORKERS, META,
  PARKED, PARKING, LIMITS, RATE, UNREACHABLE, OPENS, WITHHELD, EVEN, ODD, WAKEUP = unpack(KEYS)
local call = redis.call

-- An argument that is a number; raises otherwise. To be asked for before anything is written, as a
-- script that fails does not roll back.
local function number(argument)
  return tonumber(argument) or error('not a number: ' .. tostring(argument))
end

-- Puts one value at the end of a list, or two.
local function append(list, first, second)
  local n = #list
  list[n + 1], list[n + 2] = first, second
end

-- Records read at once, at the most: each may be of a megabyte.
local READ = 16

-- Refuses data that the caller must not touch. Every script calls it first, except those that end
-- claims (scripts.py): a process that is older than the data takes no new work, but settles what it
-- holds. Raises SCHEMA if the schema is newer than `known`, PARTITIONS if the data have another number
-- of partitions than the caller, UNMARKED if the number is missing and `marked` demands it: the caller
-- would otherwise use a partition that nobody else looks at.
-- Returns the schema (0: none) and, as they are in the same hash, the last fence of any process, and
-- whether `withheld` has entries.
local function known_data(known, partitions, marked)
  local found = call('HMGET', META, 'schema', 'partitions', 'fence', 'withheld')
  local schema, divided = tonumber(found[1] or 0), tonumber(found[2])
  if schema > known then error({err = 'SCHEMA ' .. schema}) end
  if divided and divided ~= partitions then
    error({err = 'PARTITIONS ' .. divided .. ' ' .. partitions})
  end
  if marked and not divided then error({err = 'UNMARKED'}) end
  return schema, tonumber(found[3] or 0), found[4] and true
end

-- Milliseconds by the store's clock; rounded down, so that nothing is ever early.
local function clock()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A millisecond count as six bytes, big end first: enough until the year 10889.
local function u48(number)
  local bytes = {}
  for i = 6, 1, -1 do
    bytes[i] = string.char(number % 256)
    number = math.floor(number / 256)
  end
  return table.concat(bytes)
end

-- Damaged data must not make a script raise: it would raise in each call, and stop its partition.
-- So whatever reads an entry that another one promises has a value for the case that it is missing.

-- What a record's bytes 8–13 say, ms; 0 for what is too short to be a record.
local function scheduled(record)
  local ms = 0
  for i = 8, 13 do ms = ms * 256 + (record:byte(i) or 0) end
  return ms
end

-- Authority → the destination's name: without the port of http or https, without the host's final dot.
-- As `destination_name` of domain/url.py. '?' for what is none.
local names = {}
local function named(authority)
  local name = names[authority]
  if not name then
    local host, port = authority:match('^(%S-)(:%d+)$')
    host = (host or authority):gsub('%.$', '')
    name = (port == ':80' or port == ':443') and host or host .. (port or '')
    if not name:match('^%S+$') then name = '?' end
    names[authority] = name
  end
  return name
end

-- Of the authority inside the record's URL; its place and size are the record's bytes 14 and 15.
local function destination(record)
  local from, size = record:byte(14, 15)
  return named(size and record:sub(16 + from, 15 + from + size) or '')
end

-- The lowest score of a sorted set, or -1.
local function head(key)
  return tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or -1)
end

-- When anything may be claimed next, ms, or -1: a message is due (or `early` ms before), or a
-- destination opens.
local function soonest(early)
  local due, opens = head(DUE), head(OPENS)
  if due >= 0 then due = math.max(0, due - (early or 0)) end
  if due < 0 or opens < 0 then return math.max(due, opens) end
  return math.min(due, opens)
end

-- Fence, epoch, nonce and destination; nothing if there is no claim, or a damaged one.
local function split_claim(claim)
  return (claim or ''):match('^(%d+) (%S+) (%S+) (%S+)')
end

-- When a message was due that is claimed; it is due now if `taken` has lost it.
local function due_of(id, now)
  return call('ZSCORE', TAKEN, id)
    or math.max(now, scheduled(call('HGET', PAYLOADS, id) or ''))
end

local function place(id)
  if call('ZSCORE', DUE, id) then return 'due' end
  if call('ZSCORE', LEASES, id) then return 'leased' end
  if call('ZSCORE', TAKEN, id) then return 'parked' end
  if call('ZSCORE', DELIVERED, id) then return 'delivered' end
  if call('ZSCORE', FAILED, id) then return 'failed' end
  return 'missing'
end

-- Whether this is the claim that the process was given; returns the destination if so.
local function held(claim, fence, epoch)
  local its_fence, its_epoch, _, dest = split_claim(claim)
  if its_fence == fence and its_epoch == epoch then return dest end
  return nil
end

local function in_flight(dest)
  return math.max(0, math.floor(tonumber(call('HGET', INFLIGHT, dest) or 0) or 0))
end

-- Changes how many claims a destination has; a count that is below zero or no number begins anew.
local function add_in_flight(dest, by)
  local count = redis.pcall('HINCRBY', INFLIGHT, dest, by)
  if type(count) == 'number' and count >= math.max(1, by) then return end
  if by > 0 then
    call('HSET', INFLIGHT, dest, by)
  else
    call('HDEL', INFLIGHT, dest)
  end
end

-- Ends claims, `freed`: how many of each destination. The messages are then in no index, and the
-- caller puts them into one.
local function drop_claims(ids, freed)
  if #ids == 0 then return end
  call('ZREM', LEASES, unpack(ids))
  call('ZREM', TAKEN, unpack(ids))
  call('HDEL', CLAIMS, unpack(ids))
  for dest, count in pairs(freed) do add_in_flight(dest, -count) end
end

local ruled -- whether any destination has settings or failed to connect: most stores have none
local function has_rules()
  if ruled == nil then ruled = call('EXISTS', LIMITS, UNREACHABLE) > 0 end
  return ruled
end

-- The fields of `limits` that a destination's settings may be in: its name, and what earlier versions
-- named it, for which a port or a final dot made another destination.
local function spellings(dest)
  local host, port = dest:match('^(.-)(:%d+)$')
  if host then return {dest, host .. '.' .. port} end
  return {dest, dest .. ':80', dest .. ':443', dest .. '.', dest .. '.:80', dest .. '.:443'}
end

-- A destination's settings as they are stored, and in which field; nothing if it has none.
local function stored_settings(dest)
  local fields = spellings(dest)
  local found = call('HMGET', LIMITS, unpack(fields))
  for i, field in ipairs(fields) do
    if found[i] then return found[i], field end
  end
end

-- A destination's own settings: limit, ms between two messages (0: no rate), whether it is paused.
local function settings(dest, limit)
  local own = has_rules() and stored_settings(dest)
  if not own then return limit, 0, false end
  local concurrency, interval, paused = own:match('^(%d+) ([%d.e+-]+) (%d)')
  concurrency = tonumber(concurrency) or 0
  return concurrency > 0 and concurrency or limit, tonumber(interval) or 0, paused == '1'
end

-- The store's clock may be set back. An instant that was noted before and is then further ahead than
-- it can ever have been is not believed, or it would hold up messages for as long as the clock jumped.
local MAX_LEASE = 3600000 -- ms
local MAX_PAUSE = 60000 -- ms, until the next probe of what is unreachable

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

-- Attempts are counted in two hashes in turn, of one hour each, so that hosts without any are
-- forgotten: the hour it is, and its hash, which may still be that of the hour before last.
local function this_hour(now)
  local hour = math.floor(now / 3600000)
  return hour, hour % 2 == 0 and EVEN or ODD
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

local function forget(ids)
  if #ids == 0 then return end
  call('HDEL', PAYLOADS, unpack(ids))
  call('HDEL', PROGRESS, unpack(ids))
end

-- Puts finished messages on a shelf (until when, id, until when, id …), of which at most `most` stay
-- there. Whatever is too much goes by and by: two for each that comes.
local function shelve(shelf, finished, most)
  if #finished == 0 then return end
  call('ZADD', shelf, unpack(finished))
  local over = math.min(call('ZCARD', shelf) - most, #finished)
  if over <= 0 then return end
  local oldest = call('ZRANGE', shelf, 0, over - 1)
  call('ZREM', shelf, unpack(oldest))
  forget(oldest)
end

-- "attempts crashes outcome at\n" and the log; the log of a message never tried is an empty array.
local function one_more_crash(id)
  local progress = call('HGET', PROGRESS, id) or '0 0 retry 0\n\144'
  local attempts, crashes, rest = progress:match('^(%d+) (%d+) %a+ %d+\n(.*)$')
  return attempts or 0, (crashes or 0) + 1, rest or '\144'
end

-- Ends the claim of a process that died: the message waits again, or has failed if it outlived
-- `max_crashes` processes. Returns whether it waits.
local function take_back(id, dest, now, max_crashes, keep, most)
  local due = due_of(id, now)
  local attempts, crashes, log = one_more_crash(id)
  local verdict = crashes >= max_crashes and 'failed' or 'retry'
  local progress = table.concat({attempts, ' ', crashes, ' ', verdict, ' ', now, '\n', log})
  drop_claims({id}, {[dest] = 1})
  if verdict == 'failed' and keep <= 0 then
    forget({id})
    return false
  end
  call('HSET', PROGRESS, id, progress)
  if verdict == 'failed' then
    shelve(FAILED, {now + keep, id}, most)
    return false
  end
  call('ZADD', DUE, due, id)
  return true
end

-- Which run of the store this is, the run that `greet` last saw, and until when (ms) after a
-- restart nobody may reap.
local function runs(now)
  local run = call('INFO', 'server'):match('run_id:(%x+)')
  local known = call('HMGET', META, 'run_id', 'outage_until')
  local outage_until = tonumber(known[2] or 0) or 0
  return run, known[1], outage_until > now + MAX_LEASE and 0 or outage_until
end
