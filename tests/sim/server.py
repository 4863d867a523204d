"""A store in this process: the shipped scripts in Lua 5.1, over the model of the commands.

It stands where redis-py's client stands, so that the product's own Scripts, Messages and Queue
run on it. A call is one coroutine that never waits: `at_once` runs it.
"""

import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from lupa.lua51 import LuaRuntime
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, OutOfMemoryError

from scheduler_api.store.scripts import NAMES, source
from tests.sim.model import READS, WRITES, Keyspace, SortedSet

Result = TypeVar("Result")

_NAMES: Final = {source(name): name for name in NAMES}
_NOTHING: Final[Mapping[bytes, Any]] = {}

# What Redis gives a script beside the language's own libraries, and its protection of globals.
_SANDBOX: Final = b"""
local commands = ...
local allowed
local redis = {call = function(name, ...)
  local command = allowed[name]
  if not command then error('the model has no ' .. tostring(name) .. ' for this script') end
  return command(...)
end}
local globals = {redis = redis, assert = assert, string = string, table = table, math = math,
  tonumber = tonumber, tostring = tostring, type = type, error = error, pcall = pcall,
  pairs = pairs, ipairs = ipairs, next = next, select = select, unpack = unpack,
  KEYS = {}, ARGV = {}}
local world = setmetatable({}, {
  __index = function(_, name)
    local found = globals[name]
    if found == nil then
      error('Script attempted to access nonexistent global variable ' .. tostring(name))
    end
    return found
  end,
  __newindex = function() error('Attempt to modify a readonly table') end})

local function length(reply)
  local n = 0
  while reply[n + 1] ~= nil do n = n + 1 end
  return n
end

local function compile(text, name)
  local script, fault = loadstring(text, name)
  if not script then error(fault) end
  return setfenv(script, world)
end

local function run(script, of, keys, ...)
  allowed, globals.KEYS, globals.ARGV = commands[of], keys, {...}
  local reply = script()
  if type(reply) == 'table' then return true, unpack(reply, 1, length(reply)) end
  return false, reply
end

return compile, run
"""


class Server:
    """One store, and the faults that its callers meet."""

    def __init__(self, spoilt: Mapping[str, str] | None = None) -> None:
        """`spoilt`: script as it is → as it is run; see planted.py."""
        self.now_us = 0  # the store's clock
        self.down = False  # refuses all calls
        self.full = False  # refuses what may make it grow
        self.loses_reply = False  # of the next call
        self.cuts = False  # at the next seam inside a script, whose caller dies there
        self.calls = 0
        self.trace: Callable[[str, list[bytes], Any], None] | None = None  # told of each call
        self._spoilt = spoilt or {}
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=False)
        self._array = self._lua.table_from
        self._tables: dict[tuple[bytes, ...], Any] = {}
        self._scripts: dict[str, _Script] = {}
        self.keyspace = self._empty()
        reads, every = (self._bound(names) for names in (READS, READS | WRITES))
        sandbox = self._lua.eval(b"loadstring(...)", _SANDBOX)
        self.compile, self.run = sandbox(self._lua.table_from({b"reads": reads, b"all": every}))

    def _empty(self) -> Keyspace:
        return Keyspace(lambda: self.now_us, self._array)

    def _bound(self, names: frozenset[str]) -> Any:
        commands = self.keyspace.commands(names)
        commands[b"ECHO"] = self._seam
        return self._lua.table_from(commands)

    def _seam(self, text: bytes) -> bytes:
        if self.cuts:
            self.cuts = False
            raise Disconnected("the caller died between two calls")
        return text

    @property
    def client(self) -> Redis:
        """What redis-py's client is to the product."""
        return cast("Redis", self)

    async def evalsha(self, sha: str, keys: int, *given: Any) -> Any:
        """As redis-py's."""
        script = self._scripts.get(sha)
        if script is None:
            raise NoScriptError
        return await script(given[:keys], given[keys:])

    async def eval(self, text: str, keys: int, *given: Any) -> Any:
        """As redis-py's; a text is compiled once, and from then on known by its digest."""
        return await self.register_script(text)(given[:keys], given[keys:])

    def register_script(self, text: str) -> "_Script":
        """As redis-py's; from then on the store knows it."""
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        found = self._scripts[sha] = _Script(self, text, self._spoilt.get(text, text))
        return found

    def table_of(self, keys: tuple[bytes, ...]) -> Any:
        """KEYS as scripts get them."""
        found = self._tables.get(keys)
        if found is None:
            found = self._tables[keys] = self._lua.table_from(keys)
        return found

    def reset(self) -> None:
        """Empty, healthy."""
        self.keyspace.keys.clear()
        self.down = self.full = self.loses_reply = self.cuts = False

    def image(self) -> dict[bytes, Any]:
        """A copy of all that is stored."""
        copied: dict[bytes, Any] = {}
        for key, stored in self.keyspace.keys.items():
            copied[key] = _copied(stored)
        return copied

    def restore(self, image: Mapping[bytes, Any]) -> None:
        """What an image has; the image itself is left alone."""
        self.keyspace.keys.clear()
        self.keyspace.changes += 1
        for key, stored in image.items():
            self.keyspace.keys[key] = _copied(stored)

    def content(self, key: str) -> Mapping[bytes, Any]:
        """Member → score, or field → value; not copied, to be looked at only."""
        stored: Any = self.keyspace.keys.get(key.encode(), _NOTHING)
        content: Mapping[bytes, Any] = stored.scores if type(stored) is SortedSet else stored
        return content


