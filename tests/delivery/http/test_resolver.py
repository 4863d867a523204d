"""Lookups share threads: silent name servers delay neither other names nor the exit."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler_api.delivery.http import resolver as module
from scheduler_api.delivery.http.resolver import MAX_THREADS, Kind, LookupQueueFull, Resolver
from scheduler_api.delivery.http.sender import Sender
from scheduler_api.store.store import Store
from tests.delivery.conftest import Start
from tests.support.factories import accepted
from tests.support.receiver import Receiver
from tests.support.silent_hosts import answer_names
from tests.support.waiting import wait_until

SILENT = 80  # names


class NameServer:
    """Answers at once, except for names that begin with `silent`, until `hangs` is set."""

    def __init__(self) -> None:
        self.hangs = threading.Event()  # set: it answers
        self.asked: list[str] = []

    def answer(self, name: str) -> list[str]:
        self.asked.append(name)
        if name.startswith("silent"):
            self.hangs.wait(60)
        if name.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ["127.0.0.1"]

    def silent(self) -> int:
        """How many silent names it was asked for."""
        return sum(name.startswith("silent") for name in self.asked)


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    answer_names(monkeypatch, server.answer)
    yield server
    server.hangs.set()


@pytest.fixture
async def resolver(name_server: NameServer) -> Resolver:
    assert not name_server.asked
    return Resolver()


Hang = Callable[[int], list[asyncio.Task[object]]]


def hang(resolver: Resolver, count: int, first: int = 0) -> "list[asyncio.Task[object]]":
    """Start lookups of so many silent names."""
    return [
        asyncio.create_task(resolver.resolve(f"silent{number}.example"))
        for number in range(first, first + count)
    ]


async def end(name_server: NameServer, tasks: "list[asyncio.Task[object]]") -> None:
    name_server.hangs.set()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("name", ["localhost", "api.localhost", "known.example", "unknown.example"])
async def test_resolve_of_silent_names_does_not_delay_local_or_known_names(
    resolver: Resolver, name_server: NameServer, name: str
) -> None:
    await asyncio.gather(
        *(resolver.resolve(f"{one}.example") for one in ("known", "unknown")),
        return_exceptions=True,
    )
    tasks = hang(resolver, SILENT)
    await wait_until(
        "all threads for new names", lambda: name_server.silent() == MAX_THREADS[Kind.NEW]
    )
    async with asyncio.timeout(2):
        await asyncio.gather(resolver.resolve(name), return_exceptions=True)
    assert name_server.asked[-1] == name
    assert name_server.silent() == MAX_THREADS[Kind.NEW]
    await end(name_server, tasks)
    await resolver.close()


async def test_resolve_prefers_names_of_the_hosts_file(
    resolver: Resolver,
    name_server: NameServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# comment\n127.0.0.1 one n8n.local  # the same\n::1 N8N\n")
    monkeypatch.setattr(module, "HOSTS_FILE", str(hosts))
    tasks = hang(resolver, SILENT)
    await wait_until(
        "all threads for new names", lambda: name_server.silent() == MAX_THREADS[Kind.NEW]
    )
    async with asyncio.timeout(2):
        for name in ("one", "n8n.local", "n8n"):
            await resolver.resolve(name)
    hosts.unlink()
    async with asyncio.timeout(2):
        await resolver.resolve("one")
    await end(name_server, tasks)
    await resolver.close()


async def test_resolve_raises_lookup_queue_full_if_no_thread_is_free(
    resolver: Resolver, name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_TIMEOUT", 0.2)
    tasks = hang(resolver, MAX_THREADS[Kind.NEW])
    await wait_until("no free thread", lambda: name_server.silent() == MAX_THREADS[Kind.NEW])
    late = asyncio.create_task(resolver.resolve("new.example"))
    await wait_until("a waiting lookup", lambda: resolver.waits("new.example"))
    with pytest.raises(LookupQueueFull):
        await late
    assert not resolver.waits("new.example")
    assert "new.example" not in name_server.asked
    await end(name_server, tasks)
    await resolver.close()


async def test_resolve_that_was_cancelled_takes_no_thread(
    resolver: Resolver, name_server: NameServer
) -> None:
    tasks = hang(resolver, MAX_THREADS[Kind.NEW])
    await wait_until("no free thread", lambda: name_server.silent() == MAX_THREADS[Kind.NEW])
    left, stays = (asyncio.create_task(resolver.resolve(f"{name}.example")) for name in "ab")
    await wait_until("two waiting lookups", lambda: resolver.waits("b.example"))
    left.cancel()
    await end(name_server, tasks)
    await stays
    assert "a.example" not in name_server.asked
    await resolver.close()


async def test_resolve_that_is_cancelled_as_a_thread_becomes_free_is_skipped(
    resolver: Resolver, name_server: NameServer
) -> None:
    tasks = hang(resolver, MAX_THREADS[Kind.NEW])
    await wait_until("no free thread", lambda: name_server.silent() == MAX_THREADS[Kind.NEW])
    left = asyncio.create_task(resolver.resolve("a.example"))
    await wait_until("a waiting lookup", lambda: resolver.waits("a.example"))
    resolver._waiting[Kind.NEW][0].began.cancel()  # as the cancellation of its task does
    resolver._busy[Kind.NEW] -= 1
    resolver._begin()
    resolver._busy[Kind.NEW] += 1
    with pytest.raises(asyncio.CancelledError):
        await left
    await end(name_server, tasks)
    assert "a.example" not in name_server.asked
    await resolver.close()


async def test_resolve_uses_fewer_threads_for_slow_names(
    resolver: Resolver, name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESOLVE_TIMEOUT", 0.1)
    tasks = hang(resolver, 20)
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, socket.gaierror)
    name_server.hangs.set()
    await wait_until("free threads", lambda: sum(resolver._busy.values()) == 0)
    name_server.hangs.clear()
    name_server.asked.clear()
    monkeypatch.setattr(module, "QUICK_LOOKUP", -1)  # the names that were just answered are slow
    tasks = hang(resolver, 40, first=100)
    await wait_until("lookups of new names", lambda: name_server.silent() == 40)
    await end(name_server, tasks)
    name_server.hangs.clear()
    name_server.asked.clear()
    tasks = hang(resolver, 40, first=100)
    await wait_until(
        "lookups of slow names", lambda: name_server.silent() == MAX_THREADS[Kind.SLOW]
    )
    await resolver.resolve("new.example")
    assert name_server.silent() == MAX_THREADS[Kind.SLOW]
    await end(name_server, tasks)
    await resolver.close()


async def test_resolve_remembers_at_most_max_names(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    for name in ("a.example", "b.example", "c.example"):
        await resolver.resolve(name)
    kinds = [resolver._kind(name) for name in ("a.example", "b.example", "c.example")]
    assert kinds == [Kind.NEW, Kind.QUICK, Kind.QUICK]
    await resolver.close()


async def test_resolve_drops_an_answer_after_the_end_of_the_loop(name_server: NameServer) -> None:
    def abandoned() -> None:
        async def leave() -> None:
            task = asyncio.create_task(Resolver().resolve("silent.example"))
            await wait_until("the lookup", lambda: "silent.example" in name_server.asked)
            task.cancel()

        asyncio.run(leave())

    before = set(threading.enumerate())
    await asyncio.to_thread(abandoned)
    [stuck] = [
        thread for thread in set(threading.enumerate()) - before if "resolver" in thread.name
    ]
    assert stuck.daemon
    name_server.hangs.set()


@pytest.mark.parametrize("timeout", ["1s", "30s"])
async def test_dispatcher_counts_no_attempt_for_a_postponed_lookup(
    start: Start,
    live_store: Store,
    receiver: Receiver,
    name_server: NameServer,
    monkeypatch: pytest.MonkeyPatch,
    timeout: str,
) -> None:
    monkeypatch.setattr(module, "QUEUE_TIMEOUT", 2.0)
    await start(slots=256)
    for number in range(SILENT):
        url = f"http://silent{number}.example/"
        await live_store.messages.create(f"m{number}", accepted(webhookUrl=url, timeout=timeout))
    await wait_until(
        "all threads for new names", lambda: name_server.silent() == MAX_THREADS[Kind.NEW]
    )
    url = receiver.url.replace("127.0.0.1", "localhost")
    await live_store.messages.create("local", accepted(webhookUrl=url))
    await wait_until("the other message", lambda: receiver.ids() == ["local"])

    async def one_was_postponed() -> bool:
        found = [await live_store.messages.get(f"m{number}") for number in range(SILENT)]
        never = [one for one in found if f"{one.id}.example" not in tried()]
        assert all(one.attempts_made == 0 for one in never)
        return any(name == "lookup_postponed" for name in events)

    events: list[str] = []
    monkeypatch.setattr(
        "scheduler_api.delivery.dispatcher.log",
        _Log(events),
    )

    def tried() -> set[str]:
        return {name.replace("silent", "m") for name in name_server.asked}

    await wait_until("a postponed lookup", one_was_postponed)
    message = await live_store.messages.get("local")
    assert message.attempts[0].lateness_ms < 2_000
    name_server.hangs.set()


class _Log:
    """Collects the names of events."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda event, **_facts: self.events.append(event)


async def test_waits_for_lookup_is_false_for_a_name_without_lookup(sender: Sender) -> None:
    assert not sender._transport.waits_for_lookup("never.example")
