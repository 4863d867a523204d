"""A store in this process: the shipped scripts in Lua, over a model of the Redis commands.

It is used where redis-py's client stands, so that the product's own Scripts, Messages and Queue
run on it. A call is one coroutine that never waits: `at_once` runs it. The model is in model.lua,
as most of a schedule's time would otherwise go on the way from Lua to Python and back.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from scheduler_api.store.connection.script_text import NAMES, source

try:
    from lupa import luajit21 as lua
except ImportError:  # on macOS: plain Lua 5.1, as in Redis; it is a third slower
    from lupa import lua51 as lua

Result = TypeVar("Result")
Content = Mapping[bytes, Any]  # member → score, or field → value

_MODEL: Final = Path(__file__).with_name("model.lua").read_bytes()
ScriptFailed: Final = lua.LuaError  # what a script raises
BY_HAND: Final = "by hand"  # the name of a script that is not the product's
PARTITIONS: Final = (1, 2)  # numbers of partitions that schedules use
OTHER: Final = 3  # number of partitions of a process that is set up wrongly
_NAMES: Final = {
    source(name, None, number): name for name in NAMES for number in (*PARTITIONS, OTHER)
}
NOTHING: Final[Content] = {}


def name_of_text(text: str) -> str:
    """The name of the product's script with this text."""
    return _NAMES.get(text, BY_HAND)


class Server:
    """One store, and its faults."""

    def __init__(
        self,
        spoilt: Mapping[str, str] | None = None,
        publish: Callable[[bytes], None] | None = None,
    ) -> None:
        """`spoilt`: script → the text that runs instead; `publish`: gets each channel."""
        self.now_us = 0  # the store's clock
        self.starts = 1  # of the store: more than 1 after a restart
        self.down = False  # every call fails
        self.full = False  # out of memory: calls that may write fail
        self.loses_reply = False  # of the next call
        self.cuts = False  # at the next seam in a script: there the caller dies
        self.calls = 0
        self.changes = 0  # writes so far
        self.trace: Callable[[str, list[bytes], Any], None] | None = None  # gets each call
        self._spoilt = spoilt or {}
        self._lua = lua.LuaRuntime(encoding=None, unpack_returned_tuples=False)
        self._tables: dict[tuple[bytes, ...], Any] = {}
        self._scripts: dict[str, _Script] = {}  # compiled
        self._known: set[str] = set()  # digests of the scripts that the store has
        self._stored: dict[bytes, Content] = {}  # a copy of the content after `_looked` changes
        self._looked = 0
        model = self._lua.eval(b"loadstring(...)", _MODEL)(self._seam, publish)
        self.compile, self.run = model[b"compile"], model[b"run"]
        self._changed, self.names = model[b"changed"], model[b"names"]
        self._image, self._restore = model[b"image"], model[b"restore"]

    def commands(self, kind: str) -> set[str]:
        """The modelled commands of a kind: `reads` or `writes`."""
        return set(self.names(kind.encode()).decode().split())

    def _seam(self, text: bytes) -> bytes:
        if self.cuts:
            self.cuts = False
            raise Disconnected("the caller died between two calls")
        return text

    @property
    def client(self) -> Redis:
        """Used in place of redis-py's client."""
        return cast("Redis", self)

    async def evalsha(self, sha: str, keys: int, *given: Any) -> Any:
        """As redis-py's."""
        self._meet()
        if sha not in self._known:
            raise NoScriptError
        return self._scripts[sha].answer(given[:keys], given[keys:])

    async def eval(self, text: str, keys: int, *given: Any) -> Any:
        """As redis-py's; compiles a text once."""
        self._meet()
        return await self.register_script(text)(given[:keys], given[keys:])

    def _meet(self) -> None:
        if self.down:
            raise Disconnected("the store is away")

    def register_script(self, text: str) -> "_Script":
        """As redis-py's."""
        sha = _sha(text)
        if sha not in self._scripts:  # compiled before
            self._scripts[sha] = _Script(self, text, self._spoilt.get(text, text))
        self._known.add(sha)
        return self._scripts[sha]

    def name_of(self, sha: str) -> str | None:
        """The script's name; None if the store was never sent it."""
        script = self._scripts.get(sha)
        return script.name if script else None

    def do(self, *command: bytes | str) -> Any:
        """Run one command, as typed by hand."""
        words = [word.encode() if isinstance(word, str) else word for word in command]
        return at_once(self.eval("#!lua\nreturn redis.call(unpack(ARGV))", 0, *words))

    async def scan_iter(self, pattern: str, **_: int) -> AsyncIterator[bytes]:
        """As redis-py's, for a pattern that is a prefix and `*`."""
        assert pattern.endswith("*")
        beginning = pattern[:-1].encode()
        for name in [name for name in self.stored() if name.startswith(beginning)]:
            yield name

    def restart(self) -> None:
        """It has lost its scripts."""
        self.starts += 1
        self.forget_scripts()

    def forget_scripts(self) -> None:
        """Know no script: the first call of each has to send its text."""
        self._known.clear()

    def table_of(self, keys: tuple[bytes, ...]) -> Any:
        """KEYS as a Lua table."""
        found = self._tables.get(keys)
        if found is None:
            found = self._tables[keys] = self._lua.table_from(keys)
        return found

    def reset(self) -> None:
        """Remove all data and all faults."""
        self.restore(None)
        self.down = self.full = self.loses_reply = self.cuts = False

    def image(self) -> Any:
        """A copy of all that is stored."""
        return self._image()

    def restore(self, image: Any) -> None:
        """Replace all data by an image, which stays as it is; None: by nothing."""
        self.changes = self._restore(image)

    def stored(self) -> Mapping[bytes, Content]:
        """Key → content; do not change it."""
        if self._looked != self.changes:
            self._look()
        return self._stored

    def _look(self) -> None:
        self._looked, _, *changes = self._changed()
        at = 0
        while at < len(changes):
            key, size = changes[at : at + 2]
            end = at + 2 + 2 * size
            members = iter(changes[at + 2 : end])
            self._stored[key] = dict(zip(members, members, strict=True))
            if not size:
                del self._stored[key]
            at = end


