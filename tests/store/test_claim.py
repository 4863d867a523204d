"""Claim leases due messages within every limit, and parks those over a limit."""

import asyncio
import math
import time
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.destination import Hold
from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.claims import Claim, Claimed
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.queue import CLAIM_BATCH
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY, NOW
from tests.store.conftest import Replica
from tests.support.factories import URL, accepted
from tests.support.lost_replies import lose_next_reply
from tests.support.message_states import RETRY_AFTER, bring, everything, fill, outcome
from tests.support.store_clock import Clock

MIB = 1024 * 1024
LEASE = 15_000  # ms, of `store`


def ids(claim: Claim) -> list[str]:
    return [claimed.id for claimed in claim.messages]


def host(number: int) -> str:
    """A URL of a new destination."""
    return f"http://127.0.0.1:{3000 + number}/hook"


async def create(store: Store, *names: str, url: str = URL, delay: float = 0) -> None:
    """Messages of these ids, due at one instant."""
    asked = accepted(webhookUrl=url, delay=delay)
    await asyncio.gather(*(store.messages.create(name, asked) for name in names))


async def test_claim_leases_a_message_when_it_is_due_and_not_before(
    store: Store, clock: Clock
) -> None:
    await create(store, "a", delay=1)
    await clock.advance(999)
    assert ids(await store.queues[0].claim(10)) == []
    await clock.advance(1)
    assert ids(await store.queues[0].claim(10)) == ["a"]
    assert (await store.messages.get("a")).state == "delivering"


async def test_claim_may_lease_a_message_before_it_is_due(store: Store, clock: Clock) -> None:
    await create(store, "a", delay=1)
    await create(store, "b", delay=1.005)
    await create(store, "c", delay=1.011)
    await create(store, "now")
    await clock.advance(980)
    first = await store.queues[0].claim(10, ahead=0.01)
    assert (ids(first), first.due_in) == (["now"], 0.015)  # from there on it takes several
    await clock.advance(15)
    second = await store.queues[0].claim(10, ahead=0.01)
    assert (ids(second), second.due_in) == (["a", "b"], 0.011)
    assert second.messages[0].due_at == from_ms(NOW + 1000)


async def test_claim_leases_nothing_ahead_while_many_are_overdue(
    store: Store, clock: Clock
) -> None:
    for number in range(150):
        await create(store, f"old{number}", url=host(number))
    await create(store, "soon", delay=1.005)
    await clock.advance(1000)
    claim = await store.queues[0].claim(100, ahead=0.01)
    assert len(claim.messages) == 100
    assert "soon" not in ids(claim)


@pytest.mark.parametrize("overdue", [0, 1, 127, 128])
async def test_claim_leases_many_ahead_that_are_due_in_a_moment(
    store: Store, clock: Clock, overdue: int
) -> None:
    names = [f"{number:03}" for number in range(300)]
    await asyncio.gather(
        *(
            store.messages.create(
                name,
                accepted(webhookUrl=host(int(name)), delay=0 if int(name) < overdue else 1.005),
            )
            for name in names
        )
    )
    await clock.advance(1000)
    claim = await store.queues[0].claim(100, ahead=0.01)
    assert len(claim.messages) == 100
    assert sorted(ids(claim))[:50] == names[:50]


async def test_claim_ahead_finds_a_message_due_at_0(store: Store) -> None:
    await store.messages.create("a", accepted(scheduleTo="1970-01-01T00:00:00Z"))
    assert ids(await store.queues[0].claim(10, ahead=0.01)) == ["a"]


async def test_claim_does_not_return_a_leased_message(store: Store, clock: Clock) -> None:
    await bring(store, "delivering")
    await clock.advance(10 * LEASE)  # only reap ends a lease
    assert ids(await store.queues[0].claim(10)) == []


