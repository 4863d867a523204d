-- Claims: which process holds which message.
-- needs: keys record in_flight

-- Fence, epoch, nonce and destination; nothing if there is no claim, or a damaged one.
local function split_claim(claim)
  return (claim or ''):match('^(%d+) (%S+) (%S+) (%S+)')
end

-- Whether this is the claim that the process was given; returns the destination if so.
local function held(claim, fence, epoch)
  local its_fence, its_epoch, _, dest = split_claim(claim)
  if its_fence == fence and its_epoch == epoch then return dest end
  return nil
end

-- When a message was due that is claimed; it is due now if `taken` has lost it.
local function due_of(id, now)
  return call('ZSCORE', TAKEN, id)
    or math.max(now, scheduled_of(call('HGET', PAYLOADS, id) or ''))
end

-- Ends claims, `freed`: how many of each destination. The messages are then in no index, and the
-- caller puts them into one.
local function drop_claims(ids, freed)
  if #ids == 0 then return end
  call('ZREM', LEASES, unpack(ids))
  call('ZREM', TAKEN, unpack(ids))
  call('HDEL', CLAIMS, unpack(ids))
  for dest, count in pairs(freed) do add_in_flight(dest, -count) end
end
