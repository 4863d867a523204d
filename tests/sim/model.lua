-- A model of the Redis commands that the scripts use, held equal to the server by test_model.py.
--
-- In Lua, so that a command costs no way to Python and back. It also gives a script what Redis gives
-- it: its globals, and no others. A command that is not here is an error, never a guess.
-- Called with what ECHO does: the seam in a script that stands for two calls, see planted.py; and
-- with what SPUBLISH calls, if anybody listens.
local seam, publish = ...
-- Each call of a script creates its functions again, so compiled code would be used only once.
if jit then jit.off() end
local keys, dirty = {}, {} -- name → what is stored; names that were written since `changed`
local changes, now_us, store_run = 0, 0, 0
local NOTHING = {map = {}, order = {}}

local WRONG_TYPE = 'WRONGTYPE Operation against a key holding the wrong kind of value'
local SYNTAX = 'ERR syntax error'
local ARITY = 'ERR wrong number of arguments for a command'

local function refuse(text) error(text, 0) end

-- Numbers, as Redis reads and writes them.

-- The shortest text that is read as the same number.
local function fraction(number)
  for digits = 15, 17 do
    local text = string.format('%.' .. digits .. 'g', number)
    if tonumber(text) == number then return text end
  end
end

local function number_text(number)
  if number == math.huge then return 'inf' end
  if number == -math.huge then return '-inf' end
  if number == math.floor(number) and math.abs(number) < 1e17 then
    return string.format('%.0f', number)
  end
  return fraction(number)
end

-- As Redis turns a script's argument into a string.
local function text_of(value)
  if type(value) == 'string' then return value end
  if type(value) == 'number' then return number_text(value) end
  refuse('ERR Command arguments must be strings or integers')
end

local function integer(value)
  if type(value) == 'number' and value == math.floor(value) then return value end
  local text = text_of(value)
  local digits = text:match('^%-?(%d+)$')
  if not digits or #digits > 18 or (#digits > 1 and digits:byte() == 48) then
    refuse('ERR value is not an integer or out of range')
  end
  return tonumber(text)
end

-- Nil, if the text is none.
local function real(text)
  local sign, rest = text:lower():match('^([-+]?)(.*)$')
  local number = rest == 'inf' and math.huge
  if not number then
    local exponent = rest:match('^%d+%.?%d*(.*)$') or rest:match('^%.%d+(.*)$')
    if not exponent or exponent ~= '' and not exponent:match('^e[-+]?%d+$') then return nil end
    number = tonumber(rest)
  end
  return sign == '-' and -number or number
end

local function score_of(value)
  if type(value) == 'number' then return value end
  return real(text_of(value)) or refuse('ERR value is not a valid float')
end

local ENDS = {['-inf'] = -math.huge, ['+inf'] = math.huge}

-- `5`, or `(5` for what is beyond 5: the number, and whether it is itself left out.
local function bound(value)
  if type(value) == 'number' then return value, false end
  if ENDS[value] then return ENDS[value], false end
  local text = text_of(value)
  local beyond = text:match('^%((.*)$')
  if beyond == '' then return 0, true end -- C's strtod takes nothing
  return real(beyond or text) or refuse('ERR min or max is not a float'), beyond ~= nil
end

-- Typed access. All kinds keep `map` (field or member → value or score) and `order`. An empty key
-- is gone.

local function stored_at(key, kind)
  local stored = keys[key]
  if stored and stored.kind ~= kind then refuse(WRONG_TYPE) end
  return stored
end

local function seen(key, kind) return stored_at(key, kind) or NOTHING end

local function opened(key, kind) return stored_at(key, kind) or {kind = kind, map = {}, order = {}} end

local function keep(key, stored)
  changes, dirty[key] = changes + 1, true
  keys[key] = stored.order[1] and stored or nil
end

