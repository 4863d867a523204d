#!lua flags=allow-oom
-- Gives back claims that were not sent; their attempts do not change. A call without claims removes
-- the process from `workers`, which has the nonce of its last claim. A call with claims leaves it
-- there: the process may still repeat a claim whose reply was lost.
--
-- ARGV[1] worker_id
-- ARGV[2] limit_share: concurrency of a destination without settings, in this partition
-- ARGV[3…] (id, fence)… of each message (0–100)
-- Returns {word…}
--   word  'ok', or 'stale' for a claim that is no longer held
-- needs: keys arguments clock places claims flow
local worker_id, limit_share, now = ARGV[1], number(ARGV[2]), clock()
local reply, opened = {}, {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local dest = held(call('HGET', CLAIMS, id), ARGV[i + 1], worker_id)
  if dest then
    local due = due_of(id, now)
    drop_claims({id}, {[dest] = 1})
    enqueue({due, id})
    opened[dest] = (opened[dest] or 0) + 1
  end
  append(reply, dest and 'ok' or 'stale')
end
for dest, count in pairs(opened) do unpark(dest, limit_share, now, nil, count) end
if #reply > 0 then
  call('SPUBLISH', WAKEUP, now)
else
  call('HDEL', WORKERS, worker_id)
end
return reply
