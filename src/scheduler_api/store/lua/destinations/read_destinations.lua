#!lua flags=no-writes
-- Reads the load, the settings and the results of destinations.
--
-- ARGV[1] limit_share: concurrency of a destination without settings, in this partition
-- ARGV[2…] name… (1–100)
-- Returns {(name, in_flight, queued, parked, settings, failures, hold, hold_until, results)…}
--   in_flight   number of permits: open requests
--   queued      number of messages that wait for a permit in a process
--   parked      number of messages
--   settings    '' if none are set
--   failures    to connect, in a row
--   hold        why no more messages may be leased now; '' if more may be leased
--   hold_until  ms; -1 if time alone does not end it
--   results     of attempts in this hour and the last one, one after the other
-- needs: keys data arguments clock in_flight limits hours flow
check_data()
local limit_share, now = number(ARGV[1]), clock()
local hour = this_hour(now)

local function results_of(dest)
  local both = ''
  for _, key in ipairs({EVEN, ODD}) do
    local found = call('HMGET', key, '', dest)
    if (tonumber(found[1] or 0) or 0) >= hour - 1 then both = both .. (found[2] or '') end
  end
  return both
end

local reply = {}
for i = 2, #ARGV do
  local dest = ARGV[i]
  local free, hold, hold_until = room(dest, limit_share, now)
  append(reply, dest, in_flight(dest))
  append(reply, queued_claims(dest), call('ZCARD', PARKED .. dest))
  append(reply, stored_settings(dest) or '', failures(dest, now))
  append(reply, free == 0 and hold or '')
  append(reply, hold_until or -1, results_of(dest))
end
return reply