async def test_claim_returns_every_field_that_an_attempt_needs(store: Store, clock: Clock) -> None:
    asked = accepted(payload={"a": 1}, timeout="7s")
    await store.messages.create("a", asked)
    first = (await store.queues[0].claim(1)).messages[0]
    await store.queues[0].settle(outcome(first, "retry"))
    await clock.advance(60_000)
    again = (await store.queues[0].claim(1)).messages[0]
    assert again == Claimed(
        id="a",
        webhook_id=first.webhook_id,
        fence=first.fence + 1,
        created_at=from_ms(NOW),
        scheduled_at=from_ms(NOW),
        due_at=from_ms(NOW) + RETRY_AFTER,
        url=URL,
        destination=URL.split("/")[2].encode(),
        spec=asked.spec,
        attempts=1,
        crashes=0,
        log=again.log,
        size=again.size,
    )
    assert (first.attempts, first.due_at, first.log) == (0, from_ms(NOW), b"")


async def test_claim_gives_a_new_message_with_an_old_id_another_webhook_id(
    store: Store, clock: Clock
) -> None:
    await create(store, "a")
    first = (await store.queues[0].claim(1)).messages[0]
    await store.queues[0].settle(outcome(first))
    await clock.advance(1)
    await create(store, "a", url=host(1))
    second = (await store.queues[0].claim(1)).messages[0]
    assert second.webhook_id != first.webhook_id


async def test_claim_returns_at_most_its_limit_oldest_first(store: Store) -> None:
    for number in range(6):
        await create(store, f"{number}", url=host(number), delay=number / 1000)
    await store.messages.create("old", accepted(scheduleTo="1970-01-01T00:00:00Z"))
    assert ids(await store.queues[0].claim(1)) == ["old"]


async def test_claim_returns_at_most_a_hundred(store: Store) -> None:
    for number in range(30):
        await create(store, *(f"{number}-{i}" for i in range(CONCURRENCY)), url=host(number))
    assert len((await store.queues[0].claim(1000)).messages) == CLAIM_BATCH
    assert len((await store.queues[0].claim(1000)).messages) == 120 - CLAIM_BATCH


async def test_claim_parks_messages_over_the_limit_of_their_destination(store: Store) -> None:
    names = [f"{number}" for number in range(CONCURRENCY + 2)]
    await create(store, *names)
    assert ids(await store.queues[0].claim(100)) == names[:CONCURRENCY]
    parked = [(await store.messages.get(name)).hold for name in names]
    assert parked == [None] * CONCURRENCY + [Hold("full", None)] * 2


async def test_claim_is_not_delayed_by_another_destination_at_its_limit(store: Store) -> None:
    await fill(store)
    await create(store, "a", "b")
    await create(store, "other", url=host(1))
    assert ids(await store.queues[0].claim(1)) == ["other"]


async def test_claim_finds_fresh_messages_behind_a_backlog(store: Store, clock: Clock) -> None:
    for first in range(0, 1000, 100):
        await create(store, *(f"{first + i:03}" for i in range(100)))
    await clock.advance(1)
    await create(store, "fresh", url=host(1))
    assert ids(await store.queues[0].claim(100)) == ["000", "fresh", "001", "999", "002"]


async def test_claim_looks_at_no_more_than_256_messages(store: Store) -> None:
    for first in range(0, 300, 100):
        await create(store, *(f"{first + i:03}" for i in range(100)))
    await store.queues[0].claim(100)
    page = await store.messages.list(1000, None)
    parked = [row.id for row in page.rows if (await store.messages.get(row.id)).hold]
    assert len(parked) == 256 - CONCURRENCY
    assert (await store.queues[0].claim(100)).messages == []  # and parks the rest


async def test_claim_ends_early_at_large_records(store: Store) -> None:
    for number in range(6):
        asked = accepted(webhookUrl=host(number), payload="x" * MIB)
        await store.messages.create(f"{number}", asked)
    assert ids(await store.queues[0].claim(100)) == ["0", "1", "2", "3"]
    last = await store.queues[0].claim(100)
    assert ids(last) == ["4", "5"]


