"""The way out, on real sockets of this machine: what is dialled, and how often it is sent."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from scheduler_api.delivery.http.egress import EgressReport, GuardedConnector
from scheduler_api.delivery.http.resolver import Resolver
from scheduler_api.domain.egress import EgressRules
from tests.support.dropping_server import dropping


@asynccontextmanager
async def session(allow: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=GuardedConnector(EgressRules.parse(allow))
    ) as client:
        yield client


async def send(client: aiohttp.ClientSession, url: str, method: str = "POST") -> int:
    body = None if method == "GET" else b"body"
    async with client.request(method, url, data=body) as response:
        return response.status


Names = Callable[[dict[str, list[str]]], None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Sets which addresses names have; no name is asked for outside of this process."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host: bytes, port: int, *_: object, **__: object) -> list[object]:
        if host.decode() not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [_info(address, port) for address in known[host.decode()]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known.update


def _info(address: str, port: int) -> object:
    kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    bare, _, zone = address.partition("%")
    if ":" in address:
        return (socket.AF_INET6, *kind, (bare, port, 0, int(zone or 0)))
    return (socket.AF_INET, *kind, (address, port))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every socket that is asked for; none is made, so nothing can be dialled."""
    asked: list[object] = []

    class Refusing(socket.socket):
        def __init__(self, *args: Any) -> None:
            if args[:1] == (socket.AF_UNIX,):  # the loop wakes itself by a pair of these
                super().__init__(*args)
                return
            asked.append(args)
            raise OSError("no network in this test")

        def __del__(self) -> None:
            """Nothing to close."""

    monkeypatch.setattr(socket, "socket", Refusing)
    return asked


async def test_an_address_that_a_rule_opens_is_dialled() -> None:
    async with dropping() as here, session("127.0.0.1") as client:
        with EgressReport("127.0.0.1") as report:
            assert await send(client, f"http://127.0.0.1:{here.port}/") == 200
    assert report.refusal is None
    assert report.allowed


@pytest.mark.parametrize(
    ("url", "host", "what"),
    [
        ("http://127.0.0.1:9/", "127.0.0.1", "127.0.0.1 is a loopback address"),
        ("http://[::1]:9/", "::1", "::1 is a loopback address"),
        ("http://[::ffff:10.0.0.5]/", "::ffff:a00:5", "in a private range"),
        ("http://169.254.169.254/", "169.254.169.254", "metadata"),
        ("https://10.0.0.5/", "10.0.0.5", "10.0.0.5 is in a private range"),
    ],
)
async def test_a_literal_that_is_not_open_makes_no_socket(
    url: str, host: str, what: str, opened: list[object]
) -> None:
    async with session("") as client:
        with EgressReport(host) as report, pytest.raises(aiohttp.ClientConnectorError):
            await send(client, url)
    assert what in str(report.refusal)
    assert not report.allowed
    assert opened == []


@pytest.mark.parametrize(
    "addresses", [["10.0.0.5"], ["10.0.0.5", "fd00::1"], ["fe80::1%1"], ["10.0.0.5", "127.0.0.1"]]
)
async def test_a_name_of_closed_addresses_makes_no_socket_and_the_first_reason_is_kept(
    addresses: list[str], names: Names, opened: list[object]
) -> None:
    names({"n8n": addresses})
    async with session("") as client:
        with EgressReport("n8n") as report, pytest.raises(aiohttp.ClientConnectorError):
            await send(client, "http://n8n/")
    assert str(report.refusal).startswith(f"n8n resolves to {addresses[0].partition('%')[0]}")
    assert opened == []


async def test_an_open_address_that_cannot_be_reached_is_no_refusal(
    names: Names, opened: list[object]
) -> None:
    names({"both.example": ["2606:4700::1", "10.0.0.5"], "other": ["10.0.0.5", "2606:4700::1"]})
    async with session("") as client:
        for host in ("both.example", "other"):
            with EgressReport(host) as report, pytest.raises(aiohttp.ClientConnectorError):
                await send(client, f"http://{host}/")
            assert report.refusal is None
            assert report.allowed
    assert {info[0] for info in opened if isinstance(info, tuple)} == {socket.AF_INET6}


