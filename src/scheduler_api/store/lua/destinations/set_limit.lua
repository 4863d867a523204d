#!lua flags=allow-oom
-- Sets or deletes the settings of a destination. The next claim unparks what they let through.
--
-- ARGV[1] destination
-- ARGV[2] settings: "concurrency interval paused" and the settings as requested; '' to delete them
-- Returns 1 if it had settings before, otherwise 0
-- needs: keys data clock places limits
check_data()
local dest, own, now = ARGV[1], ARGV[2], clock()
local old, field = stored_settings(dest)
if field == dest and old == own or not old and own == '' then return old and 1 or 0 end
if old then call('HDEL', LIMITS, unpack(spellings(dest))) end
if own ~= '' then call('HSET', LIMITS, dest, own) end
-- A new rate starts now: the instant at which the old one allows a message no longer counts.
local INTERVAL = '^%d+ (%S+)'
if (old or ''):match(INTERVAL) ~= own:match(INTERVAL) then call('HDEL', RATE, dest) end
if still_parked(dest) then
  call('ZADD', OPENS, now, dest)
  call('SPUBLISH', WAKEUP, now)
end
return old and 1 or 0
