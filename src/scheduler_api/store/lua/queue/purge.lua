#!lua flags=allow-oom
-- Forgets finished messages whose time on the shelf is over, processes long gone, and what attempts
-- came to before the last hour.
--
-- ARGV[1] how many from each shelf (1–100)   ARGV[2] after how many ms of silence a process is gone
-- Returns the number of messages forgotten
-- needs: keys data arguments clock hours finished
check_data()
local most, silence, now, forgotten = ARGV[1], number(ARGV[2]), clock(), 0
for _, shelf in ipairs({DELIVERED, FAILED}) do
  local over = call('ZRANGE', shelf, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)
  if #over > 0 then call('ZREM', shelf, unpack(over)) end
  forget(over)
  forgotten = forgotten + #over
end
-- Some, drawn by lot: processes that end in a crash each second would be a long list in a day.
local workers = call('HRANDFIELD', WORKERS, most, 'WITHVALUES')
for i = 1, #workers, 2 do
  local seen = tonumber(workers[i + 1]:match('^%d+') or 0)
  if now - seen > silence then call('HDEL', WORKERS, workers[i]) end
end
local hour = this_hour(now)
for _, key in ipairs({EVEN, ODD}) do
  if (tonumber(call('HGET', key, '') or hour) or 0) < hour - 1 then call('UNLINK', key) end
end
return forgotten
