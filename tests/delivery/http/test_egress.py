"""Addresses are checked before a socket is opened, on real sockets of this machine."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from scheduler_api.delivery.http.egress import EgressReport, GuardedConnector
from scheduler_api.delivery.http.resolver import Resolver
from scheduler_api.domain.egress import EgressRules
from tests.delivery.http.conftest import Names, address_info
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


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Arguments of the sockets that are requested; none is created."""
    asked: list[object] = []

    class Refusing(socket.socket):
        def __init__(self, *args: Any) -> None:
            if args[:1] == (socket.AF_UNIX,):  # the loop uses a pair of these
                super().__init__(*args)
                return
            asked.append(args)
            raise OSError("no network in this test")

        def __del__(self) -> None:
            """Nothing to close."""

    monkeypatch.setattr(socket, "socket", Refusing)
    return asked


async def test_connector_connects_to_an_address_that_a_rule_allows() -> None:
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
async def test_connector_opens_no_socket_for_a_literal_address_that_is_not_allowed(
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
async def test_connector_opens_no_socket_if_no_address_of_a_name_is_allowed(
    addresses: list[str], names: Names, opened: list[object]
) -> None:
    names({"n8n": addresses})
    async with session("") as client:
        with EgressReport("n8n") as report, pytest.raises(aiohttp.ClientConnectorError):
            await send(client, "http://n8n/")
    assert str(report.refusal).startswith(f"n8n resolves to {addresses[0].partition('%')[0]}")
    assert opened == []


async def test_report_has_no_refusal_if_an_allowed_address_is_unreachable(
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
async def test_connector_uses_the_allowed_address_of_a_name(
    addresses: list[str], names: Names
) -> None:
    names({"n8n": addresses})
    async with dropping() as here, session("127.0.0.1") as client:
        with EgressReport("n8n") as report:
            assert await send(client, f"http://n8n:{here.port}/") == 200
    assert report.refusal is None


async def test_rule_for_a_host_allows_the_address_for_that_name_only(names: Names) -> None:
    names({"n8n": ["127.0.0.1"], "evil": ["127.0.0.1"]})
    async with dropping() as here, session("n8n") as client:
        with EgressReport("n8n"):
            assert await send(client, f"http://n8n:{here.port}/") == 200
        with EgressReport("evil") as report, pytest.raises(aiohttp.ClientConnectorError):
            await send(client, f"http://evil:{here.port}/")
        assert "evil resolves to 127.0.0.1" in str(report.refusal)
    assert len(here.requests) == 1


async def test_rule_for_a_host_does_not_apply_outside_of_a_report(names: Names) -> None:
    names({"n8n": ["127.0.0.1"]})
    async with dropping() as here, session("n8n") as client:
        with pytest.raises(aiohttp.ClientConnectorError, match="is a loopback address"):
            await send(client, f"http://n8n:{here.port}/")
    assert here.requests == []


async def test_report_belongs_to_one_of_several_concurrent_attempts(names: Names) -> None:
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


async def test_report_has_no_refusal_if_a_name_does_not_resolve(names: Names) -> None:
    names({})
    async with session("") as client:
        with EgressReport("gone") as report, pytest.raises(aiohttp.ClientConnectorDNSError):
            await send(client, "http://gone/")
    assert report.refusal is None


async def test_resolve_returns_addresses_for_aiohttp_with_the_zone_of_a_link(names: Names) -> None:
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


async def test_resolve_asks_the_system_for_localhost() -> None:
    async with dropping() as here, session("localhost") as client:
        with EgressReport("localhost"):
            assert await send(client, f"http://localhost:{here.port}/") == 200


async def test_resolve_of_forty_slow_names_does_not_delay_another_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()
    threads: set[str] = set()

    def getaddrinfo(host: bytes, port: int, *_: object, **__: object) -> list[object]:
        threads.add(threading.current_thread().name)
        if host.startswith(b"slow"):
            answered.wait(30)
        return [address_info("127.0.0.1", port)]

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


async def test_close_of_the_connector_ends_the_threads_of_its_resolver(names: Names) -> None:
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
