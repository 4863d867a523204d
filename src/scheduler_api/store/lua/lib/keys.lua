-- The keys of the partition, as store/keys.py draws them, and the call of a command.
local DUE, TAKEN, LEASES, CLAIMS, INFLIGHT, PAYLOADS, PROGRESS, DELIVERED, FAILED, WORKERS, META,
  PARKED, PARKING, LIMITS, RATE, UNREACHABLE, OPENS, WITHHELD, EVEN, ODD, WAKEUP = unpack(KEYS)
local call = redis.call