class _Script:
    """A text that the store knows."""

    def __init__(self, server: Server, text: str, spoilt: str) -> None:
        first, _, rest = spoilt.partition("\n")
        flags = first.removeprefix("#!lua").strip()
        self._server = server
        self._commands = b"reads" if flags == "flags=no-writes" else b"all"
        self._grows = not flags
        self._name = _NAMES.get(text, "a script")
        self._lua = server.compile(f"\n{rest}".encode(), f"={self._name}".encode())

    async def __call__(self, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        server = self._server
        server.calls += 1
        if server.down:
            raise Disconnected("the store is away")
        if server.full and self._grows:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'")
        sent = [_sent(arg) for arg in args]
        reply = _reply(server.run(self._lua, self._commands, server.table_of(tuple(keys)), *sent))
        if server.trace:
            server.trace(self._name, sent, reply)
        if server.loses_reply:
            server.loses_reply = False
            raise Disconnected("the reply was lost")
        return reply


def _sent(arg: Any) -> bytes:
    """As redis-py encodes an argument."""
    if type(arg) is bytes:
        return arg
    if type(arg) is str:
        return arg.encode()
    assert type(arg) is int, f"redis-py refuses or rounds {arg!r}"
    return b"%d" % arg


def _reply(returned: Any) -> Any:
    """What a caller is answered; a table comes as True and its values."""
    if returned is True:  # and no values
        return []
    several, *values = returned
    received = [_received(value) for value in values]
    return received if several else received[0]


def _received(value: Any) -> Any:
    """As redis-py decodes what Redis makes of a script's reply."""
    if type(value) is bytes or type(value) is int:
        return value
    if type(value) is float:
        return int(value)
    if value is True:
        return 1
    if value is None or value is False:
        return None
    return [_received(value[i]) for i in range(1, len(value) + 1)]


def _copied(stored: Any) -> Any:
    if type(stored) is not SortedSet:
        return stored.copy()
    copied = SortedSet()
    copied.scores, copied.order = stored.scores.copy(), stored.order.copy()
    return copied


def at_once(call: Coroutine[Any, Any, Result]) -> Result:
    """What a coroutine returns that has nothing to wait for."""
    try:
        call.send(None)
    except StopIteration as stopped:
        result: Result = stopped.value
        return result
    call.close()
    raise AssertionError("a call to the model waited")
