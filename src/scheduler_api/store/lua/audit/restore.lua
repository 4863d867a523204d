#!lua
-- Puts in messages of another store, unless their id is taken.
--
-- ARGV[1…] for each message (1–100): id, due ms, created ms ('' for now), record from its 8th byte
--          on, progress ('' if never tried)
-- Returns a word for each: 'ok', 'same' if a message with this content has the id, pending or
--          finished, else 'other'
-- needs: keys data arguments clock record
check_data()
local now = clock()

local function restore(id, due, created, rest, progress)
  local old = call('HGET', PAYLOADS, id)
  if old then return same_message(old, rest) and 'same' or 'other' end
  call('HSET', PAYLOADS, id, restored_record(tonumber(created) or now, rest))
  if progress ~= '' then call('HSET', PROGRESS, id, progress) end
  call('ZADD', DUE, due, id)
  return 'ok'
end

assert(#ARGV % 5 == 0, 'five arguments a message')
for i = 2, #ARGV, 5 do number(ARGV[i]) end

local reply = {}
for i = 1, #ARGV, 5 do
  reply[#reply + 1] = restore(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
call('SPUBLISH', WAKEUP, now)
return reply
