#!lua flags=allow-oom
-- Corrects the counts of destinations in `inflight`, and unparks their messages that may be sent.
-- Reads all claims, as a count would be wrong again if others changed it meanwhile.
--
-- ARGV[1] limit_share: concurrency of a destination without settings, in this partition
-- ARGV[2…] destination… (1–100)
-- Returns how many messages went back to `due`
-- needs: keys data arguments clock places claims flow
check_data()
local limit_share, unparked, now = number(ARGV[1]), 0, clock()
local dests = {}
for i = 2, #ARGV do append(dests, ARGV[i]) end
recount(dests)
for _, dest in ipairs(dests) do
  mend_parking(dest)
  unparked = unparked + unpark(dest, limit_share, now)
end
if unparked > 0 then call('SPUBLISH', WAKEUP, now) end
return unparked
