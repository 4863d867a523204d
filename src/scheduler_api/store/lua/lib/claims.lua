-- Claims: which process holds which message.
-- needs: keys record in_flight places

-- Fence, worker id, nonce and destination; nothing if there is no claim, or a damaged one.
local function split_claim(claim)
  return (claim or ''):match('^(%d+) (%S+) (%S+) (%S+)')
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

-- Ends claims. `freed`: destination → how many of the claims are its own. The messages are then in no
-- place; the caller puts them into one.
local function drop_claims(ids, freed)
  if #ids == 0 then return end
  end_leases(ids)
  call('HDEL', CLAIMS, unpack(ids))
  for dest, count in pairs(freed) do add_in_flight(dest, -count) end
end
