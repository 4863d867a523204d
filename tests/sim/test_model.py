"""The model of Redis beside the real server: the same calls, replies and data."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from scheduler_api.store.connection.script_text import lua_text
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.keys import Keys
from scheduler_api.store.replies import InspectRow, rows
from tests.sim.model import BY_HAND, Content, ScriptFailed, Server, at_once
from tests.sim.store_on_model import StoreOnModel
from tests.sim.world import World
from tests.support.store_clock import Clock, clock_lib

COMMANDS = 3_000
CALLS = 4_000  # of scripts
KEYS = ("h", "z", "s")  # each mostly used by commands that begin with its letter
MEMBERS = ("a", "b", "c", "é\x00", "")
NUMBERS = ("0", "1", "-1", "7", "1800000000000", "2.5", "x", "", "inf", "-inf", "1e3", "007")
RANGES = ("-inf", "+inf", "(1", "1", "(7", "7", "2.5", "(", "nan")
# Commands whose reply depends on the server, has no order, or is random.
APART = {"TIME", "INFO", "SPUBLISH", "SMEMBERS", "SSCAN", "SRANDMEMBER", "HRANDFIELD"}

# What follows the key: members, numbers, ranges.
FORMS = {
    **dict.fromkeys(("HGET", "HEXISTS", "ZSCORE", "SISMEMBER"), ("m",)),
    **dict.fromkeys(("HDEL", "ZREM", "SADD", "SREM", "HMGET"), ("m", "mm", "mmm")),
    **dict.fromkeys(("ZCOUNT", "ZREMRANGEBYSCORE"), ("rr",)),
    **dict.fromkeys(("HSETNX", "HINCRBY"), ("mn",)),
    "HSET": ("", "m", "mn", "mnmn"),
    **dict.fromkeys(("HSCAN", "ZSCAN"), ("0",)),
    "ZADD": ("", "n", "nm", "nmnm", "nmnm"),
    "ZPOPMIN": ("", "n"),
}

ANY_COMMAND = "#!lua\nreturn redis.call(unpack(ARGV))"


def arguments(rng: random.Random, command: str) -> list[str]:
    """Random arguments, most of them valid for the command."""
    forms = FORMS.get(command, ("",))
    kinds = {"m": MEMBERS, "n": NUMBERS, "r": RANGES, "0": ("0",)}
    if command == "ZRANGE":
        return zrange(rng)
    return [rng.choice(kinds[kind]) for kind in rng.choice(forms)]


def zrange(rng: random.Random) -> list[str]:
    """A range by rank or by score, with options."""
    by_score = rng.random() < 0.6
    of = RANGES if by_score else NUMBERS
    options = [["BYSCORE"]] if by_score else []
    options += [["REV"]] if rng.random() < 0.3 else []
    options += [["WITHSCORES"]] if rng.random() < 0.5 else []
    options += [["LIMIT", rng.choice(NUMBERS), rng.choice(NUMBERS)]] if rng.random() < 0.4 else []
    return [rng.choice(of), rng.choice(of), *(word for option in options for word in option)]


async def outcome(call: Awaitable[Any]) -> Any:
    """The reply, or the kind of error."""
    try:
        return await call
    except (ResponseError, ScriptFailed) as error:
        wrong_type = str(error).startswith("WRONGTYPE")
        return "an error, of the type" if wrong_type else "an error, of the arguments"


async def test_model_answers_each_command_as_the_server_does(redis: Redis, prefix: str) -> None:
    rng, server = random.Random(3), Server()  # noqa: S311
    script, model = redis.register_script(ANY_COMMAND), server.register_script(ANY_COMMAND)
    compared = sorted((server.commands("reads") | server.commands("writes")) - APART)
    for _ in range(COMMANDS):
        command = rng.choice(compared)
        key = rng.choice((*KEYS, *command[0].lower() * 9))
        call = [command, f"{prefix}:{key}", *arguments(rng, command)]
        real = await outcome(script(keys=[], args=call))
        assert await outcome(model([], call)) == real, call
    assert await stored(redis, prefix) == modelled(server, prefix)


async def stored(redis: Redis, base: str) -> dict[str, Any]:
    """Key without the prefix → its content."""
    names = [key.decode() async for key in redis.scan_iter(f"{base}*", count=1000)]
    return {
        name.removeprefix(base): await content(redis, name)
        for name in names
        if not name.endswith(":clock")
    }


async def content(redis: Redis, name: str) -> Any:
    found: Any
    match await redis.type(name):
        case b"zset":
            found = await redis.zrange(name, 0, -1, withscores=True)
            return dict(found)
        case b"hash":
            return await redis.hgetall(name)
        case _:
            return await redis.smembers(name)


def modelled(server: Server, base: str) -> dict[str, Any]:
    """The same of the model."""
    return {
        key.decode().removeprefix(base): set(content) if _is_set(content) else content
        for key, content in server.stored().items()
    }


def _is_set(content: Content) -> bool:
    return any(value is True for value in content.values())


async def test_model_runs_each_script_as_the_server_does(
    redis: Redis, prefix: str, clock: Clock
) -> None:
    keys, machine = Keys(prefix), StoreOnModel()
    base = machine.divided[1].keys[0].base.encode()
    run = f"{prefix}:run"  # not one of the keys that are compared
    scripts = Scripts(redis, keys, clock_lib(clock.key) | restarts_lib(run))
    by_hand = redis.register_script(ANY_COMMAND)
    calls = seed = 0
    while calls < CALLS:
        made = await asyncio.to_thread(schedule, machine, seed)  # it runs its own loop
        seed += 1
        if not made:
            continue
        told_last = None
        for now_ms, number, script, args, reply in made:
            if (now_ms, number) != told_last:
                await clock.set(now_ms)
                await redis.set(run, f"{number:040x}")
                told_last = now_ms, number
            if script == BY_HAND:
                command, key, *rest = args
                await by_hand([], [command, key.replace(base, keys.base.encode()), *rest])
            else:
                real = await scripts.run(script, *args)
                assert ordered(script, real) == ordered(script, reply), (seed, script, args)
        assert await stored(redis, keys.base) == modelled(machine.server, base.decode())
        await redis.delete(*[name async for name in redis.scan_iter(f"{keys.base}*", count=1000)])
        calls += len(made)


def ordered(script: str, reply: Any) -> Any:
    """The rows of a scan, ordered by id, as the server's order differs."""
    if script == "list_destinations":
        return reply[0], sorted(reply[1:])
    if script == "inspect":
        return reply[0], sorted(rows(reply[1:], InspectRow))
    return reply


def restarts_lib(key: str) -> dict[str, str]:
    """`libs` of scripts that read the store's run id in this key."""
    asked = "call('INFO', 'server'):match('run_id:(%x+)')"
    lua = lua_text("lib/restarts.lua")
    assert lua.count(asked) == 1
    return {"restarts": lua.replace(asked, f"call('GET', '{key}')")}


Call = tuple[int, int, str, list[bytes], Any]  # store's clock, its run, script, arguments, reply


def schedule(machine: StoreOnModel, seed: int) -> list[Call]:
    """The calls of one schedule; none if its store loses writes or has several partitions."""
    server = machine.server
    made: list[Call] = []
    server.trace = lambda script, args, reply: made.append(
        (server.now_us // 1000, server.starts, script, args, reply)
    )
    world = World(machine, seed)
    if world.options.store == "loses_tail" or world.options.partitions > 1:
        server.reset()
        return []
    world.run()
    return made


def test_model_refuses_a_write_of_a_script_that_only_reads() -> None:
    server = Server()
    script = server.register_script("#!lua flags=no-writes\nreturn redis.call('HSET', 'h', 'f', 1)")
    with pytest.raises(ScriptFailed, match="the model has no HSET for this script"):
        at_once(script([], []))
