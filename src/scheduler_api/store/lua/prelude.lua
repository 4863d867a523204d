-- Inserted after the first line of every script: the keys, the clock, and the moves they share.
local DUE, TAKEN, LEASES, CLAIMS, INFLIGHT, PAYLOADS, PROGRESS, DELIVERED, FAILED, WORKERS, META,
  PARKED, WAKEUP = unpack(KEYS)
local call = redis.call

-- An argument that is a number; raises otherwise. To be asked for before anything is written, as a
-- script that fails does not roll back.
local function number(argument)
  return tonumber(argument) or error('not a number: ' .. tostring(argument))
end

-- Milliseconds by the store's clock; rounded down, so that nothing is ever early.
local function clock()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A millisecond count as six bytes, big end first: enough until the year 10889.
local function u48(number)
  local bytes = {}
  for i = 6, 1, -1 do
    bytes[i] = string.char(number % 256)
    number = math.floor(number / 256)
  end
  return table.concat(bytes)
end

-- The authority inside the record's URL; its place and size are the record's bytes 14 and 15.
local function destination(record)
  local from, size = record:byte(14, 15)
  return record:sub(16 + from, 15 + from + size)
end

-- The lowest score of a sorted set, or -1.
local function head(key)
  return tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or -1)
end

local function split_claim(claim)
  return claim:match('^(%d+) (%S+) (%S+) (%S+)')
end

local function place(id)
  if call('ZSCORE', DUE, id) then return 'due' end
  if call('ZSCORE', LEASES, id) then return 'leased' end
  if call('ZSCORE', TAKEN, id) then return 'parked' end
  if call('ZSCORE', DELIVERED, id) then return 'delivered' end
  if call('ZSCORE', FAILED, id) then return 'failed' end
  return 'missing'
end

-- Whether this process still holds the claim it was given; returns the destination if so.
local function held(id, fence, epoch)
  local claim = call('HGET', CLAIMS, id)
  if not claim then return nil end
  local its_fence, its_epoch, _, dest = split_claim(claim)
  if its_fence == fence and its_epoch == epoch then return dest end
  return nil
end

-- Ends a claim: the message is then in no index, and the caller puts it into one.
local function drop_claim(id, dest)
  call('ZREM', LEASES, id)
  call('ZREM', TAKEN, id)
  call('HDEL', CLAIMS, id)
  if call('HINCRBY', INFLIGHT, dest, -1) <= 0 then call('HDEL', INFLIGHT, dest) end
end

-- After every change that can open a slot: one message for each open slot goes back to `due`.
-- (Handing over just one strands the rest when that one is cancelled before its claim.)
-- Returns how many.
local function unpark(dest, limit)
  local room = limit - tonumber(call('HGET', INFLIGHT, dest) or 0)
  if room <= 0 then return 0 end
  local freed = call('ZPOPMIN', PARKED .. dest, room)
  for i = 1, #freed, 2 do
    call('ZREM', TAKEN, freed[i])
    call('ZADD', DUE, freed[i + 1], freed[i])
  end
  return #freed / 2
end

local function forget(id)
  call('HDEL', PAYLOADS, id)
  call('HDEL', PROGRESS, id)
end

-- Shelves a finished message for `keep` ms, or forgets it; at most `most` stay on a shelf.
local function finish(shelf, id, progress, now, keep, most)
  if keep <= 0 then return forget(id) end
  call('HSET', PROGRESS, id, progress)
  call('ZADD', shelf, now + keep, id)
  if call('ZCARD', shelf) > most then
    for _, old in ipairs(call('ZRANGE', shelf, 0, 1)) do
      call('ZREM', shelf, old)
      forget(old)
    end
  end
end

-- "attempts crashes outcome at\n" and the log; the log of a message never tried is an empty array.
local function one_more_crash(id)
  local progress = call('HGET', PROGRESS, id) or '0 0 retry 0\n\144'
  local attempts, crashes, rest = progress:match('^(%d+) (%d+) %a+ %d+\n(.*)$')
  return attempts, crashes + 1, rest
end

-- Ends the claim of a process that died: the message waits again, or has failed if it outlived
-- `most_crashes` processes. Returns whether it waits.
local function take_back(id, dest, now, most_crashes, keep, most)
  local due = call('ZSCORE', TAKEN, id)
  local attempts, crashes, log = one_more_crash(id)
  local verdict = crashes >= most_crashes and 'failed' or 'retry'
  local progress = table.concat({attempts, ' ', crashes, ' ', verdict, ' ', now, '\n', log})
  drop_claim(id, dest)
  if verdict == 'failed' then
    finish(FAILED, id, progress, now, keep, most)
    return false
  end
  call('HSET', PROGRESS, id, progress)
  call('ZADD', DUE, due, id)
  return true
end

-- Which run of the store this is, the run that `greet` last saw, and until when (ms) after a
-- restart nobody may reap.
local function runs()
  local run = call('INFO', 'server'):match('run_id:(%x+)')
  local known = call('HMGET', META, 'run_id', 'outage_until')
  return run, known[1], tonumber(known[2] or 0)
end
