#!lua flags=allow-oom
-- Returns messages whose lease ran out to `due`; one that outlived too many processes has failed.
-- A lease that nobody claimed is of a damaged data set: its message waits again, in one place.
--
-- ARGV[1] how many (1–100)   ARGV[2] limit of a destination   ARGV[3] most crashes of a message
-- ARGV[4] how long a failed record is kept, ms   ARGV[5] most records kept on a shelf
-- ARGV[6] until when, ms; -1: for ever. A call that an outage held up must not be the first after
--         it: whoever holds a lease gets the time to come back
-- Returns {number returned to `due`, then the ids of those that have failed}; none if it comes too
--         late, or after a restart of the store, while greet.lua says so
-- needs: keys data arguments clock record restarts claims flow crashes
check_data()
local limit, max_crashes, latest = number(ARGV[2]), number(ARGV[3]), number(ARGV[6])
local keep, most, now = number(ARGV[4]), number(ARGV[5]), clock()
local reply, opened = {0}, {}
if latest >= 0 and now > latest then return reply end

local run, known, outage_until = runs(now)
if known and (run ~= known or now < outage_until) then return reply end

local function claimed_for(id)
  local _, _, _, dest = split_claim(call('HGET', CLAIMS, id))
  if dest then return dest end
  call('ZREM', DELIVERED, id)
  call('ZREM', FAILED, id)
  return destination_of(call('HGET', PAYLOADS, id) or '')
end

for _, id in ipairs(call('ZRANGE', LEASES, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1])) do
  local dest = claimed_for(id)
  opened[dest] = true
  if take_back(id, dest, now, max_crashes, keep, most) then
    reply[1] = reply[1] + 1
  else
    append(reply, id)
  end
end
for dest in pairs(opened) do unpark(dest, limit, now) end
return reply
