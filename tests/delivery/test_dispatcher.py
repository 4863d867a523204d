"""Claim → send → settle, over the real store and a real receiver."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.delivery import claimer
from scheduler_api.domain.errors import MessageNotFound, SchemaTooNew, StoreUnavailable
from scheduler_api.domain.message import Message
from scheduler_api.store.claims import Claim, Claimed, Share
from scheduler_api.store.connection.client import close, connect
from scheduler_api.store.embedded.supervisor import EmbeddedStore
from scheduler_api.store.keys import SCHEMA
from scheduler_api.store.store import Store
from scheduler_api.telemetry.logging import configure_logging
from tests.conftest import PARTITIONS
from tests.delivery.conftest import Start
from tests.faults.conftest import events
from tests.support import invariants
from tests.support.factories import accepted
from tests.support.partitions import keys_of, neighbours, queue_of
from tests.support.receiver import Receiver, receiving
from tests.support.store_clock import Clock, clock_lib
from tests.support.waiting import wait_until

SHORT_LEASE = 1.0  # seconds


async def state(store: Store, message_id: str) -> str:
    """The state of the message; gone: it is not stored."""
    try:
        return (await store.messages.get(message_id)).state
    except MessageNotFound:
        return "gone"


async def until(store: Store, message_id: str, wanted: str) -> Message:
    """Wait until the message has that state."""

    async def there() -> bool:
        return await state(store, message_id) == wanted

    await wait_until(f"{message_id} {wanted}", there)
    return await store.messages.get(message_id)


@pytest.fixture
def other_store(redis: Redis, prefix: str) -> Store:
    """The same data in another process."""
    return Store(redis, prefix=prefix, partitions=PARTITIONS, lease=timedelta(seconds=5))


async def test_dispatcher_delivers_a_message_once_and_not_early(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    await start()
    due = await live_store.messages.create("a", accepted(webhookUrl=receiver.url, delay="150ms"))
    message = await until(live_store, "a", "delivered")
    assert [attempt.status for attempt in message.attempts] == [200]
    (request,) = receiver.requests
    assert request.at >= due.timestamp()


async def test_dispatcher_sends_at_its_instant_what_was_claimed_ahead(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    await start()
    delays = {f"m{n}": f"{100 + 3 * n}ms" for n in range(50)}
    creating = (
        live_store.messages.create(name, accepted(webhookUrl=receiver.url, delay=delay))
        for name, delay in delays.items()
    )
    due = dict(zip(delays, await asyncio.gather(*creating), strict=True))
    for name in delays:
        (attempt,) = (await until(live_store, name, "delivered")).attempts
        assert attempt.lateness_ms >= 0
    assert sorted(receiver.ids()) == sorted(delays)
    for request in receiver.requests:
        assert request.at >= due[request.headers["Scheduler-Message-Id"]].timestamp()


@pytest.fixture
def far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are claimed a minute ahead."""
    monkeypatch.setattr(claimer, "AHEAD", 60.0)


@pytest.mark.usefixtures("far_ahead")
async def test_drain_releases_messages_that_are_not_yet_due(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    dispatcher = await start()
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url, delay="30s"))
    await until(live_store, "a", "delivering")
    await dispatcher.drain(timedelta(0))
    message = await live_store.messages.get("a")
    assert (message.state, message.attempts) == ("scheduled", [])
    assert receiver.requests == []


