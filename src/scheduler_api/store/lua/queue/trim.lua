#!lua flags=allow-oom
-- Forgets finished messages before their retention ends while the store is short of memory, so that
-- pending ones have room: the oldest of the first finished state first.
--
-- ARGV[1] max_count: messages (1–100)
-- ARGV[2] percent of the store's memory that may be used while finished messages are kept
-- Returns the number of messages forgotten
-- needs: keys data arguments finished
check_data()
local max_count, percent, forgotten = number(ARGV[1]), number(ARGV[2]), 0
local STEP = 10 -- messages between two checks of the memory; each may have a megabyte

-- A store without a memory limit may use the memory of its machine.
local function is_short()
  local info = call('INFO', 'memory')
  local limit = tonumber(info:match('maxmemory:(%d+)'))
  if limit == 0 then limit = tonumber(info:match('total_system_memory:(%d+)')) end
  return tonumber(info:match('used_memory:(%d+)')) > limit * percent / 100
end

for _, state in ipairs(STATES) do
  while forgotten < max_count and is_short() do
    local oldest = call('ZRANGE', FINISHED[state], 0, math.min(STEP, max_count - forgotten) - 1)
    if #oldest == 0 then break end
    forget_finished(state, oldest)
    forgotten = forgotten + #oldest
  end
end
return forgotten
