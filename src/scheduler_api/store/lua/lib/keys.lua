-- The keys of the partition, as store/keys.py draws them, and the call of a command. The keys of the
-- finished states follow them: finished.lua.
local DUE, TAKEN, LEASES, CLAIMS, INFLIGHT, PAYLOADS, PROGRESS, WORKERS, META, PARKED, PARKING,
  LIMITS, RATE, UNREACHABLE, OPENS, WITHHELD, EVEN, ODD, WAKEUP = unpack(KEYS)
local call = redis.call
