-- Claims: which process holds which message.
-- needs: keys record in_flight places

-- Fence, worker id, nonce, destination, and 1 if the claim got a permit, otherwise 0; nothing if there
-- is no claim, or a damaged one.
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
  local its_fence, its_worker_id, _, dest = split_claim(claim)
  if its_fence == fence and its_worker_id == worker_id then return dest end
  return nil
end

-- When a claimed message was due; now or later if `taken` has lost it.
local function due_of(id, now)
  return call('ZSCORE', TAKEN, id)
    or math.max(now, scheduled_of(call('HGET', PAYLOADS, id) or ''))
end

-- Ends claims of one process. `dests`: the destination of each; `permits`: 1 for each with which the
-- process gives a permit back. The messages are then in no place; the caller puts them into one.
local function drop_claims(ids, dests, worker_id, permits)
  if #ids == 0 then return end
  end_leases(ids)
  call('HDEL', CLAIMS, unpack(ids))
  read_counts(dests)
  for i, dest in ipairs(dests) do end_claim(dest, worker_id, permits[i]) end
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
  for _, dest in ipairs(dests) do replace_counts(dest, found[dest]) end
  write_counts()
end
