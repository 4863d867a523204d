#!lua flags=allow-oom
-- Corrects the count of claims of destinations, and unparks their messages that may be sent.
-- Reads all claims, as a count would be wrong again if others changed it meanwhile. They are no more
-- than the requests that all processes have open.
--
-- ARGV[1] limit_share: concurrency of a destination without settings, in this partition
-- ARGV[2…] destination… (1–100)
-- Returns how many messages went back to `due`
-- needs: keys data arguments clock places claims flow
check_data()
local limit_share, unparked, now = number(ARGV[1]), 0, clock()
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
  mend_parking(dest)
  unparked = unparked + unpark(dest, limit_share, now)
end
if unparked > 0 then call('SPUBLISH', WAKEUP, now) end
return unparked