async def test_claim_returns_each_message_with_its_record_and_progress(
    store: Store, redis: Redis, clock: Clock
) -> None:
    names = [f"{number:02}" for number in range(40)]
    for number, name in enumerate(names):
        await create(store, name, url=host(number))
    tried = (await store.queues[0].claim(10)).messages
    await asyncio.gather(*(store.queues[0].settle(outcome(one, "retry")) for one in tried))
    await clock.advance(RETRY_AFTER // timedelta(milliseconds=1))
    gone = [names[number] for number in (12, 15, 16, 31, 39)]
    await redis.hdel(f"{store.keys[0].base}payloads", *gone)
    claim = await store.queues[0].claim(100)
    assert claim.dropped == len(gone)
    found = {one.id: (one.url, one.attempts) for one in claim.messages}
    assert found == {
        name: (host(number), int(number < 10))
        for number, name in enumerate(names)
        if name not in gone
    }


@pytest.mark.parametrize(("delay", "due_in"), [(None, None), (0, 0.0), (1.5, 1.5), (3600, 3600.0)])
async def test_claim_returns_when_the_next_message_is_due(
    store: Store, delay: float | None, due_in: float | None
) -> None:
    await create(store, "a", url=host(1))
    if delay is not None:
        await create(store, "b", delay=delay)
    claim = await store.queues[0].claim(1)
    assert ids(claim) == ["a"]
    assert claim.due_in == due_in


async def test_claim_returns_when_the_next_lease_ends(store: Store, clock: Clock) -> None:
    assert (await store.queues[0].claim(1)).lease_in is None
    await create(store, "a", "b")
    assert (await store.queues[0].claim(1)).lease_in == LEASE / 1000
    await clock.advance(4_000)
    assert (await store.queues[0].claim(1)).lease_in == LEASE / 1000 - 4
    await clock.advance(2 * LEASE)
    assert (await store.queues[0].claim(1)).lease_in == 0


async def test_claim_returns_a_deadline_one_lease_after_the_call_began(store: Store) -> None:
    before = time.monotonic()
    claim = await store.queues[0].claim(1)
    assert before <= claim.deadline - LEASE / 1000 <= time.monotonic()


async def test_claim_passes_the_clock_of_the_store_to_the_queue(store: Store) -> None:
    before = time.monotonic()
    await store.queues[0].claim(1)
    shown = store.queues[0].now()
    elapsed = time.monotonic() - before
    assert 0 <= (shown - from_ms(NOW)).total_seconds() <= math.ceil(elapsed * 1000) / 1000


async def test_claim_returns_the_same_messages_for_a_repeated_nonce(
    store: Store, redis: Redis, scripts: Scripts
) -> None:
    await create(store, *(f"{number}" for number in range(CONCURRENCY + 1)))
    call = ("claim", 100, LEASE, "worker_id", "nonce", CONCURRENCY, 0, 0, 0, 0, 0)
    first = await scripts.run(*call)
    before = await everything(redis, store.keys[0])
    assert rows(await scripts.run(*call)) == rows(first)
    assert await everything(redis, store.keys[0]) == before


def rows(reply: list[object]) -> tuple[list[object], set[tuple[object, ...]]]:
    """What comes before the messages, and each message."""
    return reply[:7], {tuple(reply[i : i + 5]) for i in range(7, len(reply), 5)}


async def test_claim_returns_whether_it_lost_a_race(store: Store, replica: Replica) -> None:
    other = replica()
    assert not (await store.queues[0].claim(1)).lost_race
    assert not (await other.queues[0].claim(1)).lost_race
    await create(store, "a")
    assert not (await other.queues[0].claim(1)).lost_race  # it has it
    assert (await store.queues[0].claim(1)).lost_race
    assert not (await store.queues[0].claim(1)).lost_race  # by nobody since


async def test_claim_ignores_an_opening_without_parked_messages(store: Store, redis: Redis) -> None:
    await create(store, "a")
    assert ids(await store.queues[0].claim(1)) == ["a"]
    await redis.zadd(f"{store.keys[0].base}opens", {host(0): NOW})
    for _ in range(2):
        claim = await store.queues[0].claim(1)
        assert (claim.messages, claim.lost_race) == ([], False)


async def test_claim_of_the_only_process_never_loses_a_race(store: Store) -> None:
    await fill(store)
    await create(store, "parked")
    for _ in range(3):
        assert not (await store.queues[0].claim(1)).lost_race


async def test_claim_with_a_repeated_nonce_renews_the_leases_of_a_lost_reply(
    store: Store, scripts: Scripts, clock: Clock
) -> None:
    await create(store, "a")
    call = ("claim", 100, LEASE, store.queues[0].worker_id, "nonce", CONCURRENCY, 0, 0, 0, 0, 0)
    await scripts.run(*call)
    await clock.advance(LEASE - 1)
    await scripts.run(*call)  # whose reply says: a whole lease from now on
    await clock.advance(LEASE - 1)
    assert await store.queues[0].reap() == (0, [])


async def test_claim_returns_a_lost_claim_after_a_second_lost_reply(
    store: Store, scripts: Scripts, clock: Clock
) -> None:
    await create(store, "a", "b")
    call = ("claim", 2, LEASE, store.queues[0].worker_id, "nonce", 100, 0, 0, 0, 0, 0)
    await scripts.run(*call)
    await create(store, "c", "d")
    await scripts.run(
        "claim", 2, LEASE, "other", "nonce", 100, 0, 0, 0, 0, 0
    )  # these end with them
    for _ in range(3):
        assert {row[0] for row in rows(await scripts.run(*call))[1]} == {b"a", b"b"}
        await clock.advance(7)


async def test_claim_with_a_repeated_nonce_leaves_out_settled_messages(
    store: Store, scripts: Scripts
) -> None:
    await create(store, "a", "b")
    call = ("claim", 100, LEASE, store.queues[0].worker_id, "nonce", CONCURRENCY, 0, 0, 0, 0, 0)
    _, fence, *_ = await scripts.run(*call)
    await scripts.run(
        "settle",
        *(store.queues[0].worker_id, CONCURRENCY, 10, "a", fence, "delivered"),
        9,
        "1 0",
        b"",
        *("yes", 7, 1),
    )
    assert [row[0] for row in rows(await scripts.run(*call))[1]] == [b"b"]


async def test_claim_returns_nothing_for_the_nonce_of_another_process(
    store: Store, scripts: Scripts
) -> None:
    await create(store, "a")
    await scripts.run("claim", 100, LEASE, "worker_id", "nonce", CONCURRENCY, 0, 0, 0, 0, 0)
    _, messages = rows(
        await scripts.run("claim", 100, LEASE, "other", "nonce", CONCURRENCY, 0, 0, 0, 0, 0)
    )
    assert messages == set()


async def test_claim_returns_the_messages_of_a_lost_reply_at_the_next_call(
    store: Store, impatient: Redis, replica: Replica
) -> None:
    other = replica(impatient)
    await other.queues[0].claim(1)  # loads the script
    await create(store, "a", "b", "c")
    await lose_next_reply(impatient, store.keys[0].meta)
    with pytest.raises(StoreUnavailable):
        await other.queues[0].claim(2)
    await create(store, "d")
    claim = await other.queues[0].claim(2)
    assert sorted(ids(claim)) == ["a", "b"]
    assert all(await other.queues[0].renew(claim.messages))
    assert ids(await other.queues[0].claim(2)) == ["c", "d"]


async def test_claim_drops_and_counts_an_id_without_a_record(store: Store, redis: Redis) -> None:
    await create(store, "a", "b")
    await redis.hdel(f"{store.keys[0].base}payloads", "a")
    claim = await store.queues[0].claim(10)
    assert (ids(claim), claim.dropped) == (["b"], 1)
    assert (await store.queues[0].claim(10)).dropped == 0


async def test_claim_leaves_out_a_record_that_cannot_be_read(store: Store, redis: Redis) -> None:
    await create(store, "a", "b")
    payloads = f"{store.keys[0].base}payloads"
    record: Any = await redis.hget(payloads, "a")
    await redis.hset(payloads, "a", b"\xff" + record[1:])
    assert ids(await store.queues[0].claim(10)) == ["b"]


async def test_claim_writes_nothing_if_nothing_is_due(store: Store, redis: Redis) -> None:
    await create(store, "a", delay=1)
    before = await everything(redis, store.keys[0])
    await store.queues[0].claim(10)
    assert await everything(redis, store.keys[0]) == before


async def test_claims_of_several_processes_share_the_due_messages(
    store: Store, replica: Replica
) -> None:
    await create(store, "a", "b", "c")
    processes = [replica() for _ in range(4)]
    claims = await asyncio.gather(*(process.queues[0].claim(1) for process in processes))
    assert sorted(name for claim in claims for name in ids(claim)) == ["a", "b", "c"]
