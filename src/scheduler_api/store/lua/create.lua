#!lua
-- Stores new messages, unless their id is pending or a finished one was asked for identically.
--
-- ARGV[1]  within how many ms a new head of `due` is announced
-- ARGV[2…] for each message (1–100): id, due ("=ms" at an instant, "+ms" after now), record from
--          its 14th byte on
-- Returns {now, 1 if a new head was announced, then for each: word ('ok' or the place of the
--          message that has the id), when that is scheduled for, ms, its progress or ''}
local now, horizon = clock(), number(ARGV[1])
local old_head = head(DUE)

-- What a record's bytes 8–13 say, ms.
local function scheduled(record)
  local ms = 0
  for i = 8, 13 do ms = ms * 256 + record:byte(i) end
  return ms
end

-- As asked: the same content, and the same instant unless a delay was asked for.
local function identical(old, due, tail, relative)
  return old:sub(14) == tail and (relative or scheduled(old) == due)
end

local function create(id, asked, tail)
  local relative = asked:sub(1, 1) == '+'
  local due = tonumber(asked:sub(2)) + (relative and now or 0)
  local old = call('HGET', PAYLOADS, id)
  if old then
    local where = place(id)
    local finished = where == 'delivered' or where == 'failed'
    if not finished or identical(old, due, tail, relative) then
      return where, scheduled(old), call('HGET', PROGRESS, id) or ''
    end
    call('ZREM', DELIVERED, id)
    call('ZREM', FAILED, id)
    call('HDEL', PROGRESS, id)
  end
  call('HSET', PAYLOADS, id, '\1' .. u48(now) .. u48(due) .. tail)
  call('ZADD', DUE, due, id)
  return 'ok', due, ''
end

assert(#ARGV % 3 == 1, 'three arguments a message')
for i = 3, #ARGV, 3 do number(ARGV[i]:sub(2)) end

local reply, first = {now, 0}, nil
for i = 2, #ARGV, 3 do
  local word, due, progress = create(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if word == 'ok' then first = math.min(first or due, due) end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = word, due, progress
end
if first and first - now <= horizon and (old_head < 0 or first < old_head) then
  call('SPUBLISH', WAKEUP, first)
  reply[2] = 1
end
return reply
