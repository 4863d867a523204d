-- Restarts of the store: the leases may have ended while it was away.
-- needs: keys clock

-- Which run of the store this is, the run that note_restart.lua last saw, and until when (ms) after
-- a restart nobody may reap.
local function runs(now)
  local run = call('INFO', 'server'):match('run_id:(%x+)')
  local known = call('HMGET', META, 'run_id', 'outage_until')
  local outage_until = tonumber(known[2] or 0) or 0
  return run, known[1], outage_until > now + MAX_LEASE and 0 or outage_until
end
