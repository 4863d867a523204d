#!lua flags=allow-oom
-- Takes back the claims of a dead process before their leases end, as reap does after that.
--
-- ARGV[1] count: claims to check (1–100)
-- ARGV[2] limit_share: concurrency of a destination without settings, in this partition
-- ARGV[3] max_crashes of a message
-- ARGV[4] keep: how long a failed message is kept, ms
-- ARGV[5] max_kept: messages kept in a finished state
-- ARGV[6] worker_id of the process that died
-- ARGV[7] cursor: '0' at first, then what the last call returned
-- Returns {cursor, returned, failed…}
--   cursor    of the next call; '0': all claims were checked
--   returned  how many messages are due again
--   failed    ids of those that have failed
-- needs: keys data arguments clock claims crashes
check_data()
local limit_share, max_crashes = number(ARGV[2]), number(ARGV[3])
local keep, max_kept, worker_id, now = number(ARGV[4]), number(ARGV[5]), ARGV[6], clock()
local found = call('HSCAN', CLAIMS, ARGV[7], 'COUNT', ARGV[1])
local cursor, claims, ids, dests, holders = found[1], found[2], {}, {}, {}

for i = 1, #claims, 2 do
  local id = claims[i]
  local _, its_worker_id, _, dest = split_claim(claims[i + 1])
  if its_worker_id == worker_id and not dests[id] then -- HSCAN may return an entry twice
    append(ids, id)
    dests[id], holders[id] = dest, worker_id
  end
end
local returned, failed =
  take_back_all(ids, dests, holders, limit_share, now, max_crashes, keep, max_kept)
call('HDEL', WORKERS, worker_id)
if #ids > 0 then call('SPUBLISH', WAKEUP, now) end
return {cursor, returned, unpack(failed)}
