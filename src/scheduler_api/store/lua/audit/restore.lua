#!lua
-- Stores messages of another store. One is not stored if its id is that of any message.
--
-- ARGV[1…] (id, due, created, rest, progress)… of each message (1–100)
--   due       ms
--   created   ms; '' for now
--   rest      its record from the 8th byte on
--   progress  '' if it was never tried
-- Returns {word…}
--   word  'ok'; 'same' if the message that has the id has this content; otherwise 'other'
-- needs: keys data arguments clock record places
check_data()
local now = clock()

local function restore(id, due, created, rest, progress)
  local old = call('HGET', PAYLOADS, id)
  if old then return same_message(old, rest) and 'same' or 'other' end
  call('HSET', PAYLOADS, id, restored_record(tonumber(created) or now, rest))
  if progress ~= '' then call('HSET', PROGRESS, id, progress) end
  enqueue({due, id})
  return 'ok'
end

assert(#ARGV % 5 == 0, 'five arguments a message')
for i = 2, #ARGV, 5 do number(ARGV[i]) end

local reply = {}
for i = 1, #ARGV, 5 do
  append(reply, restore(unpack(ARGV, i, i + 4)))
end
call('SPUBLISH', WAKEUP, now)
return reply
