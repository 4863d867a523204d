"""What lies between a process and the store: delays, lost replies, cuts, notifications."""

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Disconnected

from scheduler_api.store.connection.notifier import Notifier
from tests.sim.dispatcher.virtual_loop import Process
from tests.sim.model import Server, at_once, name_of_text

if TYPE_CHECKING:
    from tests.sim.dispatcher.world import SimProcess

MAX_DELAY: Final = 0.02  # seconds, each way
NEVER: Final = -math.inf
TIMEOUT: Final = 2.0  # seconds after which a call of a store that is cut off fails


class Link:
    """One process's connection, where redis-py's client stands."""

    def __init__(
        self, server: Server, process: "SimProcess", rng: random.Random, reply_loss: float
    ) -> None:
        """`reply_loss`: share of the calls whose reply is lost."""
        self._server = server
        self._process = process
        self._rng = rng
        self.reply_loss = reply_loss
        self.cut_until = 0.0  # monotonic seconds
        self.disturbed_at = NEVER  # monotonic seconds, when a call may last have failed
        self.calls = 0  # under way
        self.lost_claims = set[bytes]()  # a key of each partition whose last claim has no reply
        self.at_claim: Callable[[], Any] | None = None  # what happens when a claim has run

    @property
    def client(self) -> Redis:
        """What redis-py's client is to the product."""
        return cast("Redis", self)

    async def evalsha(self, sha: str, keys: int, *given: Any) -> Any:
        """As redis-py's."""
        run = partial(self._server.evalsha, sha, keys, *given)
        return await self._call(run, given[0], self._server.name_of(sha), given[keys:])

    async def eval(self, text: str, keys: int, *given: Any) -> Any:
        """As redis-py's."""
        run = partial(self._server.eval, text, keys, *given)
        return await self._call(run, given[0], name_of_text(text), given[keys:])

    async def _call(
        self,
        run: Callable[[], Coroutine[Any, Any, Any]],
        key: bytes,
        script: str | None,
        args: Sequence[Any],
    ) -> Any:
        self.calls += 1
        if script == "release":
            self._process.world.judge.queued.released(self._process, args[2::3])
        try:
            return await self._answered(run, key, is_claim=script == "claim")
        finally:
            self.calls -= 1

    async def _answered(
        self, run: Callable[[], Coroutine[Any, Any, Any]], key: bytes, *, is_claim: bool
    ) -> Any:
        await self._travel()
        self._process.world.show_clock()
        reply = at_once(run())
        if is_claim:
            self.lost_claims.add(key)
            self._strike()
        lost = self._rng.random() < self.reply_loss
        await self._travel()
        if lost:
            self.disturb()
            if is_claim:
                self._process.world.judge.claim_lost(reply)
            raise Disconnected("the reply was lost")
        if is_claim:
            self.lost_claims.discard(key)
            self._process.world.judge.queued.claimed(self._process, key, reply)
        return reply

    @property
    def disturbed(self) -> bool:
        """Whether a call may have failed."""
        return self.disturbed_at > NEVER

    def disturb(self, seconds: float = 0.0) -> None:
        """A call may fail, within so many seconds or until its cut is over."""
        self.disturbed_at = max(self._process.loop.time() + seconds, self.cut_until)

    @property
    def cut(self) -> bool:
        """Whether the process does not reach the store."""
        return bool(self._process.loop.time() < self.cut_until)

    def _strike(self) -> None:
        """Let happen what is to happen between a claim and its reply."""
        if self.at_claim:
            strike, self.at_claim = self.at_claim, None
            strike()

    async def _travel(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.0, MAX_DELAY))
        if self.cut:
            await asyncio.sleep(TIMEOUT)
            raise Disconnected("the store is cut off")


class Channel(Notifier):
    """The product's Notifier, subscribed to the modelled store; some notifications are lost."""

    def __init__(self, process: Process, partitions: int, rng: random.Random, loss: float) -> None:
        super().__init__(cast("Redis", None), [str(number) for number in range(partitions)])
        self._process = process
        self._rng = rng
        self.loss = loss  # share of the notifications that are lost

    async def listen(self, listener: Callable[[int], None]) -> None:
        """As the product's, but for its subscription."""
        self._listener = listener
        await asyncio.Event().wait()

    def publish(self, partition: int) -> None:
        """The store publishes."""
        if self._rng.random() < self.loss or self._process.dead:
            return
        loop, delay = self._process.loop, self._rng.uniform(0.0, MAX_DELAY)
        loop.call_later(delay, self.notify, partition, context=self._process.context)
