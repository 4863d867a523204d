-- Claims: which process holds which message.
-- needs: keys arguments record in_flight places

-- Fence, worker id, nonce, destination, and 1 if the claim got a permit, otherwise 0. Without a claim,
-- or with a damaged one, only the last.
local function split_claim(claim)
  local fence, worker_id, nonce, dest, permit =
    (claim or ''):match('^(%d+) (%S+) (%S+) (%S+) ?(%d*)')
  return fence, worker_id, nonce, dest, permit == '1' and 1 or 0
end

-- Id → claim, of those that have one.
local function claims_of(ids)
  local claims = {}
  if #ids == 0 then return claims end
  for i, claim in ipairs(call('HMGET', CLAIMS, unpack(ids))) do claims[ids[i]] = claim or nil end
  return claims
end

-- The destination, if this is the claim with this fence of this process; otherwise nil.
local function held(claim, fence, worker_id)
  local its_fence, its_worker_id, dest = (claim or ''):match('^(%d+) (%S+) %S+ (%S+)')
  if its_fence == fence and its_worker_id == worker_id then return dest end
  return nil
end

-- When a claimed message was due; now or later if `taken` has lost it.
local function due_of(id, now)
  return call('ZSCORE', TAKEN, id)
    or math.max(now, scheduled_of(call('HGET', PAYLOADS, id) or ''))
end

-- Ends claims of one process. `ended`: destination → how many of them; `given_back`: destination →
-- how many permits the process gives back. The messages are then in no place; the caller puts them
-- into one.
local function drop_claims(ids, worker_id, ended, given_back)
  if #ids == 0 then return end
  end_leases(ids)
  call('HDEL', CLAIMS, unpack(ids))
  local dests = {}
  for dest in pairs(ended) do append(dests, dest) end
  read_counts(dests)
  for _, dest in ipairs(dests) do
    end_claims(dest, worker_id, ended[dest], given_back[dest] or 0)
  end
  write_counts()
end

-- Counts the claims of these destinations again, from all claims. They are no more than the messages
-- that all processes hold.
local function recount(dests)
  local found = {} -- destination → worker id → number
  for _, dest in ipairs(dests) do found[dest] = {} end
  for _, claim in ipairs(call('HVALS', CLAIMS)) do
    local _, worker_id, _, dest = split_claim(claim)
    local its = dest and found[dest]
    if its then its[worker_id] = (its[worker_id] or 0) + 1 end
  end
  read_counts(dests)
  for _, dest in ipairs(dests) do recount_claims(dest, found[dest]) end
  write_counts()
end
