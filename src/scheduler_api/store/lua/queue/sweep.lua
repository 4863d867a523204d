#!lua flags=allow-oom
-- Unparks messages that are parked without a reason; forgets old failures to connect; shortens leases
-- that became too long when the clock was set back.
--
-- ARGV[1] count: destinations, at random, and leases (1–100)
-- ARGV[2] limit_share: concurrency of a destination without settings, in this partition
-- ARGV[3] failures_ttl: ms after the last probe at which failures to connect are forgotten
-- ARGV[4] lease, ms
-- Returns the number of messages unparked
-- needs: keys data arguments clock places flow
check_data()
local count, limit_share, failures_ttl = number(ARGV[1]), number(ARGV[2]), number(ARGV[3])
local lease, now = number(ARGV[4]), clock()
local unparked = 0
for _, dest in ipairs(call('SRANDMEMBER', PARKING, count)) do
  unparked = unparked + unpark(dest, limit_share, now)
end
local unreachable = call('HRANDFIELD', UNREACHABLE, count, 'WITHVALUES')
for i = 1, #unreachable, 2 do
  local _, probe_at = failures(unreachable[i], now)
  if now - probe_at > failures_ttl then call('HDEL', UNREACHABLE, unreachable[i]) end
end
local too_late, ends = '(' .. now + MAX_LEASE, {}
for _, id in ipairs(call('ZRANGE', LEASES, too_late, '+inf', 'BYSCORE', 'LIMIT', 0, count)) do
  append(ends, now + lease, id)
end
set_leases(ends)
return unparked
