"""Get returns everything known of one message, in every place."""

from datetime import timedelta

import pytest

from scheduler_api.domain.destination import Hold
from scheduler_api.domain.errors import MessageNotFound
from scheduler_api.domain.message import Message
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.store import Store
from tests.conftest import NOW
from tests.support.factories import accepted
from tests.support.message_states import RETRY_AFTER, attempt, bring, outcome
from tests.support.store_clock import Clock

SENT = [attempt()]


@pytest.mark.parametrize(
    ("state", "next_attempt", "attempts"),
    [
        ("scheduled", timedelta(), []),
        ("delivering", None, []),
        ("retrying", RETRY_AFTER, SENT),
        ("delivered", None, SENT),
        ("failed", None, SENT),
    ],
)
async def test_get_returns_a_message_in_each_state(
    store: Store, state: str, next_attempt: timedelta | None, attempts: list[object]
) -> None:
    await bring(store, state)
    found = await store.messages.get("a")
    assert found.state == state
    assert found.hold is None
    at = None if next_attempt is None else from_ms(NOW) + next_attempt
    assert found.next_attempt_at == at
    assert (found.attempts, found.attempts_made) == (attempts, len(attempts))


async def test_get_returns_a_parked_message_as_scheduled_with_its_hold(store: Store) -> None:
    await bring(store, "parked")
    found = await store.messages.get("a")
    assert (found.state, found.hold) == ("scheduled", Hold("full", None))
    assert found.next_attempt_at == from_ms(NOW)


async def test_get_returns_every_field_of_the_request(store: Store) -> None:
    asked = accepted(payload={"é": 1.50}, method="PUT", headers={"X-Key": "v"}, delay="1m")
    await store.messages.create("é {0}: 😀", asked)
    assert await store.messages.get("é {0}: 😀") == Message(
        id="é {0}: 😀",
        url=asked.url.url,
        spec=asked.spec,
        state="scheduled",
        hold=None,
        created_at=from_ms(NOW),
        scheduled_at=from_ms(NOW + 60_000),
        next_attempt_at=from_ms(NOW + 60_000),
        attempts=[],
        attempts_made=0,
        crashes=0,
    )


async def test_get_returns_the_scheduled_instant_unchanged_by_a_retry(store: Store) -> None:
    await bring(store, "retrying")
    assert (await store.messages.get("a")).scheduled_at == from_ms(NOW)


async def test_get_returns_attempts_oldest_first(store: Store, clock: Clock) -> None:
    await bring(store, "retrying")
    await clock.advance(60_000)
    claim = await store.queues[0].claim(1)
    await store.queues[0].settle(outcome(claim.messages[0]))
    assert [each.number for each in (await store.messages.get("a")).attempts] == [1, 2]


async def test_get_of_an_unknown_id_is_not_found(store: Store) -> None:
    await bring(store, "scheduled", "b")
    with pytest.raises(MessageNotFound, match="'a'"):
        await store.messages.get("a")
