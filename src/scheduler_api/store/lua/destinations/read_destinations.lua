#!lua flags=no-writes
-- Reads how destinations are doing.
--
-- ARGV[1] limit of a destination   ARGV[2…] names (1–100)
-- Returns for each: name, in flight, parked, its settings ('' if it has none of its own), failures
--          to connect in a row, why nothing more may be leased now ('' if something may), from when
--          on, ms (-1 if that is no matter of time), what its attempts came to in this hour and
--          the last, one after the other
-- needs: keys data arguments clock in_flight limits hours flow
check_data()
local limit, now = number(ARGV[1]), clock()
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
for i = 2, #ARGV do
  local dest = ARGV[i]
  local free, why, opens_at = room(dest, limit, now)
  append(reply, dest, in_flight(dest))
  append(reply, call('ZCARD', PARKED .. dest), stored_settings(dest) or '')
  append(reply, failures(dest, now), free == 0 and why or '')
  append(reply, opens_at or -1, lately(dest))
end
return reply
