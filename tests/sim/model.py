"""A model of the Redis commands that the scripts use, held equal to the server by test_model.py.

Asked by the scripts, through server.py. A command that is not here is an error, never a guess.
"""

import math
import re
from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import ResponseError

Value = bytes | int | float  # as a script gives it
Bound = tuple[float, bool]  # a score, and whether it is itself left out

_INTEGER: Final = re.compile(rb"-?(0|[1-9][0-9]{0,17})")
_NUMBER: Final = re.compile(rb"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[-+]?[0-9]+)?|[-+]?inf", re.I)
_LAST: Final = b"\xff" * 256  # sorts after every member that is modelled

WRONG_TYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_AN_INTEGER: Final = "ERR value is not an integer or out of range"
NOT_A_FLOAT: Final = "ERR value is not a valid float"
SYNTAX: Final = "ERR syntax error"
WRONG_ARITY: Final = "ERR wrong number of arguments for a command"

READS: Final = frozenset(
    {
        *("TIME", "INFO", "ECHO", "EXISTS", "SPUBLISH"),
        *("HGET", "HMGET", "HGETALL", "HEXISTS", "HLEN", "HKEYS", "HVALS", "HSCAN"),
        "HRANDFIELD",
        *("ZSCORE", "ZCARD", "ZRANGE", "ZCOUNT"),
        *("SISMEMBER", "SCARD", "SMEMBERS", "SRANDMEMBER"),
    }
)
WRITES: Final = frozenset(
    {
        *("DEL", "HSET", "HSETNX", "HDEL", "HINCRBY"),
        *("ZADD", "ZREM", "ZPOPMIN", "ZREMRANGEBYSCORE"),
        *("SADD", "SREM"),
    }
)


class SortedSet:
    """Members in the order of score, then bytes."""

    __slots__ = ("order", "scores")

    def __init__(self) -> None:
        self.scores: dict[bytes, float] = {}
        self.order: list[tuple[float, bytes]] = []

    def add(self, member: bytes, score: float) -> bool:
        """Whether the member is new."""
        known = self.remove(member)
        self.scores[member] = score
        insort(self.order, (score, member))
        return not known

    def remove(self, member: bytes) -> bool:
        """Whether it was there."""
        score = self.scores.pop(member, None)
        if score is None:
            return False
        del self.order[bisect_left(self.order, (score, member))]
        return True

    def between(self, low: Bound, high: Bound) -> tuple[int, int]:
        """The first rank from `low` on, and the first after `high`."""
        (bottom, without_bottom), (top, without_top) = low, high
        first = bisect_left(self.order, (bottom, _LAST if without_bottom else b""))
        return first, bisect_left(self.order, (top, b"" if without_top else _LAST))


Stored = dict[bytes, bytes] | SortedSet | set[bytes]