local function append(stored, member, value)
  if stored.map[member] == nil then stored.order[#stored.order + 1] = member end
  stored.map[member] = value
end

-- Where a member with that score is in a sorted set, or has to be: by score, then bytes.
local function rank_of(stored, member, score)
  local map, order = stored.map, stored.order
  local first, last = 1, #order
  while first <= last do
    local middle = math.floor((first + last) / 2)
    local other = order[middle]
    if map[other] < score or map[other] == score and other < member then
      first = middle + 1
    else
      last = middle - 1
    end
  end
  return first
end

local function place_of(stored, member, value)
  if stored.kind == 'sorted set' then return rank_of(stored, member, value) end
  for i, other in ipairs(stored.order) do
    if other == member then return i end
  end
end

-- Whether it was there.
local function remove(stored, member)
  local value = stored.map[member]
  if value == nil then return false end
  table.remove(stored.order, place_of(stored, member, value))
  stored.map[member] = nil
  return true
end

-- Into its place in a sorted set; whether the member is new.
local function insert(stored, member, score)
  local known = remove(stored, member)
  table.insert(stored.order, rank_of(stored, member, score), member)
  stored.map[member] = score
  return not known
end

local function remove_all(key, kind, ...)
  local count = select('#', ...)
  if count == 0 then refuse(ARITY) end
  local given, stored, gone = {...}, opened(key, kind), 0
  for i = 1, count do
    if remove(stored, text_of(given[i])) then gone = gone + 1 end
  end
  keep(key, stored)
  return gone
end

local function sorted(stored)
  local members = {unpack(stored.order)}
  table.sort(members)
  return members
end

-- Member, value, member, value …
local function pairs_of(stored, most)
  local found, map = {}, stored.map
  for i = 1, math.min(most or math.huge, #stored.order) do
    found[2 * i - 1], found[2 * i] = stored.order[i], map[stored.order[i]]
  end
  return found
end

local function scored(members, stored)
  local found, map = {}, stored.map
  for i = 1, #members do
    found[2 * i - 1], found[2 * i] = members[i], number_text(map[members[i]])
  end
  return found
end

-- The first rank with at least that score, or with a higher one.
local function rank_from(stored, score, higher)
  local map, order = stored.map, stored.order
  local first, last = 1, #order
  while first <= last do
    local middle = math.floor((first + last) / 2)
    local other = map[order[middle]]
    if other < score or higher and other == score then first = middle + 1 else last = middle - 1 end
  end
  return first
end

-- The first rank and the last, from 1 on, in ascending order; and what is stored.
local function by_score(key, start, stop, backwards)
  if backwards then start, stop = stop, start end
  local low, without_low = bound(start)
  local high, without_high = bound(stop)
  local stored = seen(key, 'sorted set')
  local first = rank_from(stored, low, without_low)
  return first, math.max(first, rank_from(stored, high, not without_high)) - 1, stored
end

local function by_rank(key, start, stop, backwards)
  start, stop = integer(start), integer(stop)
  local stored = seen(key, 'sorted set')
  local size = #stored.order
  local first = math.max(0, start < 0 and start + size or start)
  local last = math.min(size - 1, stop < 0 and stop + size or stop)
  if backwards then return size - last, size - first, stored end
  return first + 1, last + 1, stored
end

-- ZRANGE's options: whether there is BYSCORE, REV, WITHSCORES, then what LIMIT leaves out first and
-- the most that it leaves, all if there is none.
local function options_of(given)
  local by_score, backwards, with_scores, offset, most, i = false, false, false, nil, -1, 1
  while given[i] do
    local word = text_of(given[i]):upper()
    if word == 'BYSCORE' then
      by_score = true
    elseif word == 'REV' then
      backwards = true
    elseif word == 'WITHSCORES' then
      with_scores = true
    elseif word == 'LIMIT' then
      offset, most, i = integer(given[i + 1]), integer(given[i + 2]), i + 2
    else
      refuse(SYNTAX)
    end
    i = i + 1
  end
  if offset and not by_score then refuse(SYNTAX) end
  return by_score, backwards, with_scores, offset or 0, most
end

-- The members of the ranks from one to the other, of which LIMIT leaves some.
local function ranged(order, from, to, step, offset, most)
  local found, n = {}, 0
  if offset < 0 then return found end
  for rank = from + step * offset, to, step do
    if n == most then break end
    n = n + 1
    found[n] = order[rank]
  end
  return found
end

local reads, writes = {}, {}

-- Keys and others.

local told_us, seconds, micros -- as text, as most calls come at the same instant

function reads.TIME()
  if told_us ~= now_us then
    local whole = math.floor(now_us / 1000000)
    seconds, micros = number_text(whole), number_text(now_us - whole * 1000000)
    told_us = now_us
  end
  return {seconds, micros}
end

-- Which run of the store this is, and that it uses some of its memory, alone.
function reads.INFO()
  local memory = 'used_memory:1\r\ntotal_system_memory:100\r\nmaxmemory:0\r\n'
  return string.format('# Server\r\nrun_id:%040x\r\n%s', store_run, memory)
end

function reads.ECHO(text) return seam(text_of(text)) end

-- If nobody listens, whoever relies on a notification is late by a safety poll.
function reads.SPUBLISH(channel)
  if publish then publish(text_of(channel)) end
  return 0
end

function reads.EXISTS(...)
  local found = 0
  for _, key in ipairs({...}) do found = found + (keys[key] and 1 or 0) end
  return found
end

function writes.DEL(...)
  local gone = reads.EXISTS(...)
  changes = changes + 1
  for _, key in ipairs({...}) do keys[key], dirty[key] = nil, true end
  return gone
end

writes.UNLINK = writes.DEL

-- Hashes.

function reads.HGET(key, field) return seen(key, 'hash').map[text_of(field)] or false end

function reads.HMGET(key, ...)
  local found, map = {...}, seen(key, 'hash').map
  for i = 1, select('#', ...) do found[i] = map[text_of(found[i])] or false end
  return found
end

function reads.HGETALL(key) return pairs_of(seen(key, 'hash')) end

-- All at once and the cursor '0', as Redis does for a hash that is a listpack.
function reads.HSCAN(key, cursor, ...)
  if integer(cursor) ~= 0 then refuse('ERR invalid cursor') end
  local stored, last = seen(key, 'hash'), select(-1, cursor, ...)
  return {'0', last == 'NOVALUES' and {unpack(stored.order)} or pairs_of(stored)}
end

-- The first ones, whereas the server draws lots.
function reads.HRANDFIELD(key, count, option)
  if option ~= 'WITHVALUES' then refuse(SYNTAX) end
  return pairs_of(seen(key, 'hash'), integer(count))
end

function reads.HKEYS(key) return {unpack(seen(key, 'hash').order)} end

function reads.HVALS(key)
  local found, stored = {}, seen(key, 'hash')
  for i, field in ipairs(stored.order) do found[i] = stored.map[field] end
  return found
end

function reads.HEXISTS(key, field) return seen(key, 'hash').map[text_of(field)] and 1 or 0 end

function reads.HLEN(key) return #seen(key, 'hash').order end

function writes.HSET(key, ...)
  local count = select('#', ...)
  if count == 0 or count % 2 == 1 then refuse(ARITY) end
  local given, stored = {...}, opened(key, 'hash')
  local before = #stored.order
  for i = 1, count, 2 do append(stored, text_of(given[i]), text_of(given[i + 1])) end
  keep(key, stored)
  return #stored.order - before
end

function writes.HSETNX(key, field, value)
  if seen(key, 'hash').map[text_of(field)] then return 0 end
  return writes.HSET(key, field, value)
end

function writes.HDEL(key, ...) return remove_all(key, 'hash', ...) end

function writes.HINCRBY(key, field, by)
  local step, name = integer(by), text_of(field)
  local stored = opened(key, 'hash')
  local old = stored.map[name] or '0'
  if not old:match('^%-?%d+$') or old:match('^%-?0%d') or #old > 19 then
    refuse('ERR hash value is not an integer')
  end
  local new = tonumber(old) + step
  append(stored, name, number_text(new))
  keep(key, stored)
  return new
end

-- Sorted sets.

function writes.ZADD(key, ...)
  local count = select('#', ...)
  if count == 0 or count % 2 == 1 then refuse(SYNTAX) end
  local given, added = {...}, 0
  for i = 1, count, 2 do given[i] = score_of(given[i]) end -- all, before one is written
  local stored = opened(key, 'sorted set')
  for i = 1, count, 2 do
    if insert(stored, text_of(given[i + 1]), given[i]) then added = added + 1 end
  end
  keep(key, stored)
  return added
end

function writes.ZREM(key, ...) return remove_all(key, 'sorted set', ...) end

function reads.ZSCORE(key, member)
  local score = seen(key, 'sorted set').map[text_of(member)]
  return score and number_text(score) or false
end

function reads.ZCARD(key) return #seen(key, 'sorted set').order end

function reads.ZCOUNT(key, start, stop)
  local first, last = by_score(key, start, stop)
  return last - first + 1
end

-- All at once, as HSCAN.
function reads.ZSCAN(key, cursor)
  if integer(cursor) ~= 0 then refuse('ERR invalid cursor') end
  local stored = seen(key, 'sorted set')
  return {'0', scored(stored.order, stored)}
end

function writes.ZPOPMIN(key, count)
  local most = integer(count or 1)
  if most < 0 then refuse('ERR value is out of range, must be positive') end
  local stored = opened(key, 'sorted set')
  local popped = {unpack(stored.order, 1, math.min(most, #stored.order))}
  local reply = scored(popped, stored)
  for _, member in ipairs(popped) do remove(stored, member) end
  keep(key, stored)
  return reply
end

function writes.ZREMRANGEBYSCORE(key, start, stop)
  local first, last, stored = by_score(key, start, stop)
  for rank = last, first, -1 do remove(stored, stored.order[rank]) end
  if stored ~= NOTHING then keep(key, stored) end
  return last - first + 1
end

function reads.ZRANGE(key, start, stop, ...)
  local ranks, backwards, with_scores, offset, most = by_rank, false, false, 0, -1
  if ... then
    local by_scores
    by_scores, backwards, with_scores, offset, most = options_of({...})
    if by_scores then ranks = by_score end
  end
  local first, last, stored = ranks(key, start, stop, backwards)
  if backwards then first, last = last, first end
  local found = ranged(stored.order, first, last, backwards and -1 or 1, offset, most)
  return with_scores and scored(found, stored) or found
end

-- Sets.

function writes.SADD(key, ...)
  local stored = opened(key, 'set')
  local before = #stored.order
  for i = 1, select('#', ...) do append(stored, text_of((select(i, ...))), true) end
  keep(key, stored)
  return #stored.order - before
end

function writes.SREM(key, ...) return remove_all(key, 'set', ...) end

function reads.SISMEMBER(key, member) return seen(key, 'set').map[text_of(member)] and 1 or 0 end

function reads.SCARD(key) return #seen(key, 'set').order end

-- In byte order, whereas the server draws lots, or has an order of its own.
function reads.SRANDMEMBER(key, count)
  local members = sorted(seen(key, 'set'))
  return {unpack(members, 1, math.min(#members, integer(count)))}
end

function reads.SMEMBERS(key) return sorted(seen(key, 'set')) end

function reads.SSCAN(key, cursor)
  if integer(cursor) ~= 0 then refuse('ERR invalid cursor') end
  return {'0', sorted(seen(key, 'set'))}
end

-- What Redis gives a script beside the language's own libraries, and its protection of globals.

local every = {}
for _, commands in ipairs({reads, writes}) do
  for name, command in pairs(commands) do every[name] = command end
end

local allowed
local redis = {call = function(name, ...)
  local command = allowed[name]
  if not command then error('the model has no ' .. tostring(name) .. ' for this script') end
  return command(...)
end}

function redis.pcall(...)
  local fine, reply = pcall(redis.call, ...)
  return fine and reply or {err = reply}
end

local globals = {redis = redis, assert = assert, string = string, table = table, math = math,
  tonumber = tonumber, tostring = tostring, type = type, error = error, pcall = pcall,
  pairs = pairs, ipairs = ipairs, next = next, select = select, unpack = unpack,
  KEYS = {}, ARGV = {}}
-- Tables, not functions, stand for what is there, as a script reads a global in every other statement.
setmetatable(globals, {__index = function(_, name)
  error('Script attempted to access nonexistent global variable ' .. tostring(name))
end})
local world = setmetatable({}, {
  __index = globals,
  __newindex = function() error('Attempt to modify a readonly table') end})

-- What Redis makes of a value in a script's reply; false and nil are nothing, a fraction is cut off.
local function answered(value)
  if type(value) == 'number' then return value < 0 and math.ceil(value) or math.floor(value) end
  if value == true then return 1 end
  return value or nil
end

-- How many values, and whether one of them is a table; the first nil is the end.
local function measured(reply)
  local size, nested = 0, false
  while reply[size + 1] ~= nil do
    size = size + 1
    if type(reply[size]) == 'table' then nested = true else reply[size] = answered(reply[size]) end
  end
  return size, nested
end

local model = {}

function model.compile(text, name)
  local script, fault = loadstring(text, name)
  if not script then error(fault) end
  return setfenv(script, world)
end

-- The number of changes so far, then 'one' and the reply, or 'many' and its values, 'nested' if
-- tables are among them, or 'refused' and the error that the script answers on purpose.
function model.run(script, only_reads, of, us, run, ...)
  allowed, globals.KEYS, globals.ARGV = only_reads and reads or every, of, {...}
  now_us, store_run = us, run
  local fine, reply = pcall(script)
  if not fine then
    if type(reply) ~= 'table' then error(reply, 0) end
    return changes, 'refused', reply.err
  end
  if type(reply) ~= 'table' then return changes, 'one', answered(reply) end
  local size, nested = measured(reply)
  return changes, nested and 'nested' or 'many', unpack(reply, 1, size)
end

-- The number of changes so far, that of what follows, and of each key that was written since it was
-- last asked: name, how many members or fields, then each and its score or value; of one that is
-- gone: name, 0.
function model.changed()
  local told = {}
  for key in pairs(dirty) do
    local stored = keys[key] or NOTHING
    local n = #told
    told[n + 1], told[n + 2] = key, #stored.order
    for i, member in ipairs(stored.order) do
      told[n + 1 + 2 * i], told[n + 2 + 2 * i] = member, stored.map[member]
    end
  end
  dirty = {}
  return changes, #told, unpack(told)
end

local function copied(all)
  local copy = {}
  for key, stored in pairs(all) do
    local map = {}
    for member, value in pairs(stored.map) do map[member] = value end
    copy[key] = {kind = stored.kind, map = map, order = {unpack(stored.order)}}
  end
  return copy
end

-- A copy of all that is stored.
function model.image() return copied(keys) end

-- What an image has, nothing if there is none; the image itself is left alone.
function model.restore(image)
  for key in pairs(keys) do dirty[key] = true end
  keys = copied(image or {})
  for key in pairs(keys) do dirty[key] = true end
  changes = changes + 1
  return changes
end

-- The commands that only read, or those that write, as one text.
function model.names(of)
  local found = {}
  for name in pairs(of == 'reads' and reads or writes) do found[#found + 1] = name end
  return table.concat(found, ' ')
end

return model
