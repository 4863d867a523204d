"""Limits, rates, pauses and unreachable destinations: state before, one call, state after."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.domain.attempt_stats import AttemptStats, bucket
from scheduler_api.domain.destination import Destination, Hold, Limits, Rate
from scheduler_api.domain.errors import DestinationNotFound, MessageNotFound
from scheduler_api.domain.retry import Retry
from scheduler_api.store.claims import Claimed, Outcome
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.queue import CLAIM_BATCH
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY, NOW
from tests.store.conftest import Replica
from tests.support.factories import accepted
from tests.support.message_states import Verdict, attempt, decided, everything, outcome
from tests.support.store_clock import Clock

HERE = "127.0.0.1:2"  # the destination of the factories' messages
THERE = "127.0.0.1:3"
SECOND = 1_000  # ms


async def create(store: Store, count: int, host: str = HERE, name: str = "m") -> None:
    """Messages that are due now."""
    new = accepted(webhookUrl=f"http://{host}/hook")
    await asyncio.gather(
        *(store.messages.create(f"{name}-{number:04}", new) for number in range(count))
    )


async def claimed(store: Store, most: int = CLAIM_BATCH) -> list[Claimed]:
    return (await store.queues[0].claim(most)).messages


async def deliver(store: Store, messages: list[Claimed]) -> None:
    assert all(await asyncio.gather(*(store.queues[0].settle(outcome(it)) for it in messages)))


def missed(message: Claimed, error: str = "connect_error") -> Outcome:
    """An attempt that did not get as far as a connection; retried at once."""
    made = attempt(message.attempts + 1, status=None, error=error)
    return Outcome(message, made, Retry(timedelta(0)))


async def lose(store: Store, failures: int = 5) -> None:
    """Let so many requests in a row fail to connect."""
    for _ in range(failures):
        (message,) = await claimed(store, 1)
        assert await store.queues[0].settle(missed(message))


async def waiting(store: Store, host: str = HERE) -> int:
    return (await store.destinations.get(host)).waiting


# Limits


async def test_claim_uses_the_limit_of_the_destination_before_the_default(store: Store) -> None:
    await create(store, 10)
    await create(store, 10, THERE, "other")
    await store.destinations.set_limit(HERE, Limits(concurrency=1))
    found = [message.url for message in await claimed(store)]
    assert found.count(f"http://{HERE}/hook") == 1
    assert found.count(f"http://{THERE}/hook") == CONCURRENCY


async def test_claim_keeps_a_limit_over_all_processes_together(
    store: Store, replica: Replica
) -> None:
    await store.destinations.set_limit(HERE, Limits(concurrency=3))
    await create(store, 10)
    assert len(await claimed(store, 2)) == 2
    assert len(await claimed(replica())) == 1
    assert await claimed(store) == []


async def test_set_limit_to_a_higher_one_unparks_messages(store: Store) -> None:
    await create(store, 20)
    assert len(await claimed(store)) == CONCURRENCY
    await store.destinations.set_limit(HERE, Limits(concurrency=10))
    assert len(await claimed(store)) == 10 - CONCURRENCY
    assert await waiting(store) == 10


async def test_set_limit_unparks_more_than_one_batch(store: Store) -> None:
    await create(store, 250)
    assert len(await claimed(store)) == CONCURRENCY
    assert len(await claimed(store)) == 0
    await store.destinations.set_limit(HERE, Limits(concurrency=1_000))
    counts = [len(await claimed(store)) for _ in range(4)]
    assert sum(counts) == 250 - CONCURRENCY
    assert max(counts) <= CLAIM_BATCH


async def test_set_limit_to_a_lower_one_holds_for_the_next_claim(store: Store) -> None:
    await create(store, 10)
    messages = await claimed(store)
    await store.destinations.set_limit(HERE, Limits(concurrency=1))
    await deliver(store, messages[1:])
    assert await claimed(store) == []
    await deliver(store, messages[:1])
    assert len(await claimed(store)) == 1


async def test_set_limit_to_none_restores_the_default(store: Store) -> None:
    await store.destinations.set_limit(HERE, Limits(concurrency=1))
    await create(store, 10)
    assert len(await claimed(store)) == 1
    destination = await store.destinations.set_limit(HERE, None)
    assert (destination.limits, destination.concurrency) == (None, CONCURRENCY)
    assert len(await claimed(store)) == CONCURRENCY - 1


async def test_set_limit_does_not_change_other_destinations(store: Store) -> None:
    await store.destinations.set_limit("other.example", Limits(1, Rate(1, "d"), paused=True))
    await create(store, 10)
    messages = await claimed(store)
    assert len(messages) == CONCURRENCY
    await deliver(store, messages)
    assert len(await claimed(store)) == CONCURRENCY


# An earlier bug: the slot went to one message, and the others stayed parked when it was cancelled.


async def test_cancel_passes_a_free_slot_to_the_next_parked_message(store: Store) -> None:
    await store.destinations.set_limit(HERE, Limits(concurrency=1))
    await create(store, 4)
    (first,) = await claimed(store)
    assert await claimed(store) == []
    await deliver(store, [first])
    await store.messages.cancel("m-0001")
    await store.messages.cancel("m-0002")
    (last,) = await claimed(store)
    assert last.id == "m-0003"


@pytest.mark.parametrize("way", ["settled", "released", "reaped"])
async def test_settle_release_and_reap_unpark_the_next_message(
    store: Store, clock: Clock, way: str
) -> None:
    await store.destinations.set_limit(HERE, Limits(concurrency=1))
    await create(store, 3)
    messages = await claimed(store)
    assert await claimed(store) == []
    if way == "settled":
        await deliver(store, messages)
    elif way == "released":
        await store.queues[0].release(messages)
    else:
        await clock.advance(15 * SECOND)
        await store.queues[0].reap()
    assert len(await claimed(store)) == 1
    assert await waiting(store) == (1 if way == "settled" else 2)


async def test_settle_while_the_rate_allows_no_message_unparks_the_next_one_later(
    store: Store, clock: Clock
) -> None:
    await store.destinations.set_limit(HERE, Limits(1, Rate(1, "s")))
    await create(store, 2)
    (first,) = await claimed(store)
    assert (await store.queues[0].claim(1)).due_in is None  # it waits for the slot
    await deliver(store, [first])
    claim = await store.queues[0].claim(1)
    assert (claim.messages, claim.due_in) == ([], 0.995)
    await clock.advance(SECOND)
    (second,) = await claimed(store)
    assert second.id == "m-0001"


async def test_sweep_unparks_stranded_messages(
    redis: Redis, store: Store, wakes: list[str]
) -> None:
    await store.destinations.set_limit(HERE, Limits(concurrency=1))
    await create(store, 3)
    (first,) = await claimed(store)
    await claimed(store)
    await deliver(store, [first])  # hands the slot to the second, whose record is then lost
    await redis.hdel(f"{store.keys[0].base}payloads", "m-0001")
    assert await claimed(store) == []
    wakes.clear()
    assert await store.queues[0].sweep() == 1
    assert wakes == ["wake"]
    assert [message.id for message in await claimed(store)] == ["m-0002"]
    assert await store.queues[0].sweep() == 0
    assert wakes == ["wake"]


# Pauses


async def test_claim_leases_nothing_of_a_paused_destination(store: Store) -> None:
    await create(store, 10)
    await create(store, 2, THERE, "other")
    await store.destinations.set_limit(HERE, Limits(paused=True))
    assert [message.id for message in await claimed(store)] == ["other-0000", "other-0001"]
    claim = await store.queues[0].claim(1)
    assert (claim.messages, claim.due_in) == ([], None)
    assert await waiting(store) == 10


async def test_set_limit_to_paused_lets_open_requests_end_and_starts_no_others(
    store: Store,
) -> None:
    await create(store, 10)
    messages = await claimed(store)
    await store.destinations.set_limit(HERE, Limits(paused=True))
    await deliver(store, messages)
    assert await claimed(store) == []
    assert await waiting(store) == 10 - CONCURRENCY


async def test_set_limit_that_ends_a_pause_unparks_messages_in_order(store: Store) -> None:
    await store.destinations.set_limit(HERE, Limits(paused=True))
    await create(store, 10)
    assert await claimed(store) == []
    await store.destinations.set_limit(HERE, Limits())
    sent: list[str] = []
    while messages := await claimed(store):
        sent += [message.id for message in messages]
        await deliver(store, messages)
    assert sent == [f"m-{number:04}" for number in range(10)]


async def test_claim_parks_a_message_that_becomes_due_during_a_pause(
    store: Store, clock: Clock
) -> None:
    await store.destinations.set_limit(HERE, Limits(paused=True))
    await store.messages.create("later", accepted(delay="1m"))
    await clock.advance(60 * SECOND)
    assert await claimed(store) == []
    message = await store.messages.get("later")
    assert (message.state, message.hold) == ("scheduled", Hold("paused", None))


async def test_cancel_of_the_only_parked_message_leaves_none_waiting(store: Store) -> None:
    await store.destinations.set_limit(HERE, Limits(paused=True))
    await create(store, 1)
    assert await claimed(store) == []
    await store.messages.cancel("m-0000")
    with pytest.raises(MessageNotFound):
        await store.messages.get("m-0000")
    assert await waiting(store) == 0


# Rates


async def sent_until(store: Store, clock: Clock, end: int, *others: Store) -> list[int]:
    """Sends all that may be sent, whenever a claim says so; the instants, ms since NOW."""
    sent: list[int] = []
    while (now := await clock.now() - NOW) < end:
        claims = [await one.queues[0].claim(CLAIM_BATCH) for one in (store, *others)]
        for one, claim in zip((store, *others), claims, strict=True):
            await deliver(one, claim.messages)
            sent += [now] * len(claim.messages)
        wait = min((it.due_in for it in claims if it.due_in is not None), default=None)
        if wait is None:
            break
        await clock.advance(int(wait * SECOND) or 1)
    return sent


@pytest.mark.parametrize("text", ["1/s", "10/s", "40/s", "200/s", "300/m"])
async def test_claim_keeps_a_rate_exactly_over_all_processes(
    store: Store, replica: Replica, clock: Clock, text: str
) -> None:
    rate = Rate.parse(text)
    count = int(5 * SECOND / rate.interval_ms)
    await store.destinations.set_limit(HERE, Limits(100, rate))
    await create(store, count + 200)
    sent = await sent_until(store, clock, 5 * SECOND, replica())
    ahead = max(10, 100 - rate.interval_ms)  # ms: the burst that the rate allows at once
    assert count - 1 <= len(sent) <= count + 1 + ahead / rate.interval_ms
    for first, start in enumerate(sent):
        within = sum(start <= at < start + SECOND for at in sent[first:])
        assert within <= (SECOND + ahead) / rate.interval_ms + 1


async def test_claim_after_an_idle_time_allows_only_the_burst_of_a_rate(
    store: Store, clock: Clock
) -> None:
    await store.destinations.set_limit(HERE, Limits(100, Rate(10, "s")))
    await clock.advance(3_600 * SECOND)
    await create(store, 10)
    assert len(await claimed(store)) == 1


async def test_claim_that_comes_late_does_not_slow_a_rate(store: Store, clock: Clock) -> None:
    await store.destinations.set_limit(HERE, Limits(100, Rate(10, "s")))
    await create(store, 200)
    sent = 0
    for turn in range(100):
        await clock.set(NOW + turn * 100 + 4 * (turn % 2))  # every second claim 4 ms late
        messages = await claimed(store)
        await deliver(store, messages)
        sent += len(messages)
    assert sent == 100


async def test_set_limit_restarts_the_rate_only_if_it_changed(store: Store) -> None:
    await store.destinations.set_limit(HERE, Limits(10, Rate(1, "h")))
    await create(store, 3)
    assert len(await claimed(store)) == 1
    await store.destinations.set_limit(HERE, Limits(10, Rate(1, "h"), paused=True))
    await store.destinations.set_limit(HERE, Limits(10, Rate(1, "h")))
    assert await claimed(store) == []
    assert (await store.messages.get("m-0001")).hold == Hold("rate", from_ms(NOW + 3_599_995))
    await store.destinations.set_limit(HERE, Limits(10, Rate(1, "m")))
    assert len(await claimed(store)) == 1
    await store.destinations.set_limit(HERE, None)
    assert len(await claimed(store)) == 1


async def test_claim_keeps_a_rate_and_a_limit_together(store: Store, clock: Clock) -> None:
    await store.destinations.set_limit(HERE, Limits(2, Rate(1000, "s")))
    await create(store, 200)
    assert len(await claimed(store)) == 2
    await clock.advance(SECOND)
    assert await claimed(store) == []


async def test_claim_unparks_more_opened_destinations_than_one_call_looks_at(
    store: Store, clock: Clock
) -> None:
    hosts = [f"127.0.0.1:{port}" for port in range(8_000, 8_040)]
    for number, host in enumerate(hosts):
        await store.destinations.set_limit(host, Limits(1, Rate(1, "s")))
        await create(store, 2, host, f"to-{number}")
    await deliver(store, await claimed(store))
    assert await claimed(store) == []
    await clock.advance(SECOND)
    claims = [await store.queues[0].claim(CLAIM_BATCH) for _ in range(3)]
    assert [len(claim.messages) for claim in claims] == [16, 16, 8]
    assert [claim.due_in for claim in claims[:2]] == [0, 0]


async def test_claim_keeps_a_rate_after_the_clock_was_set_back(store: Store, clock: Clock) -> None:
    """By what was noted before, the next one would have to wait as long as the clock jumped."""
    await store.destinations.set_limit(HERE, Limits(100, Rate(10, "s")))
    await create(store, 1)
    assert len(await sent_until(store, clock, SECOND)) == 1
    await clock.advance(-3_600 * SECOND)
    await create(store, 20, name="later")
    start = await clock.now() - NOW
    assert len(await sent_until(store, clock, start + SECOND)) in (10, 11)


# Unreachable destinations


@pytest.mark.parametrize("error", ["connect_error", "connect_timeout", "dns_error"])
async def test_claim_sends_nothing_for_a_second_after_five_failures_to_connect(
    store: Store, clock: Clock, error: str
) -> None:
    await create(store, 20)
    for _ in range(5):
        (message,) = await claimed(store, 1)
        assert await store.queues[0].settle(missed(message, error))
    claim = await store.queues[0].claim(CLAIM_BATCH)
    assert (claim.messages, claim.due_in) == ([], 1)
    message_found = await store.messages.get("m-0010")
    assert message_found.hold == Hold("unreachable", from_ms(NOW + SECOND))
    await clock.advance(SECOND)
    assert len(await claimed(store)) == 1  # the probe
    assert await claimed(store) == []


async def test_claim_sends_a_probe_after_the_clock_was_set_back(store: Store, clock: Clock) -> None:
    await create(store, 20)
    await lose(store)
    assert await claimed(store) == []
    await clock.advance(-3_600 * SECOND)
    await create(store, 2, name="fresh")
    (probe,) = await claimed(store)
    assert await store.queues[0].settle(missed(probe))
    assert await claimed(store) == []
    assert (await store.destinations.get(HERE)).connect_failures == 6


@pytest.mark.parametrize(
    "end",
    [
        {"status": 500},
        {"status": 404},
        {"status": None, "error": "disconnected"},
        {"status": None, "error": "tls_error"},
    ],
)
async def test_settle_resets_the_count_of_failures_if_the_destination_was_reached(
    store: Store, end: dict[str, Any]
) -> None:
    await create(store, 20)
    await lose(store, 4)
    (message,) = await claimed(store, 1)
    there = Outcome(message, attempt(message.attempts + 1, **end), Retry(timedelta(0)))
    assert await store.queues[0].settle(there)
    await lose(store, 4)
    assert len(await claimed(store)) == CONCURRENCY


@pytest.mark.parametrize("error", ["timeout", "egress_denied", "shutdown", "internal_error"])
async def test_settle_does_not_count_an_error_unrelated_to_the_destination(
    store: Store, error: str
) -> None:
    await create(store, 20)
    await lose(store, 4)
    (message,) = await claimed(store, 1)
    assert await store.queues[0].settle(missed(message, error))
    assert (await store.destinations.get(HERE)).connect_failures == 4
    await lose(store, 1)
    assert await claimed(store) == []


async def test_claim_sends_one_probe_at_a_time_with_pauses_that_double_up_to_a_minute(
    store: Store, clock: Clock
) -> None:
    await create(store, 20)
    await lose(store)
    pauses = []
    for _ in range(8):
        claim = await store.queues[0].claim(CLAIM_BATCH)
        assert claim.messages == []
        assert claim.due_in is not None
        pauses.append(claim.due_in)
        await clock.advance(int(claim.due_in * SECOND))
        (probe,) = await claimed(store)
        assert await store.queues[0].settle(missed(probe))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_claim_uses_no_attempts_of_messages_that_wait_for_the_next_probe(
    store: Store, clock: Clock
) -> None:
    await create(store, 100)
    await lose(store)
    for _ in range(20):
        claim = await store.queues[0].claim(CLAIM_BATCH)
        await clock.advance(int((claim.due_in or 0) * SECOND))
        (probe,) = await claimed(store)
        assert await store.queues[0].settle(missed(probe))
    made = [(await store.messages.get(f"m-{n:04}")).attempts_made for n in range(100)]
    assert sum(made) == 25
    assert max(made[1:]) == 1  # each time another one, the oldest
    assert await waiting(store) == 99


async def test_settle_of_a_probe_with_a_response_unparks_all(store: Store, clock: Clock) -> None:
    await create(store, 20)
    with capture_logs() as logs:
        await lose(store)
        await claimed(store)
        await clock.advance(SECOND)
        (probe,) = await claimed(store)
        await deliver(store, [probe])
    events = [(event["event"], event["destination"]) for event in logs]
    assert events == [("destination_unreachable", HERE), ("destination_reached", HERE)]
    assert len(await claimed(store)) == CONCURRENCY
    assert (await store.destinations.get(HERE)).connect_failures == 0


async def test_settle_of_requests_open_at_the_fifth_failure_does_not_lengthen_the_pause(
    store: Store, clock: Clock
) -> None:
    await store.destinations.set_limit(HERE, Limits(concurrency=40))
    await create(store, 60)
    messages = await claimed(store)
    with capture_logs() as logs:
        for message in messages:
            assert await store.queues[0].settle(missed(message))
    assert [event["event"] for event in logs] == ["destination_unreachable"]
    found = await store.destinations.get(HERE)
    assert (found.connect_failures, found.in_flight) == (5, 0)
    assert found.hold == Hold("unreachable", from_ms(NOW + SECOND))
    await clock.advance(SECOND)
    assert len(await claimed(store)) == 1


async def test_claim_sends_no_probe_while_requests_are_open(store: Store, clock: Clock) -> None:
    await store.destinations.set_limit(HERE, Limits(concurrency=10))
    await create(store, 20)
    messages = await claimed(store)
    for message in messages[:5]:
        assert await store.queues[0].settle(missed(message))
    await clock.advance(SECOND)
    assert await claimed(store) == []
    assert (await store.destinations.get(HERE)).hold == Hold("unreachable", None)
    await deliver(store, messages[5:9])  # any answer shows that it is there
    assert len(await claimed(store)) == 9


async def test_claim_sends_another_probe_after_the_process_of_the_first_died(
    store: Store, clock: Clock
) -> None:
    await create(store, 20)
    await lose(store)
    await claimed(store)
    await clock.advance(SECOND)
    assert len(await claimed(store)) == 1
    await clock.advance(15 * SECOND)
    await store.queues[0].reap()
    assert len(await claimed(store)) == 1


async def test_settle_counts_failures_to_connect_over_all_processes_together(
    store: Store, replica: Replica
) -> None:
    await create(store, 20)
    await lose(store, 3)
    await lose(replica(), 2)
    assert await claimed(store) == []
    assert await claimed(replica()) == []


async def test_claim_returns_messages_of_other_destinations_while_one_is_unreachable(
    store: Store,
) -> None:
    await create(store, 20)
    await lose(store)
    await create(store, 20, THERE, "other")
    assert {message.url for message in await claimed(store)} == {f"http://{THERE}/hook"}


async def test_settle_of_the_fifth_failure_wakes_its_process_for_the_probe(
    store: Store, wakes: list[str]
) -> None:
    await create(store, 20)
    (first,) = await claimed(store, 1)
    await lose(store, 4)
    assert len(await claimed(store)) == CONCURRENCY - 1
    assert (await store.queues[0].claim(1)).due_in is None
    wakes.clear()
    assert await store.queues[0].settle(
        Outcome(first, attempt(1, status=None, error="dns_error"), Retry(timedelta(hours=1)))
    )
    assert wakes == ["wake"]
    assert (await store.queues[0].claim(1)).due_in == 1


async def test_sweep_forgets_old_failures_to_connect(store: Store, clock: Clock) -> None:
    await create(store, 5)
    await lose(store, 5)
    for number in range(5):
        await store.messages.cancel(f"m-{number:04}")
    await clock.advance(24 * 3_600 * SECOND)
    await store.queues[0].sweep()
    assert (await store.destinations.get(HERE)).connect_failures == 5
    await clock.advance(SECOND + 1)
    await store.queues[0].sweep()
    with pytest.raises(DestinationNotFound):
        await store.destinations.get(HERE)


# Fairness


async def test_claim_finds_new_messages_behind_thousands_of_one_unreachable_host(
    store: Store, clock: Clock
) -> None:
    await create(store, 5_000)
    await clock.advance(SECOND)
    ports = range(9_000, 9_100)
    await asyncio.gather(
        *(create(store, 1, f"127.0.0.1:{port}", f"fresh-{port}") for port in ports)
    )
    found = await claimed(store) + await claimed(store)
    fresh = [message.id for message in found if message.id.startswith("fresh")]
    assert len(fresh) == 100
    assert len(found) - len(fresh) == CONCURRENCY


async def commands(redis: Redis) -> int:
    """All that the server has run, inside of scripts too."""
    stats: dict[str, Any] = await redis.info("commandstats")
    ours = {"info", "lrange", "config|resetstat"}  # the tests' clock is one of them
    return sum(
        stat["calls"] for name, stat in stats.items() if name.removeprefix("cmdstat_") not in ours
    )


async def cost(redis: Redis, store: Store, held: list[Claimed]) -> float:
    """Commands a message, while one is claimed for each that is settled."""
    before, delivered = await commands(redis), 0
    for _ in range(10):
        delivered += len(held)
        await asyncio.gather(*(store.queues[0].settle(outcome(message)) for message in held))
        held[:] = await claimed(store)
    return (await commands(redis) - before) / delivered


async def test_claim_and_settle_cost_the_same_for_any_number_of_parked_messages(
    own_redis: Redis, own_store: Store
) -> None:
    held: list[Claimed] = []
    costs = []
    for backlog in (1_000, 4_000):
        await create(own_store, backlog, HERE, f"{backlog}")
        while (claim := await own_store.queues[0].claim(CLAIM_BATCH)).due_in == 0:
            held += claim.messages
        held += claim.messages
        assert len(held) == 64
        costs.append(await cost(own_redis, own_store, held))
    few, many = costs
    assert many <= few * 1.05
    assert many < 25


# Reading


async def test_list_destinations_returns_the_busiest_first(store: Store) -> None:
    await create(store, 1, "quiet.example", "quiet")
    await create(store, 10)
    await store.destinations.set_limit("idle.example", Limits(7, Rate(300, "m"), paused=True))
    await claimed(store)
    page = await store.destinations.list(10)
    assert (page.total, page.cursor) == (3, None)
    assert page.rows == [
        Destination(HERE, None, CONCURRENCY, 4, 6, 0, Hold("full", None)),
        Destination("quiet.example", None, CONCURRENCY, 1, 0, 0, None),
        Destination(
            "idle.example", Limits(7, Rate(300, "m"), True), 7, 0, 0, 0, Hold("paused", None)
        ),
    ]


async def test_get_destination_without_load_and_settings_is_not_found(store: Store) -> None:
    with pytest.raises(DestinationNotFound):
        await store.destinations.get("nobody.example")
    with pytest.raises(DestinationNotFound):
        await store.destinations.set_limit("nobody.example", None)


async def test_get_returns_the_hold_of_a_message_only_while_it_is_parked(store: Store) -> None:
    await create(store, 6)
    messages = await claimed(store)
    holds = [(await store.messages.get(f"m-{number:04}")).hold for number in range(6)]
    assert holds == [None] * 4 + [Hold("full", None)] * 2
    await store.destinations.set_limit(HERE, Limits(concurrency=50))
    assert (await store.messages.get("m-0005")).hold is None  # the next claim unparks it
    await deliver(store, messages)


# How attempts went

HOUR = 3_600_000  # ms; the tests' clock begins at one


async def results(store: Store, host: str = HERE) -> AttemptStats:
    return (await store.destinations.get(host)).stats


async def settle(store: Store, message: Claimed, verdict: Verdict, **fields: Any) -> bool:
    made = attempt(message.attempts + 1, **fields)
    return await store.queues[0].settle(Outcome(message, made, decided(verdict)))


async def test_settle_counts_attempts_by_result_and_duration(store: Store) -> None:
    await create(store, 3)
    one, two, three = await claimed(store)
    assert await settle(store, one, "delivered", duration_ms=40)
    assert await settle(store, two, "retry", status=503, duration_ms=40)
    assert await settle(store, three, "failed", status=None, error="timeout", duration_ms=5_000)
    assert await results(store) == AttemptStats(1, {bucket(40): 2, bucket(5_000): 1})


async def test_settle_counts_attempts_of_all_processes_together(
    store: Store, replica: Replica
) -> None:
    await create(store, 4)
    other = replica()
    mine, theirs = await claimed(store, 2), await claimed(other, 2)
    await asyncio.gather(deliver(store, mine), deliver(other, theirs))
    assert await results(store) == await results(other) == AttemptStats(4, {bucket(5): 4})


async def test_settle_counts_attempts_of_several_destinations_in_one_call_separately(
    store: Store,
) -> None:
    await create(store, 2)
    await create(store, 3, THERE, "there")
    await deliver(store, await claimed(store))
    assert (await results(store)).delivered == 2
    assert (await results(store, THERE)).delivered == 3


async def test_settle_does_not_count_a_repeated_outcome_again(store: Store) -> None:
    await create(store, 1)
    (message,) = await claimed(store)
    assert await settle(store, message, "retry")
    assert not await settle(store, message, "retry")
    assert (await results(store)).attempts == 1


async def test_settle_does_not_count_an_attempt_that_the_service_cut_off(store: Store) -> None:
    await create(store, 1)
    (message,) = await claimed(store)
    assert await settle(store, message, "retry", status=None, error="shutdown")
    with pytest.raises(DestinationNotFound):
        await results(store)


async def test_get_destination_counts_attempts_of_this_hour_and_the_hour_before(
    store: Store, clock: Clock
) -> None:
    await create(store, 3)
    one, two, three = await claimed(store)
    await deliver(store, [one])
    await clock.advance(HOUR)
    await deliver(store, [two])
    assert (await results(store)).delivered == 2
    await clock.advance(HOUR)
    assert (await results(store)).delivered == 1
    await deliver(store, [three])
    assert (await results(store)).delivered == 2
    await clock.advance(2 * HOUR)
    with pytest.raises(DestinationNotFound):
        await results(store)


async def test_purge_forgets_old_results_of_attempts(
    redis: Redis, store: Store, clock: Clock
) -> None:
    kept = f"{store.keys[0].base}even"
    await create(store, 1)
    await deliver(store, await claimed(store))
    await clock.advance(HOUR)
    await store.queues[0].purge()
    assert await redis.exists(kept)
    await clock.advance(HOUR)
    await store.queues[0].purge()
    assert not await redis.exists(kept)


async def test_get_destination_adds_the_attempts_of_all_partitions(
    redis: Redis, prefix: str
) -> None:
    divided = Store(redis, prefix=prefix, partitions=3)
    await create(divided, 30)
    for queue in divided.queues:
        messages = (await queue.claim(CLAIM_BATCH)).messages
        assert all(await asyncio.gather(*(queue.settle(outcome(it)) for it in messages)))
    assert await results(divided) == AttemptStats(30, {bucket(5): 30})


# Twice is once


@pytest.mark.parametrize("limits", [Limits(2, Rate(10, "s")), Limits(paused=True), None])
async def test_set_limit_again_changes_nothing(
    redis: Redis, store: Store, limits: Limits | None
) -> None:
    await store.destinations.set_limit(HERE, Limits(concurrency=1))
    await create(store, 3)
    await claimed(store)
    await store.destinations.set_limit(HERE, limits)
    before = await everything(redis, store.keys[0])
    if limits:
        await store.destinations.set_limit(HERE, limits)
    assert await everything(redis, store.keys[0]) == before
