#!lua flags=no-writes
-- Lists pending messages after a position, the soonest first.
--
-- ARGV[1] after_due, ms, and ARGV[2] after_id of the last message seen; -1 and '' at the beginning
-- ARGV[3] max_rows (0–100)
-- ARGV[4] 1: whole records and progresses, for an export
-- Returns {total, more, (id, due, place, record, progress)…}
--   total     pending messages
--   more      1 if there are others after the last row
--   record    up to the end of its URL; '' if there is none: a damaged data set, with a row so that
--             the next call can continue after it
--   progress  its first line; '' if the message was never tried
-- needs: keys data record
check_data()
local whole = ARGV[4] == '1'
local after_due, after_id, max_rows = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local MAX_BYTES = 4 * 1024 * 1024 -- of records read; a page of large bodies ends early

-- The order of bytes, as in a sorted set; Lua's `<` follows the locale of the server.
local function before(due, id, other_due, other_id)
  if due ~= other_due then return due < other_due end
  for i = 1, math.min(#id, #other_id) do
    local a, b = id:byte(i), other_id:byte(i)
    if a ~= b then return a < b end
  end
  return #id < #other_id
end

-- The rank of the first message after the position; a search, as the message of the position may be
-- gone.
local function rank_after(key)
  local low, high = 0, call('ZCARD', key)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local at = call('ZRANGE', key, middle, middle, 'WITHSCORES')
    if before(after_due, after_id, tonumber(at[2]), at[1]) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local function page_of(key)
  local rank = rank_after(key)
  return call('ZRANGE', key, rank, rank + max_rows, 'WITHSCORES')
end

local reply = {call('ZCARD', DUE) + call('ZCARD', TAKEN), 0}
local due, taken = page_of(DUE), page_of(TAKEN)
local i, j, rows, bytes = 1, 1, 0, 0
while due[i] or taken[j] do
  if rows == max_rows or bytes > MAX_BYTES then
    reply[2] = 1
    break
  end
  local from_due = not taken[j]
    or due[i] and before(tonumber(due[i + 1]), due[i], tonumber(taken[j + 1]), taken[j])
  local id, at
  if from_due then
    id, at, i = due[i], due[i + 1], i + 2
  else
    id, at, j = taken[j], taken[j + 1], j + 2
  end
  local record = call('HGET', PAYLOADS, id) or ''
  rows, bytes = rows + 1, bytes + #record
  local n = #reply
  reply[n + 1], reply[n + 2] = id, tonumber(at)
  reply[n + 3] = from_due and 'due' or call('ZSCORE', LEASES, id) and 'leased' or 'parked'
  local progress = call('HGET', PROGRESS, id) or ''
  reply[n + 4] = whole and record or head_of(record)
  reply[n + 5] = whole and progress or progress:match('^[^\n]*')
end
return reply
