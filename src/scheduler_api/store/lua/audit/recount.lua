#!lua flags=allow-oom
-- Counts anew what is in flight to destinations, and lets go what is parked for no reason.
-- Reads all claims, as a count that others change meanwhile would be wrong again: they are no more
-- than the requests that all processes have open.
--
-- ARGV[1] limit of a destination   ARGV[2…] destinations (1–100)
-- Returns how many messages went back to `due`
-- needs: keys data arguments clock claims flow
check_data()
local limit, freed, now = number(ARGV[1]), 0, clock()
local counts = {}
for _, claim in ipairs(call('HVALS', CLAIMS)) do
  local _, _, _, dest = split_claim(claim)
  if dest then counts[dest] = (counts[dest] or 0) + 1 end
end
for i = 2, #ARGV do
  local dest = ARGV[i]
  if counts[dest] then
    call('HSET', INFLIGHT, dest, counts[dest])
  else
    call('HDEL', INFLIGHT, dest)
  end
  if still_parked(dest) then call('SADD', PARKING, dest) end
  freed = freed + unpark(dest, limit, now)
end
if freed > 0 then call('SPUBLISH', WAKEUP, now) end
return freed
