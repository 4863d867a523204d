"""The ceiling of create: a bare starlette handler, with or without one grouped script call.

python -m bench.ceilings.ingest PORT TOKEN [FOLDER of an embedded store, fsync always]
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scheduler_api.store.embedded.supervisor import EmbeddedStore

ADD = """for i = 1, #ARGV, 3 do
  if redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 2]) == 1 then
    redis.call('ZADD', KEYS[1], ARGV[i + 1], ARGV[i])
  end
end"""


class Asked(msgspec.Struct, rename="camel"):
    """The fields that must be decoded to store a message."""

    id: str
    schedule_to: datetime
    payload: msgspec.Raw
    webhook_url: str


class Group:
    """Stores the messages of one loop turn in one call."""

    def __init__(self, redis: Redis) -> None:
        self._add = redis.register_script(ADD)
        self._args: list[Any] = []
        self._call: asyncio.Task[None] | None = None

    async def store(self, asked: Asked, body: bytes) -> None:
        """Store a message; returns when it is on disk."""
        self._args += (asked.id, int(asked.schedule_to.timestamp() * 1000), body)
        self._call = self._call or asyncio.create_task(self._send())
        await asyncio.shield(self._call)

    async def _send(self) -> None:
        args, self._args, self._call = self._args, [], None
        await self._add(keys=["due", "messages"], args=args)


def app(token: str, folder: Path | None) -> Starlette:
    """POST /messages: check the token, decode, store if there is a store, answer 201."""
    groups: list[Group] = []
    decode = msgspec.json.Decoder(Asked).decode

    async def create(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {token}":
            return Response(status_code=401)
        body = await request.body()
        asked = decode(body)
        for group in groups:
            await group.store(asked, body)
        answer = msgspec.json.encode({"messageId": asked.id, "status": "scheduled"})
        return Response(answer, 201, media_type="application/json")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if folder is None:
            yield
            return
        store = EmbeddedStore(folder)
        await store.start()
        async with Redis(unix_socket_path=str(store.socket)) as redis:
            groups.append(Group(redis))
            yield
        await store.stop()

    async def ready(_: Request) -> Response:
        return Response()

    routes = [Route("/messages", create, methods=["POST"]), Route("/ready", ready)]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    port, token, *folder = sys.argv[1:]
    uvicorn.run(
        app(token, Path(folder[0]) if folder else None),
        port=int(port),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
    )