class _Script:
    """A script that the store has compiled."""

    def __init__(self, server: Server, text: str, spoilt: str) -> None:
        first, _, rest = spoilt.partition("\n")
        flags = first.removeprefix("#!lua").strip()
        self._server = server
        self._only_reads = flags == "flags=no-writes"
        self._grows = not flags
        self.name = name_of_text(text)
        self._lua = server.compile(f"\n{rest}".encode(), f"={self.name}".encode())

    async def __call__(self, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        return self.answer(keys, args)

    def answer(self, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        """Run it → its reply. Raises the errors of redis-py's client."""
        server = self._server
        server.calls += 1
        if server.full and self._grows:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'")
        sent = [arg if type(arg) is bytes else _sent(arg) for arg in args]
        table, us, starts = server.table_of(tuple(keys)), server.now_us, server.starts
        returned = server.run(self._lua, self._only_reads, table, us, starts, *sent)
        server.changes, kind, *values = returned
        if kind == b"refused":
            raise ResponseError(values[0].decode())
        reply = values
        if kind == b"one":
            reply = values[0] if values else None
        elif kind == b"nested":
            reply = [_received(value) for value in values]
        if server.trace:
            server.trace(self.name, sent, reply)
        if server.loses_reply:
            server.loses_reply = False
            raise Disconnected("the reply was lost")
        return reply


@cache
def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _sent(arg: Any) -> bytes:
    """As redis-py encodes an argument."""
    if type(arg) is str:
        return arg.encode()
    assert type(arg) is int, f"redis-py refuses or rounds {arg!r}"
    return b"%d" % arg


def _received(value: Any) -> Any:
    """A value of a nested reply."""
    if type(value) is bytes or type(value) is int:
        return value
    return [_received(value[i]) for i in range(1, len(value) + 1)]


def at_once(call: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that never waits → its result."""
    try:
        call.send(None)
    except StopIteration as stopped:
        result: Result = stopped.value
        return result
    call.close()
    raise AssertionError("a call to the model waited")
