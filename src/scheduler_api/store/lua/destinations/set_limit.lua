#!lua flags=allow-oom
-- Sets what a destination may get at the most; what that lets go on is unparked by the next claim.
--
-- ARGV[1] destination   ARGV[2] its settings ("concurrency interval paused" and what was asked), ''
--         for none of its own
-- Returns 1 if it had settings before, else 0
-- needs: keys data clock limits flow
check_data()
local dest, own, now = ARGV[1], ARGV[2], clock()
local old, field = stored_settings(dest)
if field == dest and old == own or not old and own == '' then return old and 1 or 0 end
if old then call('HDEL', LIMITS, unpack(spellings(dest))) end
if own ~= '' then call('HSET', LIMITS, dest, own) end
-- Another rate begins anew: the wait for the next beat of the old one is over.
local BEAT = '^%d+ (%S+)'
if (old or ''):match(BEAT) ~= own:match(BEAT) then call('HDEL', RATE, dest) end
if still_parked(dest) then
  call('ZADD', OPENS, now, dest)
  call('SPUBLISH', WAKEUP, now)
end
return old and 1 or 0
