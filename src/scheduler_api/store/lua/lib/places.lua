-- The places of messages: each message is in exactly one, and its state is where it is.
-- needs: keys

-- The lowest score of a sorted set, or -1.
local function head(key)
  return tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or -1)
end

local function place(id)
  if call('ZSCORE', DUE, id) then return 'due' end
  if call('ZSCORE', LEASES, id) then return 'leased' end
  if call('ZSCORE', TAKEN, id) then return 'parked' end
  if call('ZSCORE', DELIVERED, id) then return 'delivered' end
  if call('ZSCORE', FAILED, id) then return 'failed' end
  return 'missing'
end
