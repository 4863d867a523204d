-- Results of attempts are counted in two hashes in turn, one for each hour: a destination without
-- attempts is forgotten after two hours.
-- needs: keys

-- The hour since 1970, and its hash, which may still have the hour before the last one.
local function this_hour(now)
  local hour = math.floor(now / 3600000)
  return hour, hour % 2 == 0 and EVEN or ODD
end
