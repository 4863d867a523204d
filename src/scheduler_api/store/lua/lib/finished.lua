-- Finished messages: kept for a while on a shelf, then forgotten.
-- needs: keys

local function forget(ids)
  if #ids == 0 then return end
  call('HDEL', PAYLOADS, unpack(ids))
  call('HDEL', PROGRESS, unpack(ids))
end

-- Puts finished messages on a shelf (until when, id, until when, id …), of which at most `most` stay
-- there. A surplus goes gradually, two for each that comes.
local function shelve(shelf, finished, most)
  if #finished == 0 then return end
  call('ZADD', shelf, unpack(finished))
  local over = math.min(call('ZCARD', shelf) - most, #finished)
  if over <= 0 then return end
  local oldest = call('ZRANGE', shelf, 0, over - 1)
  call('ZREM', shelf, unpack(oldest))
  forget(oldest)
end
