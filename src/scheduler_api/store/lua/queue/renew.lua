#!lua flags=allow-oom
-- Extends leases that are still held.
--
-- ARGV[1] worker_id
-- ARGV[2] lease, ms
-- ARGV[3…] (id, fence)… of each message (0–100)
-- Returns {word…}
--   word  'ok', or 'stale' for a claim that is no longer held
-- needs: keys arguments clock places claims
local worker_id, lease, now = ARGV[1], number(ARGV[2]), clock()
local ids, reply, ends = {}, {}, {}
for i = 3, #ARGV, 2 do append(ids, ARGV[i]) end
local claims = #ids > 0 and call('HMGET', CLAIMS, unpack(ids))
for i, id in ipairs(ids) do
  local dest = held(claims[i], ARGV[2 * i + 2], worker_id)
  if dest then append(ends, now + lease, id) end
  append(reply, dest and 'ok' or 'stale')
end
set_leases(ends)
return reply