class Keyspace:
    """All keys, and the commands on them."""

    def __init__(self, now_us: Callable[[], int], array: Callable[[list[Any]], Any] = list) -> None:
        """`now_us`: the clock, µs since 1970; `array`: makes of a list what a script is given."""
        self._now_us = now_us
        self._array = array
        self.keys: dict[bytes, Stored] = {}
        self.changes = 0  # writes so far
        self.run = 1  # of the store: the number of its starts

    def commands(self, names: frozenset[str]) -> dict[bytes, Callable[..., Any]]:
        """Name → what runs it."""
        methods = {"DEL": self.delete}
        return {name.encode(): methods.get(name) or getattr(self, name.lower()) for name in names}

    # Typed access. A key that is empty is gone.

    def _hash(self, key: bytes) -> dict[bytes, bytes]:
        found = self.keys.get(key)
        if found is None:
            return {}
        if type(found) is not dict:
            raise ResponseError(WRONG_TYPE)
        return found

    def _sorted(self, key: bytes) -> SortedSet:
        found = self.keys.get(key)
        if found is None:
            return SortedSet()
        if type(found) is not SortedSet:
            raise ResponseError(WRONG_TYPE)
        return found

    def _set(self, key: bytes) -> set[bytes]:
        found = self.keys.get(key)
        if found is None:
            return set()
        if type(found) is not set:
            raise ResponseError(WRONG_TYPE)
        return found

    def _keep(self, key: bytes, stored: Stored) -> None:
        self.changes += 1
        if stored.scores if type(stored) is SortedSet else stored:
            self.keys[key] = stored
        else:
            self.keys.pop(key, None)

    # Keys and others.

    def time(self) -> Any:
        """Seconds, and the microseconds over them."""
        seconds, micros = divmod(self._now_us(), 1_000_000)
        return self._array([b"%d" % seconds, b"%d" % micros])

    def info(self, _section: bytes) -> bytes:
        """Which run of the store this is, alone."""
        return b"# Server\r\nrun_id:%040x\r\n" % self.run

    def echo(self, text: Value) -> bytes:
        """Marks the seam in a script that stands for two calls; see planted.py."""
        return _text(text)

    def spublish(self, _channel: bytes, _message: Value) -> int:
        """Nobody listens: whoever relies on being told is late by a safety poll."""
        return 0

    def exists(self, *keys: bytes) -> int:
        """How many of the keys there are."""
        return sum(key in self.keys for key in keys)

    def delete(self, *keys: bytes) -> int:
        """How many were there."""
        self.changes += 1
        return sum(self.keys.pop(key, None) is not None for key in keys)

    # Hashes.

    def hget(self, key: bytes, field: Value) -> bytes | bool:
        """The value, or false."""
        return self._hash(key).get(_text(field), False)

    def hmget(self, key: bytes, *fields: Value) -> Any:
        """The values, false for each that is not there."""
        found = self._hash(key)
        return self._array([found.get(_text(field), False) for field in fields])

    def hgetall(self, key: bytes) -> Any:
        """Field, value, field, value …"""
        return self._array([part for pair in self._hash(key).items() for part in pair])

    def hscan(self, key: bytes, cursor: Value, *options: Value) -> Any:
        """All at once and the cursor '0', as Redis does for a hash that is a listpack."""
        if _integer(cursor) != 0 or len(options) % 2:
            raise ResponseError("ERR invalid cursor")
        return self._array([b"0", self.hgetall(key)])

    def hrandfield(self, key: bytes, count: Value, *options: Value) -> Any:
        """Fields and their values; the first ones, whereas the server draws lots."""
        if options != (b"WITHVALUES",):
            raise ResponseError(SYNTAX)
        found = list(self._hash(key).items())[: _integer(count)]
        return self._array([part for pair in found for part in pair])

    def hkeys(self, key: bytes) -> Any:
        """The fields."""
        return self._array(list(self._hash(key)))

    def hvals(self, key: bytes) -> Any:
        """The values."""
        return self._array(list(self._hash(key).values()))

    def hexists(self, key: bytes, field: Value) -> int:
        """1 or 0."""
        return int(_text(field) in self._hash(key))

    def hlen(self, key: bytes) -> int:
        """How many fields."""
        return len(self._hash(key))

    def hset(self, key: bytes, *pairs: Value) -> int:
        """How many fields are new."""
        if not pairs or len(pairs) % 2:
            raise ResponseError(WRONG_ARITY)
        stored = self._hash(key)
        before = len(stored)
        for i in range(0, len(pairs), 2):
            stored[_text(pairs[i])] = _text(pairs[i + 1])
        self._keep(key, stored)
        return len(stored) - before

    def hsetnx(self, key: bytes, field: Value, value: Value) -> int:
        """1 if the field is new."""
        if _text(field) in self._hash(key):
            return 0
        return self.hset(key, field, value)

    def hdel(self, key: bytes, *fields: Value) -> int:
        """How many were there."""
        if not fields:
            raise ResponseError(WRONG_ARITY)
        stored = self._hash(key)
        gone = sum(stored.pop(_text(field), None) is not None for field in fields)
        self._keep(key, stored)
        return gone

    def hincrby(self, key: bytes, field: Value, by: Value) -> int:
        """The new value."""
        step = _integer(by)
        stored = self._hash(key)
        old = stored.get(_text(field), b"0")
        if not _INTEGER.fullmatch(old):
            raise ResponseError("ERR hash value is not an integer")
        stored[_text(field)] = b"%d" % (int(old) + step)
        self._keep(key, stored)
        return int(old) + step

    # Sorted sets.

    def zadd(self, key: bytes, *pairs: Value) -> int:
        """How many members are new."""
        if not pairs or len(pairs) % 2:
            raise ResponseError(SYNTAX)
        scores = [_score(score) for score in pairs[::2]]  # all are read before one is written
        stored = self._sorted(key)
        added = sum(
            stored.add(_text(member), score)
            for score, member in zip(scores, pairs[1::2], strict=True)
        )
        self._keep(key, stored)
        return added

    def zrem(self, key: bytes, *members: Value) -> int:
        """How many were there."""
        if not members:
            raise ResponseError(WRONG_ARITY)
        stored = self._sorted(key)
        gone = sum(stored.remove(_text(member)) for member in members)
        self._keep(key, stored)
        return gone

    def zscore(self, key: bytes, member: Value) -> bytes | bool:
        """The score as text, or false."""
        score = self._sorted(key).scores.get(_text(member))
        return False if score is None else _number(score)

    def zcard(self, key: bytes) -> int:
        """How many members."""
        return len(self._sorted(key).order)

    def zcount(self, key: bytes, low: Value, high: Value) -> int:
        """How many members with a score from `low` to `high`."""
        bounds = _bounds(low, high)
        first, end = self._sorted(key).between(*bounds)
        return max(0, end - first)

    def zpopmin(self, key: bytes, count: Value = 1) -> Any:
        """The lowest members, which are taken out, and their scores."""
        most = _integer(count)
        if most < 0:
            raise ResponseError("ERR value is out of range, must be positive")
        stored = self._sorted(key)
        popped = stored.order[:most]
        for _, member in popped:
            stored.remove(member)
        self._keep(key, stored)
        return self._pairs(popped)

    def zremrangebyscore(self, key: bytes, low: Value, high: Value) -> int:
        """How many members had a score from `low` to `high`; they are taken out."""
        bounds = _bounds(low, high)
        stored = self._sorted(key)
        first, end = stored.between(*bounds)
        gone = stored.order[first:end]
        for _, member in gone:
            stored.remove(member)
        self._keep(key, stored)
        return len(gone)

    def zrange(self, key: bytes, start: Value, stop: Value, *options: Value) -> Any:
        """By rank, or with BYSCORE; REV, LIMIT and WITHSCORES as in Redis."""
        words = [_text(option).upper() for option in options]
        backwards = b"REV" in words
        limit = None
        if b"LIMIT" in words:
            at = words.index(b"LIMIT") + 1
            limit = _integer(options[at]), _integer(options[at + 1])
        if b"BYSCORE" in words:
            low, high = _bounds(start, stop, backwards)
            stored = self._sorted(key)
            first, end = stored.between(low, high)
            found = stored.order[first:end]
        else:
            if limit is not None:
                raise ResponseError(SYNTAX)
            first, last = _integer(start), _integer(stop)
            found = _by_rank(self._sorted(key).order, first, last, backwards)
        if backwards:
            found = found[::-1]
        if limit is not None:
            found = _limited(found, *limit)
        if b"WITHSCORES" in words:
            return self._pairs(found)
        return self._array([member for _, member in found])

    def _pairs(self, found: list[tuple[float, bytes]]) -> Any:
        return self._array([part for score, member in found for part in (member, _number(score))])

    # Sets.

    def sadd(self, key: bytes, *members: Value) -> int:
        """How many members are new."""
        stored = self._set(key)
        before = len(stored)
        stored.update(_text(member) for member in members)
        self._keep(key, stored)
        return len(stored) - before

    def srem(self, key: bytes, *members: Value) -> int:
        """How many were there."""
        stored = self._set(key)
        before = len(stored)
        stored.difference_update(_text(member) for member in members)
        self._keep(key, stored)
        return before - len(stored)

    def sismember(self, key: bytes, member: Value) -> int:
        """1 or 0."""
        return int(_text(member) in self._set(key))

    def scard(self, key: bytes) -> int:
        """How many members."""
        return len(self._set(key))

    def srandmember(self, key: bytes, count: Value) -> Any:
        """Members; the first in byte order, whereas the server draws lots."""
        return self._array(sorted(self._set(key))[: _integer(count)])

    def smembers(self, key: bytes) -> Any:
        """The members; in byte order, whereas the server's order is its own."""
        return self._array(sorted(self._set(key)))


