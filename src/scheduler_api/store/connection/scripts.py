"""Runs the scripts of a partition; turns errors of Redis and of scripts into domain errors."""

import hashlib
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final, cast

import structlog
from redis import exceptions
from redis.asyncio import Redis

from scheduler_api.domain.errors import (
    MessageFinished,
    MessageInFlight,
    MessageNotFound,
    OtherPartitions,
    OutcomeUnknown,
    SchedulerError,
    SchemaTooNew,
    SchemaTooOld,
    StoreFull,
    StoreUnavailable,
)
from scheduler_api.store.connection.client import Client
from scheduler_api.store.connection.connections import CURRENT_CALL, CallState
from scheduler_api.store.connection.durability import Durability, check_copies
from scheduler_api.store.connection.error_reasons import explain
from scheduler_api.store.connection.script_text import NAMES, is_read_only, source
from scheduler_api.store.keys import SCHEMA, Keys

log = structlog.get_logger()

# Exceptions that a call of the client may raise; uvloop raises RuntimeError when it writes to a
# connection that was reset.
FAILURES: Final = (
    *(exceptions.RedisError, exceptions.RedisClusterException),
    *(OSError, RuntimeError),
)

# Word that a script returns instead of 'ok' → the error.
ERRORS: Final[dict[bytes, type[SchedulerError]]] = {
    b"missing": MessageNotFound,
    b"finished": MessageFinished,
    b"in_flight": MessageInFlight,
}


class Scripts:
    """The scripts of one partition."""

    def __init__(
        self,
        redis: Client,
        keys: Keys,
        libs: Mapping[str, str] | None = None,
        durability: Durability | None = None,
        *,
        partitions: int = 1,
        first: "Scripts | None" = None,
    ) -> None:
        """`libs`: texts that replace files of lua/lib, by name; tests replace the clock.

        `partitions`: of the data set; `first`: the scripts of partition 0; None for itself.
        """
        self._redis = redis
        self._partition = keys.partition
        self._partitions = partitions
        self._first = first
        self._marked = False  # whether this process has seen the partition's mark
        self._keys = keys.all
        self._meta = keys.meta
        self._durability = durability or Durability(redis, replica=False)
        self._sources = {name: source(name, libs, partitions) for name in NAMES}
        self._names = {name: _sha(text) for name, text in self._sources.items()}

    async def run(self, name: str, *args: Any) -> Any:
        """Run a script. Raises: StoreUnavailable, OutcomeUnknown, StoreFull, DataRefused."""
        call = CallState()
        CURRENT_CALL.set(call)
        try:
            return await self._run(name, args)
        except FAILURES as error:
            return await self._run_again(name, call, error, partial(self._run, name, args))

    async def check_schema(self) -> None:
        """Mark the partition, if it is new or of an older schema. Raises: as `run`.

        A new partition other than 0 is marked only after partition 0, whose keys are the same for
        any number of partitions, has this number.
        """
        is_first = self._first is None
        marked = await self.run("check_schema", SCHEMA, self._partitions, int(is_first))
        if self._first and not marked:
            await self._first.check_schema()
            await self.run("check_schema", SCHEMA, self._partitions, 1)
        self._marked = True

    async def _run_again(
        self,
        name: str,
        call: CallState,
        error: Exception,
        run: Callable[[], Coroutine[Any, Any, Any]],
    ) -> Any:
        """Mark the partition and repeat the call, if that is what failed; otherwise raises."""
        _drop_frames(error)
        if not str(error).startswith("UNMARKED"):
            raise await self._failure(name, call, error) from error
        if self._marked:
            log.error("store_reset", partition=self._partition)
        await self.check_schema()
        call = CallState()
        CURRENT_CALL.set(call)
        try:
            return await run()
        except FAILURES as failed:
            _drop_frames(failed)
            raise await self._failure(name, call, failed) from failed

    async def _failure(self, name: str, call: CallState, error: Exception) -> SchedulerError:
        found = await failure(self._redis, error)
        if (
            type(found) is not StoreUnavailable
            or is_read_only(name)
            or not _may_have_run(call, error)
        ):
            return found
        is_default = str(found) == str(StoreUnavailable())
        return OutcomeUnknown(None if is_default else str(found))

    async def _run(self, name: str, args: tuple[Any, ...]) -> Any:
        keys = self._keys
        try:
            return await self._redis.evalsha(self._names[name], len(keys), *keys, *args)
        except exceptions.NoScriptError:  # on a cluster, only of the node that was asked
            return await self._redis.eval(self._sources[name], len(keys), *keys, *args)

    async def run_safely(self, name: str, *args: Any) -> Any:
        """As `run`, and a replica has confirmed the writes if DURABILITY demands it."""
        if not self._durability.replica:
            return await self.run(name, *args)
        call = CallState()
        CURRENT_CALL.set(call)
        try:
            reply, *copies = await self._run_and_wait(name, args)
        except FAILURES as error:
            reply, *copies = await self._run_again(
                name, call, error, partial(self._run_and_wait, name, args)
            )
        for copy in copies:
            if isinstance(copy, Exception):
                raise OutcomeUnknown(str(unavailable(copy))) from copy
        check_copies(copies)
        return reply

    async def _run_and_wait(self, name: str, args: Sequence[Any]) -> list[Any]:
        replies = await self._pipelined("evalsha", self._names[name], args)
        if isinstance(replies[0], exceptions.NoScriptError):  # not run: it may be run again
            replies = await self._pipelined("eval", self._sources[name], args)
        if isinstance(replies[0], Exception):
            raise replies[0]
        return replies

    async def _pipelined(self, command: str, script: str, args: Sequence[Any]) -> list[Any]:
        """On one connection, because WAIT waits only for the writes of its connection."""
        waits = await self._durability.wait_commands()
        CURRENT_CALL.get().sending_began = False  # reading the wait commands is no part of the call
        redis = cast("Redis", self._redis)  # the settings refuse it on a cluster
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.execute_command(command, script, len(self._keys), *self._keys, *args)
            # A write of this connection, so that it waits even if the script found only duplicates:
            # the messages found may be on no replica yet.
            pipeline.hincrby(self._meta, "fence", 0)
            for wait in waits:
                pipeline.execute_command(*wait)
            reply, _, *copies = await pipeline.execute(raise_on_error=False)
        return [reply, *copies]


