-- Results of attempts are counted in two hashes in turn, of one hour each, so that hosts without any
-- are forgotten.
-- needs: keys

-- The hour it is, and its hash, which may still be that of the hour before last.
local function this_hour(now)
  local hour = math.floor(now / 3600000)
  return hour, hour % 2 == 0 and EVEN or ODD
end
