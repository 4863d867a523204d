#!lua flags=no-writes
-- Reads names of destinations in steps: those with claims, with parked messages or with settings.
--
-- ARGV[1] which: inflight, parking or limits
-- ARGV[2] cursor ('0' at the beginning)
-- ARGV[3] count: about how many (1–100); up to a few hundred where the server keeps them in one piece
-- Returns {cursor, name…}
--   cursor  of the next call; '0' at the end
-- needs: keys data arguments record limits
check_data()
local which, cursor, count = ARGV[1], ARGV[2], number(ARGV[3])

-- The next cursor, names, or pairs of a name and something; their step.
local function scanned()
  if which == 'parking' then
    local found = call('SSCAN', PARKING, cursor, 'COUNT', count)
    return found[1], found[2], 1
  end
  local found = call('HSCAN', which == 'limits' and LIMITS or INFLIGHT, cursor, 'COUNT', count)
  return found[1], found[2], 2
end

-- Whether the destination has the settings in this field, whose name may be an earlier spelling.
local function has_settings_in(name)
  if which ~= 'limits' or destination_name(name) == name then return true end
  local _, field = stored_settings(destination_name(name))
  return field == name
end

local next_cursor, found, step = scanned()
local reply = {next_cursor}
for i = 1, #found, step do
  if has_settings_in(found[i]) then append(reply, found[i]) end
end
return reply
