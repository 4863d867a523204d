#!lua flags=no-writes
-- Reads the messages of one step of a scan of a key, and what all keys contain about each.
--
-- ARGV[1] name of the key: due, taken, leases, claims, payloads, progress, parked or a finished state
-- ARGV[2] destination, if parked
-- ARGV[3] cursor ('0' at the beginning)
-- ARGV[4] count: about how many (1–100)
-- Returns {cursor, (id, keys, claim, head)…}
--   cursor  of the next call; '0' at the end
--   keys    names of the keys that have the id, with spaces between them; parked: for its own
--           destination; parked_elsewhere: for that of ARGV[2], another one
--   claim   '' if there is none
--   head    record up to the end of its URL; '' if there is no record
-- needs: keys data arguments record finished
check_data()
local name, dest, cursor, count = ARGV[1], ARGV[2], ARGV[3], number(ARGV[4])
local SETS = {due = DUE, taken = TAKEN, leases = LEASES}
local HASHES = {claims = CLAIMS, payloads = PAYLOADS, progress = PROGRESS}
local names = {'due', 'taken', 'leases'}
for _, state in ipairs(STATES) do
  append(names, state)
  SETS[state] = FINISHED[state]
end

-- The next cursor; pairs of an id and something; their step.
local function scanned()
  local set = name == 'parked' and PARKED .. dest or SETS[name]
  if set then
    local found = call('ZSCAN', set, cursor, 'COUNT', count)
    return found[1], found[2], 2
  end
  local found = redis.pcall('HSCAN', HASHES[name], cursor, 'COUNT', count, 'NOVALUES')
  if not found.err then return found[1], found[2], 1 end
  -- An older server sends the values too, which may be large: fewer in one call.
  found = call('HSCAN', HASHES[name], cursor, 'COUNT', math.ceil(count / 10))
  return found[1], found[2], 2
end

local function keys_with(id, own)
  local found = {}
  for _, set in ipairs(names) do
    if call('ZSCORE', SETS[set], id) then append(found, set) end
  end
  if call('HEXISTS', PROGRESS, id) == 1 then append(found, 'progress') end
  if own and call('ZSCORE', PARKED .. own, id) then append(found, 'parked') end
  if name == 'parked' and dest ~= own and call('ZSCORE', PARKED .. dest, id) then
    append(found, 'parked_elsewhere')
  end
  return table.concat(found, ' ')
end

local next_cursor, found, step = scanned()
local reply = {next_cursor}
for i = 1, #found, step do
  local id = found[i]
  local record = call('HGET', PAYLOADS, id)
  append(reply, id, keys_with(id, record and destination_of(record)))
  append(reply, call('HGET', CLAIMS, id) or '', head_of(record or ''))
end
return reply
