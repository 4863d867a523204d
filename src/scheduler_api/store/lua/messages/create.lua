#!lua
-- Stores new messages. One is not stored if its id is that of a pending message, or of a finished one
-- of which the request is a repeat.
--
-- ARGV[1] horizon: a new head of `due` within this many ms is announced
-- ARGV[2…] (id, asked, tail)… of each message (1–100)
--   asked  when it is due: "=ms" at an instant, "+ms" after now
--   tail   its record from the 14th byte on
-- Returns {now, announced, (word, scheduled, progress)…}
--   announced  1 if a new head of `due` was announced
--   word       'ok', or the place of the message that has the id already
--   scheduled  when that message, or the new one, is scheduled for, ms
--   progress   of that message; '' if it was never tried
-- needs: keys data arguments clock record finished places
check_data()
local now, horizon = clock(), number(ARGV[1])
local old_head = head(DUE)
local REPEAT_WITHIN = 120000 -- ms after the first was created, by the store's clock
local created = {} -- id → due, of the messages that are stored
local replaced, records, dues = {}, {}, {} -- ids; id, record …; due, id …

-- The same request: the same content and the same instant. With a delay the instant differs in each
-- request, so the second one is a repeat only for a while: later a caller means a new message.
local function identical(old, due, tail, relative)
  if not same_request(old, tail) then return false end
  if relative then return now - created_of(old) <= REPEAT_WITHIN end
  return scheduled_of(old) == due
end

-- Decides about a message, `old`: the record that has the id; `create_all` writes it.
local function create(id, asked, tail, old)
  if created[id] then return 'due', created[id], '' end
  local relative = asked:sub(1, 1) == '+'
  local due = tonumber(asked:sub(2)) + (relative and now or 0)
  if old then
    local place = place_of(id)
    if not FINISHED[place] or identical(old, due, tail, relative) then
      return place, scheduled_of(old), call('HGET', PROGRESS, id) or ''
    end
    append(replaced, id)
  end
  created[id] = due
  append(records, id, new_record(now, due, tail))
  append(dues, due, id)
  return 'ok', due, ''
end

local function create_all()
  if #replaced > 0 then
    remove_finished(replaced)
    call('HDEL', PROGRESS, unpack(replaced))
  end
  if #dues == 0 then return end
  call('HSET', PAYLOADS, unpack(records))
  enqueue(dues)
end

assert(#ARGV % 3 == 1, 'three arguments a message')
for i = 3, #ARGV, 3 do number(ARGV[i]:sub(2)) end

local ids, known, reply, first = {}, {}, {now, 0}, nil
for i = 2, #ARGV, 3 do append(ids, ARGV[i]) end
for i, id in ipairs(ids) do
  local at = (i - 1) % READ + 1
  if at == 1 then known = call('HMGET', PAYLOADS, unpack(ids, i, math.min(#ids, i + READ - 1))) end
  local _, asked, tail = unpack(ARGV, 3 * i - 1, 3 * i + 1)
  local word, due, progress = create(id, asked, tail, known[at])
  if word == 'ok' then first = math.min(first or due, due) end
  append(reply, word, due)
  append(reply, progress)
end
create_all()
if first and first - now <= horizon and (old_head < 0 or first < old_head) then
  call('SPUBLISH', WAKEUP, first)
  reply[2] = 1
end
return reply
