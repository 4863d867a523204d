-- Permits: how many requests each process may have open to each destination of this partition; and
-- how many claims it has, as it cannot have more permits than claims. A claim without a permit is
-- queued: it waits in its process, until a request to the destination ends and passes its permit on.
-- needs: keys arguments

-- A process in a field of `inflight`: worker id, permits, claims. Other text is ignored.
local TRIPLE, ITS_PERMITS = '(%S+) (%d+) (%d+)', '%S+ (%d+) %d+'
local counted = {} -- destination → its field of `inflight`, '' if it has none
local changed = {} -- destinations whose field is to be written

-- Reads the fields of destinations, by one command for all that are not known yet.
local function read_counts(dests)
  local unread = {}
  for _, dest in ipairs(dests) do
    if not counted[dest] then
      counted[dest] = ''
      append(unread, dest)
    end
  end
  if #unread == 0 then return end
  for i, text in ipairs(call('HMGET', INFLIGHT, unpack(unread))) do
    counted[unread[i]] = text or ''
  end
end

-- The permits of all processes together.
local function in_flight(dest)
  if not counted[dest] then read_counts({dest}) end
  if counted[dest] == '' then return 0 end
  local sum = 0
  for permits in counted[dest]:gmatch(ITS_PERMITS) do sum = sum + tonumber(permits) end
  return math.min(sum, 2 ^ 31)
end

-- The claims of all processes that have no permit.
local function queued_claims(dest)
  if not counted[dest] then read_counts({dest}) end
  local sum = 0
  for _, permits, claims in counted[dest]:gmatch(TRIPLE) do
    sum = sum + math.max(0, tonumber(claims) - tonumber(permits))
  end
  return math.min(sum, 2 ^ 31)
end

-- The permits and the claims of one process, and the text of the other processes.
local function counts_of(dest, worker_id)
  if not counted[dest] then read_counts({dest}) end
  if counted[dest] == '' then return 0, 0, '' end
  local its_permits, its_claims, others = 0, 0, ''
  for id, permits, claims in counted[dest]:gmatch(TRIPLE) do
    if id == worker_id then
      its_permits, its_claims = its_permits + tonumber(permits), its_claims + tonumber(claims)
    else
      others = others .. (others == '' and '' or ' ') .. id .. ' ' .. permits .. ' ' .. claims
    end
  end
  return its_permits, its_claims, others
end

-- Replaces the counts of one process. `others`: text of the other processes.
local function set_counts(dest, worker_id, permits, claims, others)
  append(changed, dest)
  if claims <= 0 then
    counted[dest] = others
  else
    local space = others == '' and '' or ' '
    counted[dest] = others .. space .. worker_id .. ' ' .. math.max(0, permits) .. ' ' .. claims
  end
end

-- Counts claims that a process has got, some of them with a permit.
local function add_claims(dest, worker_id, got, with_permit)
  local permits, claims, others = counts_of(dest, worker_id)
  set_counts(dest, worker_id, permits + with_permit, claims + got, others)
end

-- Counts claims of a process that have ended. It gave some permits back; it cannot keep more permits
-- than claims. (One that died gives none back.)
local function end_claims(dest, worker_id, ended, given_back)
  local permits, claims, others = counts_of(dest, worker_id)
  if claims == 0 then return end
  claims = claims - ended
  set_counts(dest, worker_id, math.min(permits - given_back, claims), claims, others)
end

-- Replaces the counts of all processes. `claims`: worker id → number. A process keeps its permits, if
-- it has as many claims. One that was not counted gets a permit for each: its requests may be open.
local function recount_claims(dest, claims)
  local old = {} -- worker id → permits
  for worker_id in pairs(claims) do
    local permits, its_claims = counts_of(dest, worker_id)
    old[worker_id] = its_claims > 0 and permits or math.huge
  end
  counted[dest] = ''
  append(changed, dest)
  for worker_id, its_claims in pairs(claims) do
    local permits = math.min(old[worker_id], its_claims)
    set_counts(dest, worker_id, permits, its_claims, counted[dest])
  end
end

-- Writes the fields that have changed, by two commands for any number of destinations.
local function write_counts()
  local fields, empty = {}, {}
  for _, dest in ipairs(changed) do
    if counted[dest] == '' then
      append(empty, dest)
    else
      append(fields, dest, counted[dest])
    end
  end
  if #fields > 0 then call('HSET', INFLIGHT, unpack(fields)) end
  if #empty > 0 then call('HDEL', INFLIGHT, unpack(empty)) end
  changed = {}
end
