-- Permits: how many requests each process may have open to each destination of this partition; and
-- how many claims it has, as it cannot have more permits than claims. A claim without a permit is
-- queued: it waits in its process, until a request to the destination ends and passes its permit on.
-- needs: keys arguments

-- A process in a field of `inflight`: worker id, permits, claims. Other text is ignored.
local TRIPLE = '%f[^%s%z](%S+) (%d+) (%d+)%f[%s%z]'
local counted = {} -- destination → {worker_id, permits, claims} of each process
local unwritten = {} -- destinations whose counts have changed

-- Reads the counts of destinations, by one command for all that are not known yet.
local function read_counts(dests)
  local unread = {}
  for _, dest in ipairs(dests) do
    if not counted[dest] then
      counted[dest] = {}
      append(unread, dest)
    end
  end
  if #unread == 0 then return end
  for i, text in ipairs(call('HMGET', INFLIGHT, unpack(unread))) do
    for worker_id, permits, claims in (text or ''):gmatch(TRIPLE) do
      append(counted[unread[i]],
        {worker_id = worker_id, permits = tonumber(permits), claims = tonumber(claims)})
    end
  end
end

-- The permits of all processes together.
local function in_flight(dest)
  if not counted[dest] then read_counts({dest}) end
  local permits = 0
  for _, counts in ipairs(counted[dest]) do permits = permits + counts.permits end
  return math.min(permits, 2 ^ 31)
end

-- What is counted for one process; nothing if it has no claim of the destination.
local function counts_of(dest, worker_id)
  if not counted[dest] then read_counts({dest}) end
  for _, counts in ipairs(counted[dest]) do
    if counts.worker_id == worker_id then return counts end
  end
end

local function change(dest)
  if not counted[dest].changed then append(unwritten, dest) end
  counted[dest].changed = true
end

-- Counts one more claim of a process. `permits`: 1 if it gets a permit with it, otherwise 0.
local function add_claim(dest, worker_id, permits)
  local counts = counts_of(dest, worker_id)
  if not counts then
    counts = {worker_id = worker_id, permits = 0, claims = 0}
    append(counted[dest], counts)
  end
  counts.permits, counts.claims = counts.permits + permits, counts.claims + 1
  change(dest)
end

-- Counts one claim of a process less. `permits`: 1 if the process gives a permit back, otherwise 0.
local function end_claim(dest, worker_id, permits)
  local counts = counts_of(dest, worker_id)
  if not counts then return end
  counts.claims = counts.claims - 1
  counts.permits = math.max(0, math.min(counts.permits - permits, counts.claims))
  change(dest)
end

-- Replaces the counts of a destination. `claims`: worker id → number. A process keeps its permits if it
-- has as many claims; one that was not counted gets a permit for each, as its requests may be open.
local function replace_counts(dest, claims)
  local counts = {}
  for worker_id, number_of_claims in pairs(claims) do
    local old = counts_of(dest, worker_id)
    local permits = math.min(old and old.permits or number_of_claims, number_of_claims)
    append(counts, {worker_id = worker_id, permits = permits, claims = number_of_claims})
  end
  counted[dest] = counts
  change(dest)
end

-- Writes the counts that have changed, by two commands for any number of destinations.
local function write_counts()
  local fields, empty = {}, {}
  for _, dest in ipairs(unwritten) do
    local triples = {}
    for _, counts in ipairs(counted[dest]) do
      if counts.claims > 0 then
        append(triples, counts.worker_id .. ' ' .. counts.permits .. ' ' .. counts.claims)
      end
    end
    counted[dest].changed = nil
    if #triples > 0 then
      append(fields, dest, table.concat(triples, ' '))
    else
      append(empty, dest)
    end
  end
  if #fields > 0 then call('HSET', INFLIGHT, unpack(fields)) end
  if #empty > 0 then call('HDEL', INFLIGHT, unpack(empty)) end
  unwritten = {}
end
