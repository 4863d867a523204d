#!lua flags=allow-oom
-- Looks again at destinations with parked messages, should one ever be stranded; forgets failures
-- to connect that are long past; gives leases of a clock that was set back another end.
--
-- ARGV[1] how many (1–100), drawn by lot   ARGV[2] limit of a destination
-- ARGV[3] after how many ms failures to connect are long past   ARGV[4] lease, ms
-- Returns the number of messages unparked
-- needs: keys data arguments clock flow
check_data()
local most, limit, past = number(ARGV[1]), number(ARGV[2]), number(ARGV[3])
local lease, now = number(ARGV[4]), clock()
local unparked = 0
for _, dest in ipairs(call('SRANDMEMBER', PARKING, most)) do
  unparked = unparked + unpark(dest, limit, now)
end
local unreachable = call('HRANDFIELD', UNREACHABLE, most, 'WITHVALUES')
for i = 1, #unreachable, 2 do
  local _, probe_at = failures(unreachable[i], now)
  if now - probe_at > past then call('HDEL', UNREACHABLE, unreachable[i]) end
end
local too_late = '(' .. now + MAX_LEASE
for _, id in ipairs(call('ZRANGE', LEASES, too_late, '+inf', 'BYSCORE', 'LIMIT', 0, most)) do
  call('ZADD', LEASES, now + lease, id)
end
return unparked
