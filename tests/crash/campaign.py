"""One campaign: load, kills at every step, healing, draining, judgement."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from scheduler_api.store.keys import Keys
from tests.crash.fleet import (
    CONCURRENCY,
    PARTITIONS,
    PREFIX,
    Fleet,
    Replica,
    embedded_fleet,
    external_fleet,
)
from tests.crash.history import History, Kill, Verdict, judge
from tests.crash.load import Hook, Load, Sink
from tests.support.command_line import Done
from tests.support.fault_proxy import Step
from tests.support.waiting import wait_until

World = Literal["external", "embedded"]
Act = Callable[[], Awaitable[None]]

REPLICAS: Final = 2
LEASE: Final = 3.0  # seconds
AFTER_LEASE: Final = 2.0  # seconds that a message may be late after healing, beyond a lease
EACH_OTHER: Final = 5  # kills of replicas for each freeze and each SIGTERM
TRAFFIC: Final = 20  # requests between two kills
PATIENCE: Final = 30.0  # seconds that a busy machine may take

# Where a process is killed: before the store gets the command, or before the reply gets back.
# "late": the store runs the command after the process has died.
STEPS: Final[tuple[tuple[str, Step, str], ...]] = (
    ("claim", "command", "never"),
    ("claim", "command", "late"),
    ("claim", "reply", "never"),
    ("settle", "command", "never"),
    ("settle", "command", "late"),
    ("settle", "reply", "never"),
    ("create", "command", "never"),
    ("create", "reply", "never"),
)


class Report(msgspec.Struct):
    """The result of one campaign."""

    world: World
    seed: int
    replica_kills: int
    store_kills: int
    freezes: int  # SIGSTOP for longer than the leases
    terms: int  # SIGTERM under load
    unknown: int  # creates without an answer
    deleted: int
    verdict: Verdict
    fsck: str  # last line of fsck at the end
    wrong: list[str]  # findings of fsck, and ids that were not settled
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether every promise was kept."""
        on_time = self.verdict.late_s <= LEASE + AFTER_LEASE
        return self.verdict.sound and on_time and not self.wrong


