#!lua flags=no-writes
-- Reads all that is in flight, and what is kept of some destinations.
--
-- ARGV[1…] destinations (0–100)
-- Returns {claims, ids and claims in turn; destinations and their counts in turn; number parked of
--          each of the destinations}
local parked = {}
for i = 1, #ARGV do parked[i] = call('ZCARD', PARKED .. ARGV[i]) end
return {call('HGETALL', CLAIMS), call('HGETALL', INFLIGHT), parked}
