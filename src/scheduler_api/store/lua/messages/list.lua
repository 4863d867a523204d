#!lua flags=no-writes
-- Lists pending messages, soonest first, those after a position.
--
-- ARGV[1] due ms and ARGV[2] id of the last message seen (-1 and '' at the beginning)
-- ARGV[3] how many (1–100)   ARGV[4] 1: whole records and progresses, for an export
-- Returns {total pending, 1 if there are more, then id, due ms, place, record up to its URL's
--          end ('' if there is none: a damaged data set, listed as the position to go on from),
--          first line of the progress ('' if never tried) for each}
-- needs: keys data record
check_data()
local whole = ARGV[4] == '1'
local after_due, after_id, most = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local BYTES = 4 * 1024 * 1024 -- of records read; a page of large bodies ends early

-- Byte order, as in a sorted set; Lua's own `<` follows the server's locale.
local function before(due, id, other_due, other_id)
  if due ~= other_due then return due < other_due end
  for i = 1, math.min(#id, #other_id) do
    local a, b = id:byte(i), other_id:byte(i)
    if a ~= b then return a < b end
  end
  return #id < #other_id
end

-- The rank of the first message after the position; a search, as the position may be gone.
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
  return call('ZRANGE', key, rank, rank + most, 'WITHSCORES')
end

local reply = {call('ZCARD', DUE) + call('ZCARD', TAKEN), 0}
local due, taken = page_of(DUE), page_of(TAKEN)
local i, j, rows, bytes = 1, 1, 0, 0
while due[i] or taken[j] do
  if rows == most or bytes > BYTES then
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
