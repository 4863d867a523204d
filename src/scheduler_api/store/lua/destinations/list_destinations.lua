#!lua flags=no-writes
-- Reads names of destinations step by step: those with something in flight, with parked messages or
-- with settings.
--
-- ARGV[1] which: inflight, parking or limits   ARGV[2] cursor ('0' at the beginning)
-- ARGV[3] how many, about (1–100); a few hundred at most, where the server keeps them in one piece
-- Returns {cursor to go on from ('0' at the end), names…}
-- needs: keys data arguments record limits
check_data()
local which, cursor, count = ARGV[1], ARGV[2], number(ARGV[3])

-- The next cursor, names or pairs of a name and something, and their step.
local function scanned()
  if which == 'parking' then
    local found = call('SSCAN', PARKING, cursor, 'COUNT', count)
    return found[1], found[2], 1
  end
  local found = call('HSCAN', which == 'limits' and LIMITS or INFLIGHT, cursor, 'COUNT', count)
  return found[1], found[2], 2
end

-- Whether the settings under an earlier spelling are those of the destination.
local function holds(name)
  if which ~= 'limits' or destination_name(name) == name then return true end
  local _, field = stored_settings(destination_name(name))
  return field == name
end

local next_cursor, found, step = scanned()
local reply = {next_cursor}
for i = 1, #found, step do
  if holds(found[i]) then append(reply, found[i]) end
end
return reply
