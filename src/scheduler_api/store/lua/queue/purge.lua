#!lua flags=allow-oom
-- Forgets finished messages whose retention is over, processes that have been silent for long, and
-- results of attempts older than the last hour.
--
-- ARGV[1] count: messages of each finished state, and processes (1–100)
-- ARGV[2] worker_ttl: ms of silence after which a process is forgotten
-- Returns the number of messages forgotten
-- needs: keys data arguments clock hours finished
check_data()
local count, worker_ttl, now, forgotten = ARGV[1], number(ARGV[2]), clock(), 0
for _, state in ipairs(STATES) do
  local over = call('ZRANGE', FINISHED[state], '-inf', now, 'BYSCORE', 'LIMIT', 0, count)
  forget_finished(state, over)
  forgotten = forgotten + #over
end
-- Some at random, not all: processes that crash each second would be a long list after a day.
local workers = call('HRANDFIELD', WORKERS, count, 'WITHVALUES')
for i = 1, #workers, 2 do
  local seen = tonumber(workers[i + 1]:match('^%d+') or 0)
  if now - seen > worker_ttl then call('HDEL', WORKERS, workers[i]) end
end
local hour = this_hour(now)
for _, key in ipairs({EVEN, ODD}) do
  if (tonumber(call('HGET', key, '') or hour) or 0) < hour - 1 then call('UNLINK', key) end
end
return forgotten