class Campaign:
    """Kills, freezes and ends replicas and stores of a fleet, as a seed says."""

    def __init__(self, fleet: Fleet, sink: Sink, history: History, seed: int) -> None:
        self._fleet = fleet
        self._sink = sink
        self._history = history
        self._random = random.Random(seed)  # noqa: S311
        self.freezes = 0
        self.terms = 0

    def acts(self, replica_kills: int, store_kills: int) -> list[Act]:
        """All acts in the seed's order; each kind of kill comes once before any comes twice."""
        kinds: list[Act] = [self._kill_at_random, self._kill_as_one_came, self._kill_as_one_ended]
        if self._fleet.replicas[0].proxy:
            kinds += [self._at(step) for step in STEPS]
        else:
            kinds.append(self._kill_owner)
        self._random.shuffle(kinds)
        acts = [kinds[number % len(kinds)] for number in range(replica_kills)]
        acts += [self._kill_store] * store_kills
        acts += [self._freeze, self._term] * (replica_kills // EACH_OTHER)
        self._random.shuffle(acts)
        return acts

    async def run(self, acts: list[Act]) -> None:
        """Run the acts one after the other, with traffic between them."""
        for act in acts:
            await act()
            await self._traffic(len(self._history.arrivals) + TRAFFIC)

    async def _traffic(self, wanted: int) -> None:
        await wait_until("traffic", lambda: len(self._history.arrivals) > wanted, 2 * PATIENCE)

    def _one(self) -> Replica:
        return self._random.choice(self._fleet.replicas)

    async def _start_again(self, replica: Replica, kill: Kill) -> None:
        self._history.kills.append(kill)
        await replica.ended()
        await replica.start()

    async def _kill_at_random(self) -> None:
        replica = self._one()
        await self._start_again(replica, await self._fleet.kill(replica, "at random"))

    async def _kill_owner(self) -> None:
        """Kill the owner of the embedded store, which ends with it; the other replica starts it."""
        replica = self._fleet.owner()
        await self._start_again(replica, await self._fleet.kill(replica, "with the store"))

    async def _kill_store(self) -> None:
        self._history.kills.append(await self._fleet.kill_store())

    async def _kill_as_one_came(self) -> None:
        await self._kill_by_sink("as a request came")

    async def _kill_as_one_ended(self) -> None:
        await self._kill_by_sink("as a request was answered")

    async def _kill_by_sink(self, what: str) -> None:
        """Kill the sender of the next request, when it arrives or after it was answered."""
        killed: asyncio.Future[tuple[Replica, Kill]] = asyncio.Future()

        async def strike(message_id: str) -> None:
            self._sink.came = self._sink.answered = None
            replica = await self._fleet.holder(message_id) or self._one()
            killed.set_result((replica, await self._fleet.kill(replica, what)))

        hook: Hook = strike
        if what == "as a request came":
            self._sink.came = hook
        else:
            self._sink.answered = hook
        async with asyncio.timeout(PATIENCE):
            await self._start_again(*await killed)

    def _at(self, step: tuple[str, Step, str]) -> Act:
        script, side, forwarded = step

        async def act() -> None:
            replica = self._one()
            what = f"{script}, {side} {forwarded}"
            strike = self._fleet.kill
            kill = await self._strike_at(replica, script, side, strike, what, forwarded == "late")
            await self._start_again(replica, kill)

        return act

    async def _strike_at(
        self,
        replica: Replica,
        script: str,
        side: Step,
        strike: Callable[[Replica, str], Awaitable[Kill]],
        what: str,
        forwards: bool,
    ) -> Kill:
        """Call `strike` when the script's command, or its reply, has reached the proxy."""
        struck: asyncio.Future[Kill] = asyncio.Future()
        armed = True

        async def watch(seen: Step, name: str) -> None:
            nonlocal armed
            if armed and (name, seen) == (script, side):
                armed = False
                struck.set_result(await strike(replica, what))
                if not forwards:
                    await (
                        asyncio.Event().wait()
                    )  # forward nothing until the proxy drops the connection

        assert replica.proxy
        replica.proxy.watch = watch
        async with asyncio.timeout(PATIENCE):
            return await struck

    async def _freeze(self) -> None:
        """Suspend a process that just got claims, until others have taken them over."""
        replica, stop = self._one(), self._fleet.stop
        if replica.proxy:
            kill = await self._strike_at(replica, "claim", "reply", stop, "frozen", True)
        else:
            kill = await stop(replica, "frozen")
        self._history.kills.append(kill)
        over = time.monotonic() + LEASE + 1
        await wait_until("the end of its leases", lambda: time.monotonic() > over)
        replica.server.send_signal(signal.SIGCONT)
        self.freezes += 1

    async def _term(self) -> None:
        """SIGTERM under load: open requests end, so nothing may arrive twice."""
        replica = self._one()
        replica.server.send_signal(signal.SIGTERM)
        assert await replica.ended() == 0
        await replica.start()
        self.terms += 1


FLEETS: Final[dict[World, Callable[[Path, int, float], AbstractAsyncContextManager[Fleet]]]] = {
    "external": external_fleet,
    "embedded": embedded_fleet,
}


async def campaign(
    folder: Path, world: World, *, replica_kills: int, store_kills: int, seed: int
) -> Report:
    """Run one campaign → its report."""
    began, history = time.monotonic(), History()
    sink = Sink(history, random.Random(seed))  # noqa: S311
    async with (
        sink.receiving() as receiver,
        FLEETS[world](folder, REPLICAS, LEASE) as fleet,
    ):
        acting = Campaign(fleet, sink, history, seed)
        async with Load(fleet, history, seed, receiver.url).running():
            await acting.run(acting.acts(replica_kills, store_kills))
        healed_at = time.time()
        await wait_until("nothing pending", lambda: _nothing_pending(fleet), 2 * PATIENCE)
        fsck = await fleet.fsck()
        wrong = await _wrong(fleet, history)
    return Report(
        world=world,
        seed=seed,
        replica_kills=replica_kills,
        store_kills=store_kills,
        freezes=acting.freezes,
        terms=acting.terms,
        unknown=sum(offer.outcome == "unknown" for offer in history.offers.values()),
        deleted=len(history.deleted_at),
        verdict=judge(history, healed_at, PARTITIONS * CONCURRENCY),
        fsck=fsck.stdout.decode().splitlines()[-1],
        wrong=[*_found_by(fsck), *wrong],
        seconds=round(time.monotonic() - began, 1),
    )


async def _nothing_pending(fleet: Fleet) -> bool:
    _, page, _ = await fleet.replicas[0].server.ask("GET", "/messages?limit=1")
    return page.get("total") == 0


def _found_by(fsck: Done) -> list[str]:
    lines = [*fsck.stdout.decode().splitlines(), *fsck.stderr.decode().splitlines()]
    return lines if fsck.returncode else []


async def _wrong(fleet: Fleet, history: History) -> list[str]:
    """Messages that were acknowledged and are not stored as delivered."""
    found, delivered = [], set[str]()
    for partition in range(PARTITIONS):
        kept: Any = await fleet.redis.zrange(f"{Keys(PREFIX, partition).base}delivered", 0, -1)
        delivered |= {it.decode() for it in kept}
    for message_id, offer in history.offers.items():
        gone = message_id in history.deleted_at or message_id in history.maybe_deleted
        if offer.outcome == "ok" and not gone and message_id not in delivered:
            _, shown, _ = await fleet.replicas[0].server.ask("GET", f"/messages/{message_id}")
            came = [it for it in history.arrivals if it.id == message_id]
            struck = [it.what for it in history.kills if message_id in it.in_flight]
            found.append(f"{message_id} was acknowledged; now {shown}; {came}; in flight {struck}")
    return found
