#!lua flags=allow-oom
-- Extends leases that are still held.
--
-- ARGV[1] epoch   ARGV[2] lease, ms   ARGV[3…] for each message: id, fence
-- Returns a word for each: 'ok' or 'stale'
-- needs: keys arguments clock claims
local epoch, lease, now = ARGV[1], number(ARGV[2]), clock()
local ids, reply, leases = {}, {}, {}
for i = 3, #ARGV, 2 do append(ids, ARGV[i]) end
local claims = #ids > 0 and call('HMGET', CLAIMS, unpack(ids))
for i, id in ipairs(ids) do
  local dest = held(claims[i], ARGV[2 * i + 2], epoch)
  if dest then append(leases, now + lease, id) end
  append(reply, dest and 'ok' or 'stale')
end
if #leases > 0 then call('ZADD', LEASES, unpack(leases)) end
return reply
