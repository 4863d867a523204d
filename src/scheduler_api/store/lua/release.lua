#!lua flags=allow-oom
-- Gives back claims that were not sent, attempts unchanged; the process leaves the roll.
--
-- ARGV[1] epoch   ARGV[2] limit of a destination   ARGV[3…] for each message: id, fence
-- Returns a word for each: 'ok' or 'stale'
local epoch, limit, now = ARGV[1], number(ARGV[2]), clock()
local reply, opened = {}, {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local dest = held(call('HGET', CLAIMS, id), ARGV[i + 1], epoch)
  if dest then
    local due = call('ZSCORE', TAKEN, id)
    drop_claims({id}, {[dest] = 1})
    call('ZADD', DUE, due, id)
    opened[dest] = true
  end
  append(reply, dest and 'ok' or 'stale')
end
for dest in pairs(opened) do unpark(dest, limit, now) end
call('HDEL', WORKERS, epoch)
if #reply > 0 then call('SPUBLISH', WAKEUP, now) end
return reply