@pytest.mark.parametrize("addresses", [["127.0.0.1", "10.0.0.5"], ["10.0.0.5", "127.0.0.1"]])
async def test_beside_a_closed_address_an_open_one_is_dialled(
    addresses: list[str], names: Names
) -> None:
    names({"n8n": addresses})
    async with dropping() as here, session("127.0.0.1") as client:
        with EgressReport("n8n") as report:
            assert await send(client, f"http://n8n:{here.port}/") == 200
    assert report.refusal is None


async def test_a_rule_for_a_host_opens_the_address_for_that_name_only(names: Names) -> None:
    names({"n8n": ["127.0.0.1"], "evil": ["127.0.0.1"]})
    async with dropping() as here, session("n8n") as client:
        with EgressReport("n8n"):
            assert await send(client, f"http://n8n:{here.port}/") == 200
        with EgressReport("evil") as report, pytest.raises(aiohttp.ClientConnectorError):
            await send(client, f"http://evil:{here.port}/")
        assert "evil resolves to 127.0.0.1" in str(report.refusal)
    assert len(here.requests) == 1


async def test_without_guarding_no_rule_for_a_host_applies(names: Names) -> None:
    names({"n8n": ["127.0.0.1"]})
    async with dropping() as here, session("n8n") as client:
        with pytest.raises(aiohttp.ClientConnectorError, match="is a loopback address"):
            await send(client, f"http://n8n:{here.port}/")
    assert here.requests == []


async def test_attempts_at_the_same_time_each_have_their_own_verdict(names: Names) -> None:
    names({"n8n": ["127.0.0.1"], "evil": ["127.0.0.1", "fd00::1"]})
    async with dropping() as here, session("n8n") as client:

        async def attempt(host: str) -> str | None:
            with EgressReport(host) as report:
                try:
                    await send(client, f"http://{host}:{here.port}/")
                except aiohttp.ClientConnectorError:
                    assert report.refusal
            return report.refusal

        refusals = await asyncio.gather(*map(attempt, ["n8n", "evil"] * 20))
    assert refusals[::2] == [None] * 20
    assert all("evil" in str(refusal) for refusal in refusals[1::2])


async def test_a_name_that_does_not_resolve_is_a_dns_error_and_no_refusal(names: Names) -> None:
    names({})
    async with session("") as client:
        with EgressReport("gone") as report, pytest.raises(aiohttp.ClientConnectorDNSError):
            await send(client, "http://gone/")
    assert report.refusal is None


async def test_addresses_come_as_aiohttp_expects_them_with_the_zone_of_a_link(names: Names) -> None:
    names({"h": ["192.0.2.1", "2001:db8::1", "fe80::1%7"]})
    resolver = Resolver()
    found = await resolver.resolve("h", 80)
    await resolver.close()
    assert [(one["host"], one["port"], one["family"]) for one in found] == [
        ("192.0.2.1", 80, socket.AF_INET),
        ("2001:db8::1", 80, socket.AF_INET6),
        ("fe80::1%7", 80, socket.AF_INET6),
    ]
    assert {one["hostname"] for one in found} == {"h"}


async def test_localhost_is_resolved_by_the_system() -> None:
    async with dropping() as here, session("localhost") as client:
        with EgressReport("localhost"):
            assert await send(client, f"http://localhost:{here.port}/") == 200


async def test_forty_slow_names_do_not_hold_up_a_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    threads: set[str] = set()

    def getaddrinfo(host: bytes, port: int, *_: object, **__: object) -> list[object]:
        threads.add(threading.current_thread().name)
        if host.startswith(b"slow"):
            answered.wait(30)
        return [_info("127.0.0.1", port)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = Resolver()
    slow = [asyncio.create_task(resolver.resolve(f"slow{n}", 80)) for n in range(40)]
    good = await resolver.resolve("good", 80)
    assert good[0]["host"] == "127.0.0.1"
    assert not any(task.done() for task in slow)
    answered.set()
    await asyncio.gather(*slow)
    await resolver.close()
    assert all(name.startswith("resolver_") for name in threads)


async def test_closing_the_connector_ends_the_threads_of_its_resolver(names: Names) -> None:
    names({"n8n": ["127.0.0.1"]})
    before = set(threading.enumerate())
    async with dropping() as here, session("n8n") as client:
        with EgressReport("n8n"):
            await send(client, f"http://n8n:{here.port}/")
        started = set(threading.enumerate()) - before
        assert started
    for thread in started:
        thread.join(5)
        assert not thread.is_alive()
