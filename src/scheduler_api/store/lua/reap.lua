#!lua flags=allow-oom
-- Returns messages whose lease ran out to `due`; one that outlived too many processes has failed.
--
-- ARGV[1] how many (1–100)   ARGV[2] limit of a destination   ARGV[3] most crashes of a message
-- ARGV[4] how long a failed record is kept, ms   ARGV[5] most records kept on a shelf
-- Returns {number returned to `due`, then the ids of those that have failed}
local limit, crash_limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local keep, most, now = tonumber(ARGV[4]), tonumber(ARGV[5]), clock()
local reply, opened = {0}, {}

-- "attempts crashes outcome at\n" and the log; the log of a message never tried is an empty array.
local function one_more_crash(id)
  local progress = call('HGET', PROGRESS, id) or '0 0 retry 0\n\144'
  local attempts, crashes, rest = progress:match('^(%d+) (%d+) %a+ %d+\n(.*)$')
  return attempts, crashes + 1, rest
end

for _, id in ipairs(call('ZRANGE', LEASES, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1])) do
  local _, _, _, dest = split_claim(call('HGET', CLAIMS, id))
  local due = call('ZSCORE', TAKEN, id)
  local attempts, crashes, log = one_more_crash(id)
  local verdict = crashes >= crash_limit and 'failed' or 'retry'
  local progress = table.concat({attempts, ' ', crashes, ' ', verdict, ' ', now, '\n', log})
  drop_claim(id, dest)
  opened[dest] = true
  if verdict == 'failed' then
    reply[#reply + 1] = id
    finish(FAILED, id, progress, now, keep, most)
  else
    reply[1] = reply[1] + 1
    call('HSET', PROGRESS, id, progress)
    call('ZADD', DUE, due, id)
  end
end
for dest in pairs(opened) do unpark(dest, limit) end
return reply