def scripts_of(
    redis: Client,
    keys: Sequence[Keys],
    libs: Mapping[str, str] | None = None,
    durability: Durability | None = None,
) -> list[Scripts]:
    """The scripts of each partition of a data set."""
    first = Scripts(redis, keys[0], libs, durability, partitions=len(keys))
    others = (
        Scripts(redis, one, libs, durability, partitions=len(keys), first=first) for one in keys[1:]
    )
    return [first, *others]


def _drop_frames(error: BaseException | None) -> None:
    """Drop the stack frames of an error of redis-py: they hold the bodies of the call.

    Some hold the error too, so that all would stay until the garbage collector runs.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _may_have_run(call: CallState, error: Exception) -> bool:
    """Whether a script may have written something although its call failed."""
    if isinstance(error, (exceptions.ResponseError, exceptions.BusyLoadingError)):
        return "script:" in str(error)  # otherwise the server refused to run it
    return call.sending_began


@cache
def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


async def failure(redis: Client, error: Exception) -> SchedulerError:
    """As `unavailable`; disconnects from a server that has become a replica."""
    if isinstance(error, exceptions.ReadOnlyError) and isinstance(redis, Redis):
        await redis.connection_pool.disconnect(inuse_connections=False)
    return unavailable(error)


def unavailable(error: Exception) -> SchedulerError:
    """The domain error for an error of the client; the cause is for the log."""
    text = str(error)
    if isinstance(error, exceptions.OutOfMemoryError) or text.startswith(("OOM", "MISCONF")):
        return StoreFull()
    if text.startswith("SCHEMA "):
        return _other_schema(int(text.split()[1]))
    if text.startswith("PARTITIONS "):
        return _other_partitions(*text.split()[1:3])
    if isinstance(error, exceptions.NoPermissionError) or text.startswith("ACL failure"):
        return _no_permission(text)
    return StoreUnavailable(explain(error))


def _no_permission(text: str) -> StoreUnavailable:
    command = re.search(r"'(\S+)' command", text)
    what = f"to run {command[1].upper()}" if command else "for keys that begin with REDIS_PREFIX"
    return StoreUnavailable(
        f"The user of REDIS_URL has no permission {what}; see docs/deploy/redis.md."
    )


def _other_schema(schema: int) -> SchemaTooNew | SchemaTooOld:
    what = f"The data have schema {schema}, but this version supports only {SCHEMA}; "
    if schema > SCHEMA:
        return SchemaTooNew(f"{what}start the newer version of Scheduler API.")
    return SchemaTooOld(
        f"{what}export the messages with the version that wrote the data, and import them into a "
        "store of this one."
    )


def _other_partitions(found: str, wanted: str) -> OtherPartitions:
    return OtherPartitions(
        f"PARTITIONS={wanted} does not match the data, created with PARTITIONS={found}; "
        f"set PARTITIONS={found}, or another REDIS_PREFIX for new data."
    )
