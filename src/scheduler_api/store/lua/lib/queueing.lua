-- Queueing: which messages a process may lease without a permit. They wait in the process, until a
-- request to their destination ends and passes its permit on.
-- needs: keys arguments places in_flight flow

local QUEUED_PER_PERMIT = 3 -- messages that may wait in a process for each of its permits

-- The functions below have as their first argument what a claim knows of its process:
--   worker_id
--   open          destination → its requests, as claim.lua gets them, with those of this call
--   lines         destinations with messages in the process
--   waiting       destination → how many of these messages wait
--   granted       destination → how many permits this call has granted
--   first_parked  destination → when its first parked message was due; -1: none is parked

-- How many more messages of a destination may wait for its permits in the process.
local function wanted(process, dest)
  local its_permits = counts_of(dest, process.worker_id) + (process.granted[dest] or 0)
  return QUEUED_PER_PERMIT * its_permits - (process.waiting[dest] or 0)
end

-- The same, if the destination has no room for more requests. `may_queue`: see `room`.
local function queue_room(process, dest, may_queue)
  local opened = process.open[dest] or 0
  local is_sent_to = opened == -2 or opened == -1 and (process.granted[dest] or 0) > 0
  return is_sent_to and may_queue and wanted(process, dest) or 0
end

-- Whether a message of its destination that was due earlier is parked, or was until this call: it is
-- queued first. The first messages that a process queues do not wait for them: they begin the line.
local function is_behind_parked(process, dest, due)
  if not process.waiting[dest] then return false end
  local first = process.first_parked[dest] or head(PARKED .. dest)
  process.first_parked[dest] = first
  return first >= 0 and tonumber(due) > first
end

-- How many parked messages of a destination may be leased: with the permits that this call can
-- grant, and behind them.
local function parked_room(process, dest, limit_share, now)
  local free, _, _, may_queue = room(dest, limit_share, now)
  -- Without a permit in this call, messages could only wait for requests that are open now.
  if not may_queue or free == 0 and process.open[dest] ~= -2 then return 0 end
  return wanted(process, dest) + (1 + QUEUED_PER_PERMIT) * free
end

-- The ids of a list: id, due ms, id, due ms …
local function set_of(found)
  local is_there = {}
  for i = 1, #found, 2 do is_there[found[i]] = true end
  return is_there
end

-- Adds parked messages that may wait for permits in the process to those that are due, unless these
-- are `max_count` or more. `found`: id, due ms, id, due ms …
local function add_parked(process, found, max_count, limit_share, now)
  local left, is_found = max_count - #found / 2, nil
  for _, dest in ipairs(process.lines) do
    local count = math.min(left, parked_room(process, dest, limit_share, now))
    if count > 0 then
      local popped = pop_parked(dest, count)
      process.first_parked[dest] = tonumber(popped[2] or -1)
      if #popped > 0 then is_found = is_found or set_of(found) end
      for i = 1, #popped, 2 do
        -- In damaged data it may be due as well: a claim leases it once.
        if not is_found[popped[i]] then append(found, popped[i], popped[i + 1]) end
        is_found[popped[i]] = true
      end
      left = left - #popped / 2
      still_parked(dest)
    end
  end
end
