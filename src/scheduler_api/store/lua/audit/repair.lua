#!lua flags=allow-oom
-- Puts messages that are in no place, or in several, into one; drops what has no record.
--
-- In doubt a message is sent once more rather than not at all: claimed goes before due, due before
-- finished.
--
-- ARGV[1] how long a delivered record is kept, ms   ARGV[2] a failed one
-- ARGV[3] a destination for which some may be parked though it is not theirs, or ''
-- ARGV[4…] ids (1–100)
-- Returns a word for each: where it now is (leased, due, delivered, failed), 'dropped', or 'sound'
--          if nothing is wrong
-- needs: keys data arguments clock record finished claims
check_data()
local keep, other, now = {delivered = number(ARGV[1]), failed = number(ARGV[2])}, ARGV[3], clock()
local PLACES = {due = DUE, leased = LEASES, delivered = DELIVERED, failed = FAILED}

-- Score by place; and in how many places it is.
local function places(id, own)
  local at, count = {}, 0
  for name, key in pairs(PLACES) do at[name] = call('ZSCORE', key, id) or nil end
  at.parked = own and call('ZSCORE', PARKED .. own, id) or nil
  at.stray = other ~= '' and other ~= own and call('ZSCORE', PARKED .. other, id) or nil
  for _ in pairs(at) do count = count + 1 end
  at.taken = call('ZSCORE', TAKEN, id) or nil
  return at, count
end

local function sound(record, claim, at, count)
  local out_of_due = at.leased or at.parked or at.stray
  return record and count == 1 and not claim == not at.leased and not at.taken == not out_of_due
end

local function take_out(id, own)
  for _, key in pairs(PLACES) do call('ZREM', key, id) end
  call('ZREM', TAKEN, id)
  if own then call('ZREM', PARKED .. own, id) end
  if other ~= '' then call('ZREM', PARKED .. other, id) end
end

-- Where it belongs; its outcome decides only if it waits nowhere.
local function belongs(id, claim, at)
  if claim then return 'leased' end
  if at.due or at.leased or at.parked or at.stray or at.taken then return 'due' end
  local outcome = (call('HGET', PROGRESS, id) or ''):match('^%d+ %d+ (%a+) ')
  return keep[outcome] and outcome or 'due'
end

local function repair(id)
  local record, claim = call('HGET', PAYLOADS, id), call('HGET', CLAIMS, id)
  if claim and not split_claim(claim) then
    call('HDEL', CLAIMS, id)
    claim = false
  end
  if record == '' then record = false end
  local own = record and destination_of(record)
  local at, count = places(id, own)
  if sound(record, claim, at, count) then return 'sound' end
  take_out(id, own)
  if not record then
    call('HDEL', CLAIMS, id)
    forget({id})
    return 'dropped'
  end
  local place = belongs(id, claim, at)
  local due = at.taken or at.due or at.parked or at.stray or scheduled_of(record)
  if place == 'leased' then
    call('ZADD', TAKEN, due, id)
    call('ZADD', LEASES, at.leased or now, id) -- over now, unless its holder renews it
  elseif place == 'due' then
    call('ZADD', DUE, due, id)
  else
    call('ZADD', PLACES[place], at[place] or now + keep[place], id)
  end
  return place
end

local reply = {}
for i = 4, #ARGV do reply[#reply + 1] = repair(ARGV[i]) end
return reply
