#!lua flags=no-writes
-- Reads how destinations are doing: those named, or those with load or settings.
--
-- ARGV[1] limit of a destination   ARGV[2] how many destinations with parked messages at the most
-- ARGV[3…] names; without any: all
-- Returns for each: name, in flight, parked, its settings ('' if it has none of its own), failures
--          to connect in a row, why nothing more may be leased now ('' if something may), from when
--          on, ms (-1 if that is no matter of time), what its attempts came to in this hour and
--          the last, one after the other
local limit, most, now = number(ARGV[1]), number(ARGV[2]), clock()

local function names()
  if #ARGV > 2 then return {unpack(ARGV, 3)} end
  local found, seen = {}, {}
  local parking = call('SSCAN', PARKING, 0, 'COUNT', most)[2]
  for _, some in ipairs({call('HKEYS', LIMITS), call('HKEYS', INFLIGHT), parking}) do
    for _, dest in ipairs(some) do
      if not seen[dest] then found[#found + 1] = dest end
      seen[dest] = true
    end
  end
  return found
end

local hour = this_hour(now)

local function lately(dest)
  local both = ''
  for _, key in ipairs({EVEN, ODD}) do
    local found = call('HMGET', key, '', dest)
    if (tonumber(found[1] or 0) or 0) >= hour - 1 then both = both .. (found[2] or '') end
  end
  return both
end

local reply = {}
for _, dest in ipairs(names()) do
  local free, why, opens_at = room(dest, limit, now)
  local n = #reply
  reply[n + 1], reply[n + 2] = dest, in_flight(dest)
  reply[n + 3], reply[n + 4] = call('ZCARD', PARKED .. dest), call('HGET', LIMITS, dest) or ''
  reply[n + 5], reply[n + 6] = failures(dest, now), free == 0 and why or ''
  reply[n + 7], reply[n + 8] = opens_at or -1, lately(dest)
end
return reply
