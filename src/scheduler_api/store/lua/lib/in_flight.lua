-- How many claims each destination has in this partition, of all processes together.
-- needs: keys

local function in_flight(dest)
  return math.max(0, math.floor(tonumber(call('HGET', INFLIGHT, dest) or 0) or 0))
end

-- Changes the number of a destination's claims. A count that is negative or no number restarts at 0.
local function add_in_flight(dest, by)
  local count = redis.pcall('HINCRBY', INFLIGHT, dest, by)
  if type(count) == 'number' and count >= math.max(1, by) then return end
  if by > 0 then
    call('HSET', INFLIGHT, dest, by)
  else
    call('HDEL', INFLIGHT, dest)
  end
end
