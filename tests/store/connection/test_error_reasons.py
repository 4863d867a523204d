"""Why the store cannot be used: callers and the log get the reason and what to do."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.connection.error_reasons import explain
from scheduler_api.store.store import Store
from tests.support import engines
from tests.support.factories import accepted
from tests.support.stream_server import tcp_server
from tests.support.valkey import valkey_server
from tests.support.waiting import wait_until
from tests.system.processes import free_port

PASSWORD = "requirepass right"
ENDLESS = "while true do end"


async def outcome(address: str) -> object:
    """The result or error of a create at this address."""
    async with engines.opened(address) as client:
        create = Store(client).messages.create("m", accepted())
        (found,) = await asyncio.gather(create, return_exceptions=True)
        return found


async def refusal(address: str) -> str:
    """The text of the error of a create at this address."""
    found = await outcome(address)
    assert isinstance(found, StoreUnavailable)
    return str(found)


@pytest.mark.parametrize(
    ("config", "address", "expected"),
    [
        ((PASSWORD,), "unix://{path}", "requires a password: set it in REDIS_URL"),
        ((PASSWORD,), "unix://{path}?protocol=2", "requires a password"),
        ((PASSWORD,), "unix://:wrong@{path}", "refused the login: check user and password"),
        ((PASSWORD,), "unix://:wrong@{path}?protocol=2", "refused the login"),
        ((PASSWORD,), "unix://who:right@{path}", "refused the login"),
        ((), "unix://:any@{path}?protocol=2", "has no password, but one is set"),
        (("databases 2",), "unix://{path}?db=7", "has no database with this number"),
        (("replicaof 127.0.0.1 1",), "unix://{path}", "is a read-only replica"),
        (
            ("replicaof 127.0.0.1 1", "replica-serve-stale-data no"),
            "unix://{path}",
            "is a replica that lost its master",
        ),
        (("min-replicas-to-write 1",), "unix://{path}", "fewer replicas than min-replicas"),
        (
            ("port {port}", "bind 127.0.0.1"),
            "redis+cluster://127.0.0.1:{port}",
            "is not a Redis Cluster",
        ),
        (
            ("port {port}", "bind 127.0.0.1", "cluster-enabled yes"),
            "redis://127.0.0.1:{port}",
            "The cluster is down",
        ),
    ],
)
async def test_create_reports_why_a_store_refuses_calls(
    config: tuple[str, ...], address: str, expected: str, tmp_path: Path
) -> None:
    port = free_port()
    lines = [line.format(port=port) for line in config]
    async with valkey_server(tmp_path, *lines) as server:
        found = await refusal(address.format(path=server.socket, port=port))
    assert expected in found
    assert found.startswith("The ")
    assert found.endswith(".")


async def test_create_reports_that_maxclients_is_reached(tmp_path: Path) -> None:
    address = f"redis://127.0.0.1:{(port := free_port())}"
    async with (
        valkey_server(tmp_path, "maxclients 1", f"port {port}", "bind 127.0.0.1"),
        engines.opened(address) as other,
    ):

        async def is_in() -> bool:  # after the connection that waited for the start was closed
            with suppress(RedisConnectionError):
                return bool(await other.ping())
            return False

        await wait_until("the only client", is_in)
        assert "reached its maxclients" in await refusal(address)


async def test_create_reports_that_the_store_is_busy_with_a_script(tmp_path: Path) -> None:
    async with (
        valkey_server(tmp_path, "busy-reply-threshold 1") as server,
        engines.opened(server.address) as other,
        engines.opened(server.address) as third,
    ):
        await third.ping()
        running = asyncio.ensure_future(other.eval(ENDLESS, 0))

        async def busy() -> bool:
            return "is busy with the script" in await refusal(server.address)

        await wait_until("the running script", busy)
        await third.script_kill()
        await asyncio.wait([running])
        assert running.exception()


async def test_create_at_a_single_node_asks_for_the_url_of_a_cluster(tmp_path: Path) -> None:
    async with engines.cluster(tmp_path) as nodes:
        found = [await outcome(f"redis://127.0.0.1:{node.port}") for node in nodes]
    others = [str(one) for one in found if isinstance(one, StoreUnavailable)]
    assert len(others) == len(nodes) - 1, "one has the partition"
    assert all("set REDIS_URL to redis+cluster://HOST" in one for one in others)


async def test_create_reports_a_master_that_no_sentinel_knows(tmp_path: Path) -> None:
    async with engines.running("sentinel", tmp_path) as address:
        head, _, _ = address.rpartition("/")
        assert "do not know this master" in await refusal(f"{head}/nobody")


@asynccontextmanager
async def answering(reply: bytes, *, hang_up: bool) -> AsyncIterator[str]:
    """A server that sends `reply` to every client → its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply + b"\r\n")
        if not hang_up:
            await reader.read()

    async with tcp_server(answer) as port:
        yield f"redis://127.0.0.1:{port}"


async def test_create_reports_protected_mode() -> None:
    """Redis sends this to remote clients and closes the connection, never to local ones."""
    reply = b"-DENIED Redis is running in protected mode because protected mode is enabled"
    async with answering(reply, hang_up=True) as address:
        assert "is in protected mode" in await refusal(address)


async def test_create_reports_that_the_store_loads_its_data() -> None:
    async with answering(b"-LOADING Redis is loading the dataset", hang_up=False) as address:
        assert "is loading its data" in await refusal(address)


def test_explain_reports_an_unknown_host_name() -> None:
    with pytest.raises(socket.gaierror) as unknown:
        socket.getaddrinfo("nobody", 1, flags=socket.AI_NUMERICHOST)  # without DNS
    error = RedisConnectionError("Error connecting")
    error.__cause__ = unknown.value
    assert "host name is unknown" in str(explain(error))


async def test_create_reports_an_unreachable_store_without_a_reason(tmp_path: Path) -> None:
    assert await refusal(f"unix://{tmp_path}/nobody") == StoreUnavailable.__doc__
