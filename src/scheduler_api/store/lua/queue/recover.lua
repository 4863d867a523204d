#!lua flags=allow-oom
-- Returns to `due` what a dead process had claimed, before its leases end; otherwise as reap does.
--
-- ARGV[1] how many claims to look at (1–100)   ARGV[2] limit of a destination
-- ARGV[3] most crashes of a message   ARGV[4] how long a failed record is kept, ms
-- ARGV[5] most records kept on a shelf   ARGV[6] epoch of the process that died
-- ARGV[7] cursor: '0' at first, then what the last call returned
-- Returns {next cursor ('0': all were looked at), number returned to `due`, then the ids of those
--          that have failed}
-- needs: keys data arguments clock claims flow crashes
check_data()
local limit, max_crashes = number(ARGV[2]), number(ARGV[3])
local keep, most, epoch, now = number(ARGV[4]), number(ARGV[5]), ARGV[6], clock()
local found = call('HSCAN', CLAIMS, ARGV[7], 'COUNT', ARGV[1])
local claims, reply, opened = found[2], {found[1], 0}, {}

for i = 1, #claims, 2 do
  local id = claims[i]
  local _, its_epoch, _, dest = split_claim(claims[i + 1])
  -- HSCAN may name an entry twice; the second time it is no claim any more.
  if its_epoch == epoch and call('HEXISTS', CLAIMS, id) == 1 then
    opened[dest] = true
    if take_back(id, dest, now, max_crashes, keep, most) then
      reply[2] = reply[2] + 1
    else
      append(reply, id)
    end
  end
end
for dest in pairs(opened) do unpark(dest, limit, now) end
call('HDEL', WORKERS, epoch)
if next(opened) then call('SPUBLISH', WAKEUP, now) end
return reply
