"""The keyspace, drawn; every key's name is made here.

All keys of a partition carry its hash tag, so that one script may touch them on a cluster.
The prefix and the tag come first, what a caller wrote (ids, destinations) comes last.

    key                      type   content
    scheduler:{0}:due        ZSET   id → due ms: scheduled and retrying messages
    …:taken                  ZSET   id → due ms: messages taken out of `due`, leased or parked,
                                    so that a list merges two sets, whatever is parked
    …:leases                 ZSET   id → lease expiry ms
    …:claims                 HASH   id → "fence epoch nonce destination"; exists iff in `leases`
    …:inflight               HASH   destination → number of claims; no zero fields
    …:parked:DESTINATION     ZSET   id → due ms: due messages over their destination's limit
    …:payloads               HASH   id → record (codec.py): what never changes
    …:progress               HASH   id → "attempts crashes outcome at\\n" and the attempts' log;
                                    only for messages that were tried
    …:delivered  …:failed    ZSET   id → when the record expires, ms: finished messages
    …:workers                HASH   epoch of a process → "ms of its last claim, its nonce"
    …:meta                   HASH   schema, fence (counter)
    …:wakeup                        pub/sub channel: a message became the head of `due`

A message is in exactly one of due, parked:*, leases, delivered, failed. Its state is where it is.
"""

from typing import Final

SCHEMA: Final = 1  # layout of all of the above; a newer one is refused

# The order in which lua/prelude.lua takes them from KEYS.
_NAMES: Final = (
    "due",
    "taken",
    "leases",
    "claims",
    "inflight",
    "payloads",
    "progress",
    "delivered",
    "failed",
    "workers",
    "meta",
    "parked:",
    "wakeup",
)


class Keys:
    """The key names of one partition."""

    def __init__(self, prefix: str, partition: int = 0) -> None:
        self.base = f"{prefix}:{{{partition}}}:"
        self.all = tuple(f"{self.base}{name}".encode() for name in _NAMES)
        self.meta = f"{self.base}meta"
        self.wakeup = f"{self.base}wakeup"
