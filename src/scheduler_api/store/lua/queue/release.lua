#!lua flags=allow-oom
-- Gives back claims that were not sent, attempts unchanged. Without any the process leaves the roll,
-- which has the nonce of its last claim: with some it stays, as it may yet ask for a claim again whose
-- reply was lost.
--
-- ARGV[1] epoch   ARGV[2] limit of a destination   ARGV[3…] for each message: id, fence
-- Returns a word for each: 'ok' or 'stale'
-- needs: keys arguments clock claims flow
local epoch, limit, now = ARGV[1], number(ARGV[2]), clock()
local reply, opened = {}, {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local dest = held(call('HGET', CLAIMS, id), ARGV[i + 1], epoch)
  if dest then
    local due = due_of(id, now)
    drop_claims({id}, {[dest] = 1})
    call('ZADD', DUE, due, id)
    opened[dest] = (opened[dest] or 0) + 1
  end
  append(reply, dest and 'ok' or 'stale')
end
for dest, count in pairs(opened) do unpark(dest, limit, now, nil, count) end
if #reply > 0 then
  call('SPUBLISH', WAKEUP, now)
else
  call('HDEL', WORKERS, epoch)
end
return reply