@pytest.mark.usefixtures("far_ahead")
async def test_dispatcher_does_not_send_a_message_whose_lease_was_lost_before_it_was_due(
    start: Start, live_store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(claims: Sequence[Claimed]) -> list[bool]:
        return [False for _ in claims]

    early, due = neighbours(live_store, 2)  # otherwise its partition claims `early` again at once
    monkeypatch.setattr(queue_of(live_store, early), "renew", lost)
    await start(slots=1, lease=SHORT_LEASE)
    await live_store.messages.create(early, accepted(webhookUrl=receiver.url, delay="30s"))
    await until(live_store, early, "delivering")
    await live_store.messages.create(due, accepted(webhookUrl=receiver.url))
    await until(live_store, due, "delivered")
    assert receiver.ids() == [due]


async def test_dispatcher_wakes_for_a_message_that_another_process_created(
    start: Start, live_store: Store, other_store: Store, receiver: Receiver
) -> None:
    await start()
    await live_store.messages.create("first", accepted(webhookUrl=receiver.url))
    await until(live_store, "first", "delivered")  # so it sleeps until the safety poll
    await other_store.messages.create("a", accepted(webhookUrl=receiver.url))
    message = await until(live_store, "a", "delivered")
    assert message.attempts[0].lateness_ms < 5_000  # the safety poll comes after at least 8 s


async def test_dispatcher_retries_a_failed_attempt_after_the_backoff(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    await start()
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    message = await until(live_store, "a", "retrying")
    assert message.next_attempt_at is not None
    wait = message.next_attempt_at - message.attempts[0].started_at
    assert timedelta(seconds=4) <= wait <= timedelta(seconds=7)
    assert message.attempts_made == 1


async def test_dispatcher_waits_at_least_retry_after(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    receiver.statuses, receiver.answer_headers = [429], {"Retry-After": "3600"}
    await start()
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    message = await until(live_store, "a", "retrying")
    assert message.next_attempt_at is not None
    assert message.next_attempt_at - message.created_at >= timedelta(hours=1)


async def test_dispatcher_fails_a_message_after_410(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    receiver.statuses = [410]
    await start()
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    message = await until(live_store, "a", "failed")
    assert message.attempts_made == 1


async def found_quick(store: Store, receiver: Receiver) -> None:
    """Let it respond quickly once, so that it may have any slot; then let it hang."""
    await store.messages.create("first", accepted(webhookUrl=receiver.url))
    await until(store, "first", "delivered")
    receiver.hold.clear()


async def test_dispatcher_opens_at_most_slots_requests(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    await start(slots=3)
    await found_quick(live_store, receiver)
    for n in range(10):
        await live_store.messages.create(f"m{n}", accepted(webhookUrl=receiver.url))
    await wait_until("three requests", lambda: len(receiver.requests) == 1 + 3)
    page = await live_store.messages.list(100, None)
    assert sum(row.state == "delivering" for row in page.rows) == 3
    receiver.hold.set()
    await wait_until("all ten requests", lambda: len(receiver.requests) == 1 + 10)
    for n in range(10):
        await until(live_store, f"m{n}", "delivered")
    assert len(receiver.requests) == 1 + 10


async def test_dispatcher_sends_many_due_messages_once_each(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    fields = {"webhookUrl": receiver.url, "delay": "200ms"}
    await asyncio.gather(
        *(live_store.messages.create(f"m{n}", accepted(**fields, payload=n)) for n in range(500))
    )
    await start()
    await wait_until("all requests", lambda: len(receiver.requests) >= 500)
    assert sorted(map(int, receiver.bodies())) == list(range(500))
    await wait_until("nothing pending", lambda: _nothing_pending(live_store))


async def _nothing_pending(store: Store) -> bool:
    return await store.messages.count() == 0


async def test_dispatchers_of_two_processes_send_each_message_once(
    start: Start, live_store: Store, other_store: Store, receiver: Receiver
) -> None:
    await start()
    await start(other_store)
    fields = {"webhookUrl": receiver.url, "delay": "100ms"}
    await asyncio.gather(
        *(live_store.messages.create(f"m{n}", accepted(**fields, payload=n)) for n in range(300))
    )
    await wait_until("nothing pending", lambda: _nothing_pending(live_store))
    assert sorted(map(int, receiver.bodies())) == list(range(300))


@pytest.fixture
async def divided(redis: Redis, prefix: str) -> AsyncIterator[Store]:
    """Three partitions, whose invariants are checked at the end."""
    store = Store(redis, prefix=prefix, partitions=3, lease=timedelta(seconds=5), concurrency=63)
    yield store
    for keys in store.keys:
        await invariants.check(redis, keys, 21)


async def test_dispatcher_sends_messages_of_all_partitions_once_each(
    start: Start, divided: Store, receiver: Receiver
) -> None:
    await start(divided, slots=10)
    fields = {"webhookUrl": receiver.url, "delay": "100ms"}
    await asyncio.gather(
        *(divided.messages.create(f"m{n}", accepted(**fields, payload=n)) for n in range(300))
    )
    await wait_until("nothing pending", lambda: _nothing_pending(divided))
    assert sorted(map(int, receiver.bodies())) == list(range(300))


async def test_dispatcher_shares_its_slots_among_partitions(
    start: Start, divided: Store, receiver: Receiver
) -> None:
    await start(divided, slots=7)
    await found_quick(divided, receiver)
    await asyncio.gather(
        *(divided.messages.create(f"m{n}", accepted(webhookUrl=receiver.url)) for n in range(60))
    )
    await wait_until("seven requests", lambda: len(receiver.requests) == 1 + 7)
    page = await divided.messages.list(100, None)
    assert sum(row.state == "delivering" for row in page.rows) == 7
    receiver.hold.set()
    await wait_until("nothing pending", lambda: _nothing_pending(divided))
    assert len(receiver.requests) == 1 + 60


async def test_dispatcher_stops_all_partitions_if_one_refuses_its_data(
    start: Start, divided: Store, redis: Redis
) -> None:
    for n in range(9):
        await divided.messages.create(f"m{n}", accepted(delay="1h"))
    await redis.hset(divided.keys[1].meta, "partitions", "7")
    with capture_logs() as logs:
        await start(divided)
        await wait_until("the refusal", lambda: bool(events(logs, "data_refused")))
    for message_id in (f"m{n}" for n in range(9)):  # they become due, and no process claims them
        await redis.zadd(f"{keys_of(divided, message_id).base}due", {message_id: 1})
    await redis.hset(divided.keys[1].meta, "partitions", str(len(divided.keys)))
    page = await divided.messages.list(100, None)
    assert [row.state for row in page.rows] == ["scheduled"] * 9


async def test_dispatcher_checks_the_data_after_the_store_was_emptied(
    start: Start, live_store: Store, redis: Redis
) -> None:
    dispatcher = await start()
    await wait_until("running", lambda: dispatcher.running)
    meta = live_store.keys[0].meta
    with capture_logs() as logs:
        await redis.delete(meta)
        dispatcher._wake(0)

        async def marked() -> bool:
            return bool(await redis.hexists(meta, "schema"))

        await wait_until("a new schema", marked)
    assert [one["log_level"] for one in logs if one["event"] == "store_reset"] == ["error"]


async def test_dispatcher_renews_the_lease_of_a_long_request(
    redis: Redis, prefix: str, start: Start, receiver: Receiver
) -> None:
    store = Store(redis, prefix=prefix, lease=timedelta(seconds=SHORT_LEASE))
    receiver.hold.clear()
    await start(store, lease=SHORT_LEASE)
    await store.messages.create("a", accepted(webhookUrl=receiver.url))
    await wait_until("the request", lambda: len(receiver.requests) == 1)
    begun = time.monotonic()
    await wait_until("two leases", lambda: time.monotonic() - begun > 2 * SHORT_LEASE)
    receiver.hold.set()
    message = await until(store, "a", "delivered")
    assert (message.attempts_made, message.crashes) == (1, 0)
    assert len(receiver.requests) == 1


async def test_dispatcher_reaps_the_lease_of_a_dead_process(
    redis: Redis, prefix: str, start: Start, receiver: Receiver
) -> None:
    dead = Store(redis, prefix=prefix, lease=timedelta(seconds=SHORT_LEASE))
    store = Store(redis, prefix=prefix, lease=timedelta(seconds=SHORT_LEASE))
    await dead.messages.create("a", accepted(webhookUrl=receiver.url))
    await dead.queues[0].claim(1)
    await start(store, lease=SHORT_LEASE)
    message = await until(store, "a", "delivered")
    assert (message.attempts_made, message.crashes) == (1, 1)


@pytest.mark.parametrize("jump", [3_600_000, -3_600_000])
async def test_dispatcher_keeps_leases_of_living_processes_when_the_stores_clock_jumps(
    start: Start, redis: Redis, prefix: str, clock: Clock, receiver: Receiver, jump: int
) -> None:
    one, other = (
        Store(redis, prefix=prefix, lease=timedelta(seconds=SHORT_LEASE), libs=clock_lib(clock.key))
        for _ in range(2)
    )
    receiver.hold.clear()
    await start(one, lease=SHORT_LEASE)
    for number in range(5):
        await one.messages.create(f"m{number}", accepted(webhookUrl=receiver.url))
    await wait_until("open requests", lambda: len(receiver.requests) == 5)
    with capture_logs() as logs:
        await start(other, lease=SHORT_LEASE)
        may_reap = time.monotonic() + SHORT_LEASE + 0.5
        await wait_until("the right to reap", lambda: time.monotonic() > may_reap)
        await clock.advance(jump)
        await other.messages.create("fresh", accepted(webhookUrl=receiver.url))
        await wait_until("both logs", lambda: len(events(logs, "store_clock_jumped")) == 2)
        receiver.hold.set()
        for message_id in ("fresh", *(f"m{number}" for number in range(5))):
            await until(one, message_id, "delivered")
    assert {it["seconds"] > 0 for it in events(logs, "store_clock_jumped")} == {jump > 0}
    assert not events(logs, "leases_reaped") + events(logs, "settle_refused")
    assert len(receiver.requests) == 6


async def test_dispatcher_aborts_a_request_whose_claim_was_taken(
    redis: Redis, prefix: str, start: Start, receiver: Receiver
) -> None:
    store = Store(redis, prefix=prefix, lease=timedelta(seconds=SHORT_LEASE))
    receiver.hold.clear()
    dispatcher = await start(store, lease=SHORT_LEASE)
    await store.messages.create("a", accepted(webhookUrl=receiver.url))
    await wait_until("the request", lambda: len(receiver.requests) == 1)
    await take_claim(redis, store.keys[0].base, receiver)
    await wait_until("the aborted request", lambda: not dispatcher.busy)
    assert await state(store, "a") == "delivering"


async def take_claim(redis: Redis, base: str, receiver: Receiver) -> None:
    """Let another process have the claim of the message `a` to this receiver."""
    destination = receiver.url.split("/")[2]
    await redis.hset(f"{base}claims", "a", f"99 another nonce {destination} 1")
    await redis.hset(f"{base}inflight", destination, "another 1 1")


async def test_dispatcher_does_not_send_under_a_lease_that_is_about_to_end(
    live_store: Store, start: Start, receiver: Receiver
) -> None:
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    dispatcher = await start(lease=3600)  # the store's lease, 5 s, is shorter than its margin
    await until(live_store, "a", "delivering")
    await wait_until("the released message", lambda: not dispatcher.busy)
    assert receiver.requests == []


async def test_stop_releases_a_claim_under_way(
    live_store: Store, start: Start, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = await start()
    queue = queue_of(live_store, "a")
    claim, claimed = queue.claim, asyncio.Event()

    async def and_stop_meanwhile(most: int, ahead: float, share: Share) -> Claim:
        found = await claim(most, ahead, share)
        if found.messages:
            dispatcher.stop()
            claimed.set()
        return found

    monkeypatch.setattr(queue, "claim", and_stop_meanwhile)
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await wait_until("the claim", claimed.is_set)
    await dispatcher.drain(timedelta(seconds=1))
    assert await state(live_store, "a") == "scheduled"
    assert receiver.requests == []


async def test_dispatcher_changes_nothing_by_an_outcome_of_a_lost_claim(
    live_store: Store, start: Start, redis: Redis, receiver: Receiver
) -> None:
    receiver.hold.clear()
    dispatcher = await start()
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await wait_until("the request", lambda: len(receiver.requests) == 1)
    await take_claim(redis, keys_of(live_store, "a").base, receiver)
    receiver.hold.set()
    await wait_until("the refused outcome", lambda: not dispatcher.busy)
    assert await state(live_store, "a") == "delivering"


async def test_dispatcher_holds_no_slot_for_messages_over_a_destinations_limit(
    live_store: Store, start: Start, receiver: Receiver
) -> None:
    await start(slots=84)
    await found_quick(live_store, receiver)
    fields = {"webhookUrl": receiver.url}
    ids = neighbours(live_store, 300)
    await asyncio.gather(
        *(
            live_store.messages.create(message_id, accepted(**fields, payload=n))
            for n, message_id in enumerate(ids)
        )
    )
    async with receiving() as other:
        await live_store.messages.create("o", accepted(webhookUrl=other.url))
        await until(live_store, "o", "delivered")
    await wait_until("64 requests are open", lambda: len(receiver.requests) >= 1 + 64)
    assert len(receiver.requests) == 1 + 64
    receiver.hold.set()
    await wait_until("nothing pending", lambda: _nothing_pending(live_store))
    assert sorted(map(int, receiver.bodies()[1:])) == list(range(300))


async def test_drain_waits_for_open_requests_and_settles_them(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    receiver.hold.clear()
    dispatcher = await start()
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await wait_until("the request", lambda: len(receiver.requests) == 1)
    draining = asyncio.create_task(dispatcher.drain(timedelta(seconds=10)))
    await live_store.messages.create("b", accepted(webhookUrl=receiver.url))
    assert not dispatcher.running
    receiver.hold.set()
    await draining
    assert await state(live_store, "a") == "delivered"
    assert await state(live_store, "b") == "scheduled"


async def test_drain_cuts_off_requests_after_the_grace(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    receiver.hold.clear()
    dispatcher = await start()
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await wait_until("the request", lambda: len(receiver.requests) == 1)
    await dispatcher.drain(timedelta(0))
    message = await live_store.messages.get("a")
    assert message.state == "retrying"
    assert message.attempts[0].error == "shutdown"


async def test_hurry_ends_the_wait_of_drain(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    receiver.hold.clear()
    dispatcher = await start()
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await wait_until("the request", lambda: len(receiver.requests) == 1)
    dispatcher.hurry()
    async with asyncio.timeout(5):
        await dispatcher.drain(timedelta(hours=1))
    assert await state(live_store, "a") == "retrying"


async def test_dispatcher_sends_others_if_a_record_is_missing(
    start: Start, live_store: Store, redis: Redis, receiver: Receiver
) -> None:
    await live_store.messages.create("damaged", accepted(webhookUrl=receiver.url))
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await redis.hdel(f"{live_store.keys[0].base}payloads", "damaged")
    await start()
    await until(live_store, "a", "delivered")


async def test_dispatcher_sends_others_if_a_record_is_unreadable(
    start: Start, live_store: Store, redis: Redis, receiver: Receiver
) -> None:
    await live_store.messages.create("damaged", accepted(webhookUrl=receiver.url))
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    payloads = f"{keys_of(live_store, 'damaged').base}payloads"
    record = await redis.hget(payloads, "damaged")
    assert isinstance(record, bytes)
    await redis.hset(payloads, "damaged", b"\xff" + record[1:])
    await start()
    await until(live_store, "a", "delivered")


async def test_dispatcher_continues_after_a_bug(
    start: Start, live_store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler_api.delivery.claimer.ERROR_PAUSE", 0.001)
    mistakes = [RuntimeError("a mistake")]

    async def check(_: int) -> None:
        if mistakes:
            raise mistakes.pop()

    await start(check=check)
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await until(live_store, "a", "delivered")


class Unspeakable(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("format", ["json", "console"])
async def test_dispatcher_continues_after_an_error_that_cannot_be_logged(
    format: str,
    start: Start,
    live_store: Store,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a bug, and of the cause of an outage."""
    monkeypatch.setattr("scheduler_api.delivery.claimer.ERROR_PAUSE", 0.001)
    written = io.StringIO()
    configure_logging("INFO", format, written, cache=False)
    away = StoreUnavailable()
    away.__cause__ = Unspeakable()
    mistakes = [Unspeakable(), away]

    async def check(_: int) -> None:
        if mistakes:
            raise mistakes.pop()

    await start(check=check)
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await until(live_store, "a", "delivered")
    for event in ("store_lost", "dispatcher_error", "store_connected"):
        assert event in written.getvalue()


async def test_dispatcher_stops_claiming_when_the_data_get_a_newer_schema(
    start: Start, live_store: Store, redis: Redis, receiver: Receiver
) -> None:
    receiver.hold.clear()
    dispatcher = await start()
    await live_store.messages.create("claimed", accepted(webhookUrl=receiver.url))
    await live_store.messages.create("waits", accepted(webhookUrl=receiver.url, delay=3600))
    await wait_until("the request", lambda: len(receiver.requests) == 1)
    for keys in live_store.keys:
        await redis.hset(keys.meta, "schema", "999")
    with pytest.raises(SchemaTooNew):
        await live_store.messages.create("refused", accepted(webhookUrl=receiver.url))
    for partition in range(len(live_store.keys)):
        live_store.notifier.notify(partition)
    await wait_until("stopped", lambda: not dispatcher.running)
    receiver.hold.set()
    await wait_until("the settled claim", lambda: not dispatcher.busy)
    for keys in live_store.keys:
        await redis.hset(keys.meta, "schema", str(SCHEMA))
    assert await state(live_store, "claimed") == "delivered"
    assert await state(live_store, "waits") == "scheduled"
    assert len(receiver.requests) == 1


async def test_dispatcher_claims_nothing_of_a_newer_schema(
    start: Start, live_store: Store, redis: Redis, receiver: Receiver
) -> None:
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    for keys in live_store.keys:
        await redis.hset(keys.meta, "schema", "999")
    with capture_logs() as logs:
        await start()
        await wait_until("the refusal", lambda: bool(events(logs, "data_refused")))
    assert receiver.requests == []


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    """A store that the test can stop."""
    embedded = EmbeddedStore(tmp_path)
    await embedded.start()
    yield embedded
    await embedded.stop()


@pytest.fixture
async def own_store(own_server: EmbeddedStore) -> AsyncIterator[Store]:
    """The data of `own_server`."""
    redis = connect(f"unix://{own_server.socket}")
    yield Store(redis, lease=timedelta(seconds=5))
    await close(redis)


async def test_dispatcher_settles_after_an_outage_of_the_store(
    own_server: EmbeddedStore, own_store: Store, start: Start, receiver: Receiver
) -> None:
    store = own_store
    receiver.hold.clear()
    await start(store)
    await store.messages.create("a", accepted(webhookUrl=receiver.url))
    await wait_until("the request", lambda: len(receiver.requests) == 1)
    await own_server.stop()
    receiver.hold.set()
    await own_server.start()
    message = await until(store, "a", "delivered")
    assert message.attempts_made == 1
    assert len(receiver.requests) == 1


async def test_dispatcher_without_messages_reconnects_after_an_outage(
    own_server: EmbeddedStore, own_store: Store, start: Start, receiver: Receiver
) -> None:
    await start(own_store)
    await own_server.stop()
    own_store.notifier.notify(0)
    with pytest.raises(StoreUnavailable):
        await own_store.messages.count()
    await own_server.start()
    await own_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await until(own_store, "a", "delivered")


async def test_drain_leaves_an_outcome_to_the_lease_if_the_store_is_away(
    own_server: EmbeddedStore, own_store: Store, start: Start, receiver: Receiver
) -> None:
    receiver.hold.clear()
    dispatcher = await start(own_store)
    await own_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await wait_until("the request", lambda: len(receiver.requests) == 1)
    await own_server.stop()
    dispatcher.stop()
    receiver.hold.set()
    await dispatcher.drain(timedelta(seconds=10))
    assert not dispatcher.busy
    await own_server.start()
    assert await state(own_store, "a") == "delivering"
