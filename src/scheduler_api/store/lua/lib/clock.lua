-- The clock of the store, and how far an instant that it gave may be ahead.
-- needs: keys

-- The store's clock may be set back. A stored instant that is then further ahead than its maximum is
-- ignored: it would delay messages for as long as the clock jumped.
local MAX_LEASE = 3600000 -- ms
local MAX_PAUSE = 60000 -- ms, until the next probe of an unreachable destination

-- Milliseconds since 1970 by the store's clock; rounded down, so that nothing is ever early.
local function clock()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
