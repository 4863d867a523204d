-- The settings of destinations: concurrency, rate, pause.
-- needs: keys

local ruled -- whether any destination has settings or failed to connect: most stores have none
local function has_rules()
  if ruled == nil then ruled = call('EXISTS', LIMITS, UNREACHABLE) > 0 end
  return ruled
end

-- The fields of `limits` that may have a destination's settings: its name, and the names that earlier
-- versions gave it, for which a port or a final dot made another destination.
local function spellings(dest)
  local host, port = dest:match('^(.-)(:%d+)$')
  if host then return {dest, host .. '.' .. port} end
  return {dest, dest .. ':80', dest .. ':443', dest .. '.', dest .. '.:80', dest .. '.:443'}
end

-- A destination's settings as they are stored, and the field that has them; nothing if it has none.
local function stored_settings(dest)
  local fields = spellings(dest)
  local found = call('HMGET', LIMITS, unpack(fields))
  for i, field in ipairs(fields) do
    if found[i] then return found[i], field end
  end
end

-- A destination's concurrency in this partition (`limit_share` if none is set), ms between
-- two messages (0: no rate), and whether it is paused.
local function settings(dest, limit_share)
  local own = has_rules() and stored_settings(dest)
  if not own then return limit_share, 0, false end
  local concurrency, interval, paused = own:match('^(%d+) ([%d.e+-]+) (%d)')
  concurrency = tonumber(concurrency) or 0
  return concurrency > 0 and concurrency or limit_share, tonumber(interval) or 0, paused == '1'
end
