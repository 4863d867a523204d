"""Claim, settle, release, renew, reap: state before, one call, state after."""

from scheduler_api.store.store import Store
from tests.support.clock import Clock
from tests.support.factories import accepted


async def test_claim_returns_what_is_due(store: Store, clock: Clock) -> None:
    await store.messages.create("a", accepted(delay="1s"))
    assert (await store.queue.claim(10)).messages == []
    await clock.advance(1000)
    claim = await store.queue.claim(10)
    assert [claimed.id for claimed in claim.messages] == ["a"]
