"""F46: 5,000 messages for a receiver that is down for an hour, in virtual time."""

import random
from collections import Counter
from heapq import heappop, heappush

import pytest

from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.message import Accepted
from scheduler_api.domain.retry import Retry, decide
from scheduler_api.store.claims import Claimed, Outcome
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.messages import new_of
from scheduler_api.store.queue import CLAIM_BATCH
from tests.sim.model import at_once
from tests.sim.store_on_model import StoreOnModel
from tests.support.factories import accepted

START = 1_800_000_000_000  # ms
HOUR = 3_600_000  # ms
MESSAGES = 5_000
TICK = 250  # ms between two claims at least, so that each brings several messages
ANSWERED_AFTER = 2 * TICK
OTHERS_EVERY = 30_000  # ms between two messages for the receiver that is up
SLOTS = 256
CONCURRENCY = 64
BINS = 20  # into which a wave of retries is divided
DOWN, WELL = "127.0.0.1:2", "127.0.0.1:3"

Open = tuple[int, int, Claimed]  # when it is answered, its number, the message


class Hour:
    """One process, and the messages that it sends to both receivers."""

    def __init__(self) -> None:
        machine = StoreOnModel()
        self.server = machine.server
        data = machine.divided[1]
        [self.queue] = data.queues("worker_id", CONCURRENCY, keep=0)
        self.messages = data.messages(CONCURRENCY)
        self.rng = random.Random(46)  # noqa: S311
        self.starts: dict[int, list[int]] = {}  # attempt → ms of its starts, at DOWN
        self.lateness: list[int] = []  # ms, of messages to WELL
        self.delivered: Counter[str] = Counter()
        self._open: list[Open] = []
        self._sent = 0

    def create(self, messages: list[tuple[str, Accepted]]) -> None:
        """Create messages."""
        for start in range(0, len(messages), CLAIM_BATCH):
            batch = messages[start : start + CLAIM_BATCH]
            packed = [new_of(message_id.encode(), one) for message_id, one in batch]
            at_once(self.messages._create(0, packed))

    def run(self) -> None:
        """Claim, send and settle until no message is left."""
        now: int | None = START
        while now is not None:
            self.server.now_us = now * 1000
            self._settle(now)
            due_in = self._claim(now)
            waits = [at for at, _, _ in self._open[:1]]
            if due_in is not None:
                waits.append(now + -int(-due_in * 1000 // TICK) * TICK)
            now = min(waits, default=None)

    def _claim(self, now: int) -> float | None:
        """Seconds until the next message is due; None: no slot is free, or nothing waits."""
        while len(self._open) < SLOTS:
            claim = at_once(self.queue.claim(SLOTS - len(self._open)))
            for claimed in claim.messages:
                self._send(claimed, now)
            if claim.due_in != 0:
                return claim.due_in
        return None

    def _send(self, claimed: Claimed, now: int) -> None:
        if DOWN in claimed.url:
            self.starts.setdefault(claimed.attempts + 1, []).append(now)
        else:
            self.lateness.append(now - int(claimed.scheduled_at.timestamp() * 1000))
        self._sent += 1
        heappush(self._open, (now + ANSWERED_AFTER, self._sent, claimed))

    def _settle(self, now: int) -> None:
        outcomes = []
        while self._open and self._open[0][0] <= now:
            outcomes.append(self._outcome(heappop(self._open)[2], now))
        for start in range(0, len(outcomes), CLAIM_BATCH):
            assert all(at_once(self.queue._settle(outcomes[start : start + CLAIM_BATCH])))

    def _outcome(self, claimed: Claimed, now: int) -> Outcome:
        status = 503 if DOWN in claimed.url and now < START + HOUR else 200
        attempt = Attempt(claimed.attempts + 1, from_ms(now), ANSWERED_AFTER, status, None, None, 0)
        decision = decide(attempt.number, status, None, self.rng.uniform(-1, 1))
        if not isinstance(decision, Retry):
            self.delivered[DOWN if DOWN in claimed.url else WELL] += status == 200
        return Outcome(claimed, attempt, decision)


@pytest.fixture(scope="module")
def hour() -> Hour:
    hour = Hour()
    hour.server.now_us = START * 1000
    down = accepted(webhookUrl=f"http://{DOWN}/", delay="0s")
    hour.create([(f"down-{number}", down) for number in range(MESSAGES)])
    hour.create(
        [
            (f"well-{at}", accepted(webhookUrl=f"http://{WELL}/", delay=f"{at // 1000}s"))
            for at in range(OTHERS_EVERY, 3 * HOUR, OTHERS_EVERY)
        ]
    )
    hour.run()
    return hour


def test_backlog_is_delivered_when_the_receiver_is_back(hour: Hour) -> None:
    assert hour.delivered == {DOWN: MESSAGES, WELL: 3 * HOUR // OTHERS_EVERY - 1}
    assert [len(starts) for starts in hour.starts.values()] == [MESSAGES] * 7


@pytest.mark.parametrize("attempt", range(3, 8))
def test_retries_of_a_backlog_are_spread_by_jitter(hour: Hour, attempt: int) -> None:
    starts = hour.starts[attempt]
    first, last = min(starts), max(starts)
    counts = Counter((at - first) * BINS // (last - first + 1) for at in starts)
    assert max(counts.values()) <= 2 * MESSAGES / BINS


def test_backlog_delays_no_message_to_another_receiver(hour: Hour) -> None:
    assert max(hour.lateness) == 0
