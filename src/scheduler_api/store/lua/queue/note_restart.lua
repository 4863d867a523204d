#!lua flags=allow-oom
-- Notes a restart of the store. All leases may have ended while it was away, so each holder gets the
-- time of one lease to come back and settle, before any lease is reaped.
--
-- ARGV[1] lease, ms
-- Returns for how many more ms nobody may reap
-- needs: keys data arguments clock restarts
check_data()
local lease, now = number(ARGV[1]), clock()
local run, known, outage_until = runs(now)
if run ~= known then
  outage_until = known and now + lease or 0
  call('HSET', META, 'run_id', run, 'outage_until', outage_until)
end
return math.max(0, outage_until - now)
