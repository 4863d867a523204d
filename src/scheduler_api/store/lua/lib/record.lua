-- The bytes of a record, as codec/record.py draws them. No other Lua file reads or writes them.
-- Damaged data must not make a script raise: it would raise in each call, and stop its partition. So
-- every function here has a value for a text that is no record.

local READ = 16 -- records in one read: each may have a megabyte

-- A count of milliseconds as six bytes, the highest first: enough until the year 10889.
local function u48(ms)
  local bytes = {}
  for i = 6, 1, -1 do
    bytes[i] = string.char(ms % 256)
    ms = math.floor(ms / 256)
  end
  return table.concat(bytes)
end

-- A new record. `tail`: from its 14th byte on, as codec/record.py packs it.
local function new_record(created, scheduled, tail)
  return '\2' .. u48(created) .. u48(scheduled) .. tail
end

-- The record of a message from another store. `rest`: from its 8th byte on.
local function restored_record(created, rest)
  return '\2' .. u48(created) .. rest
end

-- Six bytes of a record, from byte `first` on, as a count of milliseconds; 0 if the text is too short.
local function ms_of(record, first)
  local ms = 0
  for i = first, first + 5 do ms = ms * 256 + (record:byte(i) or 0) end
  return ms
end

-- When the message was created, ms.
local function created_of(record)
  return ms_of(record, 2)
end

-- When the message is scheduled for, ms.
local function scheduled_of(record)
  return ms_of(record, 8)
end

-- Whether record and tail have the same fingerprint: the same request, whenever it is scheduled for.
local function same_request(record, tail)
  return record:sub(14, 21) == tail:sub(1, 8)
end

-- Whether record and rest are the same request, scheduled for the same instant.
local function same_message(record, rest)
  return record:sub(8, 21) == rest:sub(1, 14)
end

-- The record up to the line feed that ends its URL; all of it if there is none.
local function head_of(record)
  return record:sub(1, record:find('\n', 24, true))
end

-- Authority → the destination's name: without the port of http or https, without the host's final dot.
-- The same as `destination_name` of domain/url.py. '?' for what is no authority.
local names = {}
local function destination_name(authority)
  local name = names[authority]
  if not name then
    local host, port = authority:match('^(%S-)(:%d+)$')
    host = (host or authority):gsub('%.$', '')
    name = (port == ':80' or port == ':443') and host or host .. (port or '')
    if not name:match('^%S+$') then name = '?' end
    names[authority] = name
  end
  return name
end

-- The destination's name, from the authority: it begins at byte 24, and byte 23 is its size.
local function destination_of(record)
  local size = record:byte(23)
  return destination_name(size and record:sub(24, 23 + size) or '')
end
