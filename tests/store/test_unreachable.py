"""The number of unreachable destinations that a partition remembers is limited."""

from redis.asyncio import Redis

from scheduler_api.domain.retry import Retry
from scheduler_api.store.claims import Outcome
from scheduler_api.store.connection.script_text import source
from scheduler_api.store.messages import new_of
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY, NOW
from tests.sim.model import at_once
from tests.sim.store_on_model import StoreOnModel
from tests.support.factories import accepted
from tests.support.message_states import RETRY_AFTER, attempt

KNOWN = 10_000
LONG_PAUSE = 60_000  # ms


async def remember(redis: Redis, store: Store, count: int, probe_at: int) -> str:
    """Store `count` unreachable hosts with this next probe → the key."""
    key = f"{store.keys[0].base}unreachable"
    await redis.hset(key, mapping={f"dead{n}.example": f"9 {probe_at}" for n in range(count)})
    return key


async def miss(store: Store, name: str, host: str) -> None:
    """An attempt to this host fails to connect."""
    await store.messages.create(name, accepted(webhookUrl=f"http://{host}/"))
    (claimed,) = (await store.queues[0].claim(1)).messages
    tried = attempt(1, status=None, error="connect_error")
    assert await store.queues[0].settle(Outcome(claimed, tried, Retry(RETRY_AFTER)))


async def test_settle_forgets_another_unreachable_host_at_the_limit(
    store: Store, redis: Redis
) -> None:
    key = await remember(redis, store, KNOWN, NOW + LONG_PAUSE)
    await miss(store, "a", "127.0.0.1:3001")
    assert await redis.hlen(key) == KNOWN
    assert await redis.hget(key, "127.0.0.1:3001")
    await miss(store, "b", "127.0.0.1:3001")
    assert await redis.hlen(key) == KNOWN


async def test_settle_forgets_no_host_below_the_limit(store: Store, redis: Redis) -> None:
    key = await remember(redis, store, KNOWN - 1, NOW + LONG_PAUSE)
    await miss(store, "a", "127.0.0.1:3001")
    assert await redis.hlen(key) == KNOWN


def test_claim_returns_what_was_parked_for_a_forgotten_host() -> None:
    whole = source("settle")
    bound = f"MAX_UNREACHABLE = {KNOWN}"
    assert whole.count(bound) == 1
    machine = StoreOnModel({whole: whole.replace(bound, "MAX_UNREACHABLE = 1")})
    data, host = machine.divided[1], "127.0.0.1:3001"
    [queue], messages = data.queues("worker_id", CONCURRENCY, keep=0), data.messages(CONCURRENCY)

    def create(name: str, at: str) -> None:
        new = new_of(name.encode(), accepted(webhookUrl=f"http://{at}/"))
        at_once(messages._create(0, [new]))

    machine.server.now_us = NOW * 1000
    machine.server.do("HSET", data.places[0]["unreachable"], host, f"9 {NOW}")
    create("1-probe", host)
    create("2-parked", host)
    assert len(at_once(queue.claim(10)).messages) == 1
    create("other", "127.0.0.1:3002")
    (other,) = at_once(queue.claim(10)).messages
    tried = attempt(1, status=None, error="connect_error")
    assert at_once(queue._settle([Outcome(other, tried, Retry(RETRY_AFTER))])) == [True]
    assert machine.server.stored()[data.places[0]["unreachable"]].keys() == {b"127.0.0.1:3002"}
    assert [one.id for one in at_once(queue.claim(10)).messages] == ["2-parked"]
