#!lua flags=allow-oom
-- Extends leases that are still held.
--
-- ARGV[1] epoch   ARGV[2] lease, ms   ARGV[3…] for each message: id, fence
-- Returns a word for each: 'ok' or 'stale'
local epoch, lease, now = ARGV[1], number(ARGV[2]), clock()
local reply = {}
for i = 3, #ARGV, 2 do
  local dest = held(call('HGET', CLAIMS, ARGV[i]), ARGV[i + 1], epoch)
  if dest then call('ZADD', LEASES, now + lease, ARGV[i]) end
  reply[#reply + 1] = dest and 'ok' or 'stale'
end
return reply
