"""The texts of the scripts: the file of each in lua/, with the parts of lua/lib that it uses."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from scheduler_api.store.keys import OLDEST_READABLE, SCHEMA

# Folder of lua/ → the scripts in it. A script's name is unique across folders.
_FOLDERS: Final[Mapping[str, Sequence[str]]] = {
    "messages": ("create", "get", "list", "cancel"),
    "queue": (
        *("claim", "settle", "release", "renew", "reap", "recover"),
        *("purge", "trim", "sweep", "note_restart"),
    ),
    "destinations": ("list_destinations", "read_destinations", "set_limit"),
    "audit": ("check_schema", "inspect", "read_claims", "repair", "recount_claims", "restore"),
}
_PATHS: Final = {
    name: f"{folder}/{name}.lua" for folder, names in _FOLDERS.items() for name in names
}
NAMES: Final = tuple(_PATHS)

_NEEDS: Final = re.compile(r"^-- needs: (.+)$", re.MULTILINE)
_COMMENT: Final = re.compile(r"--.*")
_WORD: Final = re.compile(r"\w+")
_NEXT_STATEMENT: Final = re.compile(r"^(?=local )", re.MULTILINE)
_DEFINED: Final = re.compile(r"local (?:function (\w+)|([\w,\s]+?)(?<!,)\s*(?:=|$))")


def source(name: str, libs: Mapping[str, str] | None = None, partitions: int = 1) -> str:
    """A script as it is sent: its first line, the statements of lua/lib that it uses, the rest.

    A server runs the definitions in every call, so those that a script does not use are left out.
    `libs`: texts that replace files of lua/lib, by name.
    """
    return _source(name, tuple((libs or {}).items()), partitions)


@cache  # the same texts for every partition
def _source(name: str, libs: tuple[tuple[str, str], ...], partitions: int) -> str:
    first, _, rest = lua_text(path_of(name)).partition("\n")
    statements: list[_Statement] = []
    for lib in _needed(rest, dict(libs), {}).values():
        statements += _statements(lib)
    composed = "\n".join([first, *_used(rest, statements), rest])
    numbers = {"OLDEST_READABLE": OLDEST_READABLE, "SCHEMA": SCHEMA, "PARTITIONS": partitions}
    for placeholder, number in numbers.items():
        composed = composed.replace(f"__{placeholder}__", str(number))
    return composed


def _needed(text: str, libs: Mapping[str, str], found: dict[str, str]) -> dict[str, str]:
    """Name → text of the files of lua/lib that a text needs, each after those that it needs."""
    needs = _NEEDS.search(text)
    for name in needs[1].split() if needs else ():
        if name not in found:
            lib = libs.get(name) or lua_text(f"lib/{name}.lua")
            _needed(lib, libs, found)
            found[name] = lib
    return found


class _Statement(NamedTuple):
    """A top-level `local` statement of a lib, with the statements up to the next one."""

    text: str
    defines: set[str]
    words: set[str]


def _statements(lib: str) -> Iterator[_Statement]:
    code = _COMMENT.sub("", lib).strip()
    for text in filter(None, _NEXT_STATEMENT.split(code)):
        if not (defined := _DEFINED.match(text)):  # it would be missing in every script
            raise ValueError(f"a statement of lua/lib must begin with `local NAME`, not {text!r}")
        names = set(_WORD.findall(defined[1] or defined[2]))
        yield _Statement(text.rstrip(), names, set(_WORD.findall(text)))


def _used(script: str, statements: Sequence[_Statement]) -> list[str]:
    """The statements that a script uses, by itself or through others, in their order."""
    words = set(_WORD.findall(_COMMENT.sub("", script)))
    used: list[str] = []
    for statement in reversed(statements):  # a statement that uses a name follows its definition
        if statement.defines & words:
            words |= statement.words
            used.append(statement.text)
    return used[::-1]


@cache
def lua_text(path: str) -> str:
    """A file of lua/; `path`: from lua/ on, `queue/claim.lua` for example."""
    return (files("scheduler_api.store") / "lua" / path).read_text()


def path_of(name: str) -> str:
    """The file of a script, from lua/ on."""
    return _PATHS[name]


@cache
def is_read_only(name: str) -> bool:
    """Whether a script declares that it writes nothing."""
    return "flags=no-writes" in lua_text(path_of(name)).partition("\n")[0]
