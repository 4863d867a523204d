-- The places of messages. A message is in exactly one of `due`, `leases`, `parked:*` and the keys of
-- the finished states, and its state is where it is. Only this file and finished.lua write them.
-- needs: keys arguments finished

-- The lowest score of a sorted set, or -1.
local function head(key)
  return tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or -1)
end

-- Where a message is: due, leased, parked, a finished state, or missing.
local function place_of(id)
  if call('ZSCORE', DUE, id) then return 'due' end
  if call('ZSCORE', LEASES, id) then return 'leased' end
  if call('ZSCORE', TAKEN, id) then return 'parked' end
  for _, state in ipairs(STATES) do
    if call('ZSCORE', FINISHED[state], id) then return state end
  end
  return 'missing'
end

-- Puts messages into `due`. `dues`: due ms, id, due ms, id …
local function enqueue(dues)
  if #dues > 0 then call('ZADD', DUE, unpack(dues)) end
end

-- Takes messages out of `due`, to lease or to park them. `dues`: due ms, id … of those that have a
-- record; `taken` keeps them until they are due again or finished.
local function take_out_of_due(ids, dues)
  if #ids > 0 then call('ZREM', DUE, unpack(ids)) end
  if #dues > 0 then call('ZADD', TAKEN, unpack(dues)) end
end

-- Leases messages, or extends their leases. `ends`: end of the lease, ms, id, end, id …
local function set_leases(ends)
  if #ends > 0 then call('ZADD', LEASES, unpack(ends)) end
end

-- Ends leases. The messages are then in no place; the caller puts them into one.
local function end_leases(ids)
  call('ZREM', LEASES, unpack(ids))
  call('ZREM', TAKEN, unpack(ids))
end

-- Parks messages of a destination. `dues`: due ms, id, due ms, id …
local function park(dest, dues)
  call('ZADD', PARKED .. dest, unpack(dues))
  call('SADD', PARKING, dest)
end

-- Whether messages of a destination are parked; if not, removes it from `parking`.
local function still_parked(dest)
  if call('EXISTS', PARKED .. dest) == 1 then return true end
  call('SREM', PARKING, dest)
  return false
end

-- Makes `parking` have the destination if messages of it are parked.
local function mend_parking(dest)
  if still_parked(dest) then call('SADD', PARKING, dest) end
end

-- Takes out the parked messages of a destination that were due first, up to `count`: id, due ms, id …
-- The messages are then in no place; the caller gives them to `enqueue_parked`.
local function pop_parked(dest, count)
  return call('ZPOPMIN', PARKED .. dest, count)
end

-- Puts messages that `pop_parked` returned into `due`.
local function enqueue_parked(popped)
  local ids, dues = {}, {}
  for i = 1, #popped, 2 do
    append(ids, popped[i])
    append(dues, popped[i + 1], popped[i])
  end
  call('ZREM', TAKEN, unpack(ids))
  enqueue(dues)
end

-- Takes a message that waits out of its place.
local function remove_waiting(id, dest)
  call('ZREM', DUE, id)
  call('ZREM', TAKEN, id)
  if call('ZREM', PARKED .. dest, id) == 1 then still_parked(dest) end
end

-- Takes a message out of all places, parked for any of these destinations.
local function remove_everywhere(id, dests)
  for _, key in ipairs({DUE, LEASES, TAKEN}) do call('ZREM', key, id) end
  for _, dest in ipairs(dests) do call('ZREM', PARKED .. dest, id) end
  remove_finished({id})
end
