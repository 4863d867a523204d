"""The keyspace, drawn; the name of every key is made here.

All keys of a partition have its hash tag, so that one script may use them on a cluster.
The checksum of a message's routing key gives its partition (see `partition_of`), so that no
directory is needed.
The prefix and the tag come first, text from callers (a destination) comes last.

    key                      type   content
    scheduler:{0}:due        ZSET   id → due ms: scheduled and retrying messages
    …:taken                  ZSET   id → due ms: messages taken out of `due`, leased or parked,
                                    so that a list merges two sets only
    …:leases                 ZSET   id → lease expiry ms
    …:claims                 HASH   id → "fence worker_id nonce destination permit" (1 if the claim
                                    got a permit, otherwise 0); exists iff in `leases`
    …:inflight               HASH   destination → "worker_id permits claims" of each process that
                                    has claims, with spaces between; a permit: to open a request
    …:parked:DESTINATION     ZSET   id → due ms: due messages held up by their destination
    …:parking                SET    destinations with parked messages
    …:limits                 HASH   destination → "concurrency interval paused asked": its own
                                    settings; concurrency 0: the default; interval: ms, 0: no rate
    …:rate                   HASH   destination → when its rate lets the next message through, ms
    …:unreachable            HASH   destination → "failures to connect in a row, ms of next probe"
    …:opens                  ZSET   destination → when its rate or a probe lets the next one through
    …:withheld               ZSET   destination → when a claim last left its parked messages there,
                                    because its process had no slot for them
    …:even  …:odd            HASH   destination → results of its attempts (codec/limits.py) in one
                                    hour; the field '' has that hour, counted since 1970
    …:payloads               HASH   id → record (codec/record.py), which never changes
    …:progress               HASH   id → "attempts crashes outcome at\\n" and the attempts' log;
                                    only for messages that were tried
    …:delivered  …:failed    ZSET   id → when the record expires, ms: finished messages
    …:workers                HASH   worker_id of a process → "ms of its last claim, its nonce"
    …:meta                   HASH   schema, partitions (of the data set), fence (counter), withheld
                                    (exists iff that key does),
                                    run_id (of the store, as note_restart.lua last saw it),
                                    outage_until (ms; until then nobody reaps)
    …:wakeup                        sharded pub/sub channel: a message became the head of `due`

A message is in exactly one of due, parked:*, leases, delivered, failed. Its state is where it is.
"""

from binascii import crc_hqx  # the CRC16 of Redis Cluster
from itertools import count
from typing import Final

# Version of this layout. Raised only when an older version could not read the data that this one
# writes: the first process with the new one marks the data with it, and the older processes stop.
SCHEMA: Final = 2
OLDEST_READABLE: Final = 2  # the oldest schema that this version can read

# The finished states, in the order in which lua/queue/trim.lua forgets their messages; each is the
# name of its key. STATES of lua/lib/finished.lua is the same list: add a new state to both.
FINISHED: Final = ("delivered", "failed")

# The order in which lua/lib/keys.lua takes them from KEYS.
_NAMES: Final = (
    "due",
    "taken",
    "leases",
    "claims",
    "inflight",
    "payloads",
    "progress",
    "workers",
    "meta",
    "parked:",
    "parking",
    "limits",
    "rate",
    "unreachable",
    "opens",
    "withheld",
    "even",
    "odd",
    "wakeup",
    *FINISHED,
)

SLOTS: Final = 16_384  # of a Redis Cluster
STRIDE: Final = 10_127  # slots between two tags: the golden ratio spreads any number of them evenly
NEAR: Final = 8  # slots that a tag may be beside its place; fewer than lie between 256 tags


class Keys:
    """The key names of one partition."""

    def __init__(self, prefix: str, partition: int = 0) -> None:
        self.partition = partition
        self.base = f"{prefix}:{{{tag(partition)}}}:"
        self.all = tuple(f"{self.base}{name}".encode() for name in _NAMES)
        self.meta = f"{self.base}meta"
        self.wakeup = f"{self.base}wakeup"
        self._parked = f"{self.base}parked:".encode()

    def parked_for(self, name: bytes) -> bytes | None:
        """The destination whose parked messages the key has; None for another kind of key."""
        return name.removeprefix(self._parked) if name.startswith(self._parked) else None

    def owns(self, name: bytes) -> bool:
        """Whether the key is one of these."""
        return name in self.all or self.parked_for(name) is not None


def partition_of(message_id: bytes, partitions: int) -> int:
    """The partition that keeps the message, by its routing key.

    The routing key is the part of the id before the first `@`, so that `a@b` is in the partition of
    `a`. It is the whole id if the id has no `@` or begins with it.
    """
    return crc_hqx(message_id.partition(b"@")[0] or message_id, 0) % partitions


def tag(partition: int) -> int:
    """The number in the braces of the keys; 0 for partition 0.

    Any number of partitions is spread evenly over the slots, so that each node has its share.
    """
    place = _slot(0) + partition * STRIDE
    return next(number for number in count() if (_slot(number) - place) % SLOTS < NEAR)


def _slot(number: int) -> int:
    return crc_hqx(b"%d" % number, 0) % SLOTS
