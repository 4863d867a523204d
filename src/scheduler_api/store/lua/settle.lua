#!lua flags=allow-oom
-- Ends claims with their outcome; a claim that is no longer held changes nothing.
--
-- ARGV[1] epoch   ARGV[2] limit of a destination   ARGV[3] most records kept on a shelf
-- ARGV[4…] for each message (1–100): id, fence, verdict (delivered, failed, retry), ms (how long
--          the record is kept, or until the next attempt), "attempts crashes", attempts' log
-- Returns {1 if `due` has a new head or got unparked messages, then a word for each: 'ok' or
--          'stale'}
local epoch, limit, most, now = ARGV[1], number(ARGV[2]), number(ARGV[3]), clock()
local reply, opened, unparked, old_head = {0}, {}, 0, head(DUE)

local function settle(id, fence, verdict, ms, counts, log)
  local dest = held(id, fence, epoch)
  if not dest then return 'stale' end
  drop_claim(id, dest)
  opened[dest] = true
  local progress = table.concat({counts, ' ', verdict, ' ', now, '\n', log})
  if verdict == 'retry' then
    call('HSET', PROGRESS, id, progress)
    call('ZADD', DUE, now + ms, id)
  else
    finish(verdict == 'delivered' and DELIVERED or FAILED, id, progress, now, ms, most)
  end
  return 'ok'
end

assert(#ARGV % 6 == 3, 'six arguments a message')
for i = 7, #ARGV, 6 do number(ARGV[i]) end

for i = 4, #ARGV, 6 do
  reply[#reply + 1] =
    settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 4], ARGV[i + 5])
end
for dest in pairs(opened) do unparked = unparked + unpark(dest, limit) end
local new_head = head(DUE)
if unparked > 0 or new_head >= 0 and (old_head < 0 or new_head < old_head) then reply[1] = 1 end
return reply
