-- Finished messages: each finished state has a key, and keeps its messages until their retention ends.
-- needs: keys

-- The finished states, in the order in which trim.lua forgets their messages. FINISHED of
-- store/keys.py is the same list; their keys are the last ones. Add a new state to both.
local STATES = {'delivered', 'failed'}
local FINISHED = {} -- state → its key
for i = 1, #STATES do FINISHED[STATES[i]] = KEYS[#KEYS - #STATES + i] end

-- Deletes the contents of messages that are in no place any more.
local function forget(ids)
  if #ids == 0 then return end
  call('HDEL', PAYLOADS, unpack(ids))
  call('HDEL', PROGRESS, unpack(ids))
end

-- Takes messages out of one finished state, and forgets them.
local function forget_finished(state, ids)
  if #ids == 0 then return end
  call('ZREM', FINISHED[state], unpack(ids))
  forget(ids)
end

-- Takes messages out of all finished states; their contents stay.
local function remove_finished(ids)
  for _, state in ipairs(STATES) do call('ZREM', FINISHED[state], unpack(ids)) end
end

-- Puts messages into a finished state. `ends`: end of the retention, ms, id, end, id … A state keeps
-- at most `max_kept`; a surplus is forgotten gradually, at most two for each message that comes.
local function finish(state, ends, max_kept)
  if #ends == 0 then return end
  call('ZADD', FINISHED[state], unpack(ends))
  local surplus = math.min(call('ZCARD', FINISHED[state]) - max_kept, #ends)
  if surplus > 0 then forget_finished(state, call('ZRANGE', FINISHED[state], 0, surplus - 1)) end
end
