"""Which part of a store keeps a message: for tests that hold whatever PARTITIONS is."""

from itertools import count, islice

from scheduler_api.store.keys import Keys, partition_of
from scheduler_api.store.queue import Queue
from scheduler_api.store.store import Store


def queue_of(store: Store, message_id: str) -> Queue:
    """Where that message is claimed."""
    return store.queues[partition_of(message_id.encode(), len(store.queues))]


def keys_of(store: Store, message_id: str) -> Keys:
    """Where that message is kept."""
    return store.keys[partition_of(message_id.encode(), len(store.keys))]


def neighbours(store: Store, number: int, prefix: str = "m") -> list[str]:
    """So many ids that `store.queues[0]` claims, each beginning so."""
    ids = (f"{prefix}{n:03}" for n in count())
    return list(islice((one for one in ids if queue_of(store, one) is store.queues[0]), number))
