#!lua flags=no-writes
-- Looks at the messages of one step through a key: all that the keys say about each.
--
-- ARGV[1] key: due, taken, leases, claims, delivered, failed, payloads, progress or parked
-- ARGV[2] destination, if parked   ARGV[3] cursor ('0' at the beginning)
-- ARGV[4] how many, about (1–100)
-- Returns {cursor to go on from ('0' at the end), then for each: id, letters of where it is found
--          (d due, t taken, l leases, s delivered, f failed, g progress, p parked for its own
--          destination, q parked for that of ARGV[2], another), claim, record up to its URL's end
--          ('' if there is none)}
-- needs: keys data arguments record
check_data()
local name, dest, cursor, count = ARGV[1], ARGV[2], ARGV[3], number(ARGV[4])
local SETS = {due = DUE, taken = TAKEN, leases = LEASES, delivered = DELIVERED, failed = FAILED,
  parked = PARKED .. dest}
local HASHES = {claims = CLAIMS, payloads = PAYLOADS, progress = PROGRESS}
local LETTERS = {{'d', DUE}, {'t', TAKEN}, {'l', LEASES}, {'s', DELIVERED}, {'f', FAILED}}

-- The next cursor, pairs of id and something, and their step.
local function scanned()
  if SETS[name] then
    local found = call('ZSCAN', SETS[name], cursor, 'COUNT', count)
    return found[1], found[2], 2
  end
  local found = redis.pcall('HSCAN', HASHES[name], cursor, 'COUNT', count, 'NOVALUES')
  if not found.err then return found[1], found[2], 1 end
  -- An older server sends the values too: fewer at once, as they may be large.
  found = call('HSCAN', HASHES[name], cursor, 'COUNT', math.ceil(count / 10))
  return found[1], found[2], 2
end

local function letters(id, own)
  local found = {}
  for _, pair in ipairs(LETTERS) do
    if call('ZSCORE', pair[2], id) then found[#found + 1] = pair[1] end
  end
  if call('HEXISTS', PROGRESS, id) == 1 then found[#found + 1] = 'g' end
  if own and call('ZSCORE', PARKED .. own, id) then found[#found + 1] = 'p' end
  if name == 'parked' and dest ~= own and call('ZSCORE', PARKED .. dest, id) then
    found[#found + 1] = 'q'
  end
  return table.concat(found)
end

local next_cursor, found, step = scanned()
local reply = {next_cursor}
for i = 1, #found, step do
  local id = found[i]
  local record = call('HGET', PAYLOADS, id)
  local n = #reply
  reply[n + 1], reply[n + 2] = id, letters(id, record and destination_of(record))
  reply[n + 3] = call('HGET', CLAIMS, id) or ''
  reply[n + 4] = head_of(record or '')
end
return reply
