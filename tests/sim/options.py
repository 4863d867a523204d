"""What is fixed before a schedule's first step: drawn once, from the seed.

The options are printed with each failing seed, and by `make sim SEED=…`.
"""

import random
from typing import Final, Literal

import msgspec

DAY_MS: Final = 86_400_000
HOSTS: Final = ("127.0.0.1:2", "h.example")
STEPS: Final = (10, 30)  # of the safety phase: at least, at most

StoreKind = Literal["durable", "loses_tail", "wild_clock", "damaged"]


class Options(msgspec.Struct, frozen=True):
    """One schedule's options."""

    partitions: int
    concurrency: int  # default limit of a destination
    hosts: tuple[str, ...]  # destinations of the messages
    max_batch: int  # messages of one create
    retention_ms: int  # for which finished messages are kept
    reply_loss: float  # share of the calls whose reply is lost
    # loses_tail: forgets its last writes at a restart. wild_clock: its clock is set by up to an
    # hour. damaged: somebody changes its keys by hand. Those three break what promises rest on.
    store: StoreKind
    sets_limits: bool  # whether callers set limits, rates and pauses of destinations
    loses_destinations: bool  # whether destinations become unreachable
    shares_slots: bool  # whether processes keep slots for other destinations than slow ones
    queues: bool  # many messages to quick destinations, and slots for them: they wait for permits
    quick_hosts: tuple[str, ...]  # destinations that processes take for quick at first
    schema_known: bool  # False: the store was away when the first process started
    unreachable_host: str | None  # is hard to reach from the start
    slots: tuple[int, ...]  # of each process at the start
    max_slots: int  # of a process that is started later
    first_creates: int  # before the first step
    steps: int  # of the safety phase

    @property
    def strict(self) -> bool:
        """Whether every promise is checked: the store does what they ask of it."""
        return self.store == "durable"


def draw(rng: random.Random) -> Options:
    """The options of the seed that `rng` was made with."""
    # A number that is drawn here, or between two others, changes what every seed means.
    partitions = rng.choice((1, 1, 1, 1, 2))
    concurrency = rng.choice((1, 1, 2, 3))
    hosts = rng.choice((HOSTS[:1], HOSTS))
    max_batch = rng.choice((1, 2, 4))
    retention_ms = rng.choice((DAY_MS, DAY_MS, 60_000, 0))
    reply_loss = rng.choice((0.0, 0.1, 0.3))
    store = _store_kind(rng.random())
    sets_limits = rng.random() < 0.4
    loses_destinations = rng.random() < 0.25
    shares_slots = rng.random() < 0.5
    queues = shares_slots and rng.random() < 0.5
    quick_hosts = hosts if queues else rng.choice((HOSTS[:0], HOSTS[:0], HOSTS[:1], HOSTS))
    schema_known = rng.random() < 0.5
    max_slots = 12 if queues else 4
    return Options(
        partitions,
        concurrency,
        hosts,
        8 if queues else max_batch,
        retention_ms,
        reply_loss,
        store,
        sets_limits,
        loses_destinations,
        shares_slots,
        queues,
        quick_hosts,
        schema_known,
        unreachable_host=rng.choice(hosts) if loses_destinations else None,
        slots=tuple(rng.randint(1, max_slots) for _ in range(rng.choice((1, 2, 2, 3)))),
        max_slots=max_slots,
        first_creates=rng.randrange(1, 4),
        steps=rng.randint(*STEPS),
    )


def _store_kind(chance: float) -> StoreKind:
    if chance < 0.08:
        return "loses_tail"
    if chance < 0.12:
        return "wild_clock"
    return "damaged" if chance < 0.18 else "durable"


def shown(options: msgspec.Struct) -> str:
    """All options on one line: name=value."""
    return " ".join(f"{name}={value}" for name, value in msgspec.structs.asdict(options).items())
