#!lua flags=no-writes
-- Reads all claims and what is counted of them, and what is known of some destinations.
-- All in one call, as counts and claims of two instants would not agree. They are no more than the
-- messages that all processes hold.
--
-- ARGV[1…] destination… (0–100)
-- Returns {claims, in_flight, rows}
--   claims     {(id, claim)…}
--   in_flight  {(destination, counts)…}; counts as they are stored
--   rows       {(parked, settings, failures, watched, listed)…} of each destination of ARGV:
--   parked     number of messages
--   settings   '' if none are set
--   failures   to connect, as they are stored; '' if there are none
--   watched    1 if it is in `opens` or `withheld`
--   listed     1 if it is in `parking`
-- needs: keys data arguments limits
local _, _, withholds = check_data()
local rows = {}
for _, dest in ipairs(ARGV) do
  local watched = call('ZSCORE', OPENS, dest) or withholds and call('ZSCORE', WITHHELD, dest)
  append(rows, call('ZCARD', PARKED .. dest), stored_settings(dest) or '')
  append(rows, call('HGET', UNREACHABLE, dest) or '', watched and 1 or 0)
  append(rows, call('SISMEMBER', PARKING, dest))
end
return {call('HGETALL', CLAIMS), call('HGETALL', INFLIGHT), rows}
