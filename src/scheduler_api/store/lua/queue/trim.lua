#!lua flags=allow-oom
-- Forgets finished messages before their time while the store is short of memory, so that pending
-- ones have room: the oldest of the delivered first, then the oldest of the failed.
--
-- ARGV[1] how many at most (1–100)   ARGV[2] percent of the store's memory that may be used while
--         finished messages are kept
-- Returns the number of messages forgotten
-- needs: keys data arguments finished
check_data()
local most, percent, forgotten = number(ARGV[1]), number(ARGV[2]), 0
local STEP = 10 -- messages between two looks at the memory; each may be of a megabyte

-- A store without a limit of its own may use what its machine has.
local function is_short()
  local info = call('INFO', 'memory')
  local limit = tonumber(info:match('maxmemory:(%d+)'))
  if limit == 0 then limit = tonumber(info:match('total_system_memory:(%d+)')) end
  return tonumber(info:match('used_memory:(%d+)')) > limit * percent / 100
end

for _, shelf in ipairs({DELIVERED, FAILED}) do
  while forgotten < most and is_short() do
    local oldest = call('ZRANGE', shelf, 0, math.min(STEP, most - forgotten) - 1)
    if #oldest == 0 then break end
    call('ZREM', shelf, unpack(oldest))
    forget(oldest)
    forgotten = forgotten + #oldest
  end
end
return forgotten
