"""The partition of a message, for tests that hold with any number of partitions."""

from itertools import count, islice

from scheduler_api.store.keys import Keys, partition_of
from scheduler_api.store.queue import Queue
from scheduler_api.store.store import Store


def queue_of(store: Store, message_id: str) -> Queue:
    """The queue of the message's partition."""
    return store.queues[partition_of(message_id.encode(), len(store.queues))]


def keys_of(store: Store, message_id: str) -> Keys:
    """The keys of the message's partition."""
    return store.keys[partition_of(message_id.encode(), len(store.keys))]


def neighbours(store: Store, number: int, prefix: str = "m") -> list[str]:
    """This many ids of partition 0, each with this prefix."""
    ids = (f"{prefix}{n:03}" for n in count())
    return list(islice((one for one in ids if queue_of(store, one) is store.queues[0]), number))