def _text(value: Value) -> bytes:
    """As Redis turns a script's argument into a string."""
    if type(value) is bytes:
        return value
    if type(value) is int:
        return b"%d" % value
    if type(value) is float:
        return _number(value)
    raise ResponseError("ERR Command arguments must be strings or integers")


def _number(number: float | bytes) -> bytes:
    if type(number) is int:
        return b"%d" % number
    assert isinstance(number, float)
    if math.isinf(number):
        return b"inf" if number > 0 else b"-inf"
    if number.is_integer() and abs(number) < 1e17:
        return b"%d" % int(number)
    return repr(number).encode()


def _integer(value: Value) -> int:
    if type(value) is int:
        return value
    text = _text(value)
    if not _INTEGER.fullmatch(text):
        raise ResponseError(NOT_AN_INTEGER)
    return int(text)


def _score(value: Value) -> float:
    if type(value) is int:
        return value
    text = _text(value)
    if text.isdigit():
        return int(text)
    if not _NUMBER.fullmatch(text):
        raise ResponseError(NOT_A_FLOAT)
    return float(text)


def _bounds(start: Value, stop: Value, backwards: bool = False) -> tuple[Bound, Bound]:
    """The lower one, the upper one."""
    ends = _bound(start), _bound(stop)
    return ends[::-1] if backwards else ends


def _bound(value: Value) -> Bound:
    """`5`, or `(5` for what is beyond 5."""
    if type(value) is int:
        return value, False
    text = _text(value)
    without = text[:1] == b"("
    try:
        return _score(text[1:] or b"0" if without else text), without  # C's strtod takes nothing
    except ResponseError:
        raise ResponseError("ERR min or max is not a float") from None


def _by_rank(
    order: list[tuple[float, bytes]], start: int, stop: int, backwards: bool
) -> list[tuple[float, bytes]]:
    """In ascending order, whatever the direction the ranks are counted in."""
    size = len(order)
    first = max(0, start + size if start < 0 else start)
    last = min(size - 1, stop + size if stop < 0 else stop)
    if first > last:
        return []
    if backwards:
        return order[size - 1 - last : size - first]
    return order[first : last + 1]


def _limited(found: list[Any], offset: int, count: int) -> list[Any]:
    if offset < 0:
        return []
    return found[offset:] if count < 0 else found[offset : offset + count]
