#!lua flags=no-writes
-- Reads all that is in flight, and what is kept of some destinations.
-- All, as counts and claims of two instants would not agree: they are no more than the requests that
-- all processes have open.
--
-- ARGV[1…] destinations (0–100)
-- Returns {claims, ids and claims in turn; destinations and their counts in turn; for each of the
--          destinations: number parked, its settings and its failures to connect ('' if there are
--          none), 1 if it is in `opens` or
--          `withheld`, 1 if it is in `parking`}
-- needs: keys data limits
local _, _, withholds = check_data()
local rows = {}
for _, dest in ipairs(ARGV) do
  local n = #rows
  rows[n + 1] = call('ZCARD', PARKED .. dest)
  rows[n + 2], rows[n + 3] = stored_settings(dest) or '', call('HGET', UNREACHABLE, dest) or ''
  local opens = call('ZSCORE', OPENS, dest) or withholds and call('ZSCORE', WITHHELD, dest)
  rows[n + 4] = opens and 1 or 0
  rows[n + 5] = call('SISMEMBER', PARKING, dest)
end
return {call('HGETALL', CLAIMS), call('HGETALL', INFLIGHT), rows}
