#!lua flags=allow-oom
-- Takes back the claims whose leases have ended: their messages are due again, or have failed after
-- too many crashes. A lease without a claim (a damaged data set) ends too: its message is due again,
-- and in no other place.
--
-- ARGV[1] count: leases (1–100)
-- ARGV[2] limit_share: concurrency of a destination without settings, in this partition
-- ARGV[3] max_crashes of a message
-- ARGV[4] keep: how long a failed message is kept, ms
-- ARGV[5] max_kept: messages kept in a finished state
-- ARGV[6] latest: ms; the call does nothing after this instant; -1: no such instant. A call that an
--         outage held up must not be the first after it: each holder gets the time to come back
-- Returns {returned, failed…}
--   returned  how many messages are due again; 0, and no failed ones, if the call comes too late, or
--             while no lease may be reaped after a restart of the store
--   failed    ids of those that have failed
-- needs: keys data arguments clock record restarts finished claims crashes
check_data()
local limit_share, max_crashes, latest = number(ARGV[2]), number(ARGV[3]), number(ARGV[6])
local keep, max_kept, now = number(ARGV[4]), number(ARGV[5]), clock()
if latest >= 0 and now > latest then return {0} end

local run, known, outage_until = runs(now)
if known and (run ~= known or now < outage_until) then return {0} end

local ids = call('ZRANGE', LEASES, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1])
local dests, holders = {}, {} -- by id
local miscounted = {} -- destinations of leases without a claim
for _, id in ipairs(ids) do
  local _, worker_id, _, dest = split_claim(call('HGET', CLAIMS, id))
  if not dest then
    dest = destination_of(call('HGET', PAYLOADS, id) or '')
    append(miscounted, dest)
    remove_finished({id})
  end
  dests[id], holders[id] = dest, worker_id
end
if #miscounted > 0 then recount(miscounted) end
local returned, failed =
  take_back_all(ids, dests, holders, limit_share, now, max_crashes, keep, max_kept)
return {returned, unpack(failed)}
