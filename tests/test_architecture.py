"""Rules on imports and keys: which room may import which, and where key names are.

Each rule is a function over source text, and is itself tested on a text that breaks it.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import scheduler_api
from scheduler_api.store import keys

PACKAGE = Path(scheduler_api.__file__).parent
LUA = PACKAGE / "store" / "lua"

# Room → the rooms below it that it may import. `api` and `delivery` never import each other.
#
#     cli → {server, admin} → {api, delivery} → store → domain
ARROWS: Mapping[str, set[str]] = {
    "cli": {"server", "admin"},
    "server": {"api", "delivery", "store"},  # it composes them
    "admin": {"store"},
    "api": {"store"},
    "delivery": {"store"},
    "store": set(),
    "domain": set(),
    "settings": set(),
    "telemetry": set(),
    "receiver": set(),
    "byte_budget": set(),
    "": {"server"},  # __init__.py: the version, and `app` on first use
    "__main__": {"cli"},
}
# Room or module that is no step of the arrows → the rooms that may import it.
LEAVES: Mapping[str, set[str]] = {
    "domain": {
        *("cli", "server", "admin", "api", "delivery", "store"),
        *("settings", "telemetry", "receiver"),
    },
    "telemetry": {"cli", "server", "admin", "api", "delivery", "store", "receiver"},
    "settings": {"cli", "server", "admin", "store"},  # api and delivery get values
    "receiver": {"cli", "server"},
    "byte_budget": {"server", "api", "store"},
    "": {"cli", "api", "delivery"},  # the version
}
# Library → the only rooms that may import it.
ONLY_IN: Mapping[str, set[str]] = {
    "redis": {"store"},
    "starlette": {"api", "server"},
    "uvicorn": {"server"},
    "httptools": {"server", "delivery"},
    "aiohttp": {"delivery", "receiver"},
    "click": {"cli"},
    "dotenv": {"settings"},
    "idna": {"domain"},
}
_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "load_dotenv"}
# Modules that start a process write its environment; only settings.sources reads it.
READS_ENVIRONMENT = {"settings.sources"}


def sources() -> dict[str, str]:
    """Module → its text; `store.keys`, and '' for the package itself."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = path.read_text()
    return found


SOURCES = sources()


def room(module: str) -> str:
    return module.partition(".")[0]


def imported(text: str) -> Iterator[str]:
    """Full names of everything that a text imports, also inside functions."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def ours(text: str) -> set[str]:
    """Names imported from our own package; '' for the package itself."""
    found = set()
    for name in imported(text):
        first, _, rest = name.partition(".")
        if first == "scheduler_api":
            found.add(rest)
    return found


def module_of(name: str, known: Mapping[str, str]) -> str:
    """The module that an imported name is, or that contains it."""
    while name not in known:
        name = name.rpartition(".")[0]
    return name


def forbidden_rooms(module: str, text: str) -> set[str]:
    """Rooms that this module imports although it may not."""
    own = room(module)
    rooms = {room(module_of(name, SOURCES)) for name in ours(text)}
    leaves = {leaf for leaf, importers in LEAVES.items() if own in importers}
    return rooms - ARROWS[own] - leaves - {own}


def forbidden_libraries(module: str, text: str) -> set[str]:
    """Libraries that this module imports although it may not."""
    libraries = {name.partition(".")[0] for name in imported(text)}
    return {one for one in libraries if room(module) not in ONLY_IN.get(one, {room(module)})}


def relative_imports(text: str) -> list[str]:
    return [name for name in imported(text) if name.startswith(".")]


def reads_environment(text: str) -> bool:
    """Whether the text names an object that holds the environment."""
    nodes = list(ast.walk(ast.parse(text)))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    taken = {name.rpartition(".")[2] for name in imported(text)}
    return bool((attributes | taken) & _ENVIRONMENT)


def cycle(texts: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a cycle, including imports inside functions."""
    arrows = {
        name: {module_of(one, texts) for one in ours(text)} - {name, ""}
        for name, text in texts.items()
    }
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def lacks_docstring(text: str) -> bool:
    return not ast.get_docstring(ast.parse(text))


def key_names(text: str) -> set[str]:
    """Strings that contain the name of a key, without docstrings."""
    tree = ast.parse(text)
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    words = {
        str(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documented
    }
    return {word for word in words if _KEY.search(word)}


_NAMES = "|".join(re.escape(name.rstrip(":")) for name in keys._NAMES)


# `:due`, `scheduler:{0}:due`, `parked:`; not a bare word, which may be a state.
_KEY = re.compile(rf":(?:{_NAMES})\b|^parked:|\{{0\}}")


@pytest.mark.parametrize("module", SOURCES)
def test_module_imports_only_the_rooms_below_it(module: str) -> None:
    assert forbidden_rooms(module, SOURCES[module]) == set()


@pytest.mark.parametrize("module", SOURCES)
def test_library_is_imported_only_by_its_rooms(module: str) -> None:
    assert forbidden_libraries(module, SOURCES[module]) == set()


@pytest.mark.parametrize("module", SOURCES)
def test_imports_are_absolute(module: str) -> None:
    assert relative_imports(SOURCES[module]) == []


@pytest.mark.parametrize("module", SOURCES)
def test_environment_is_read_only_by_the_settings(module: str) -> None:
    assert module in READS_ENVIRONMENT or not reads_environment(SOURCES[module])


@pytest.mark.parametrize("module", SOURCES)
def test_module_has_a_docstring(module: str) -> None:
    assert not lacks_docstring(SOURCES[module])


@pytest.mark.parametrize("module", [name for name in SOURCES if name != "store.keys"])
def test_key_names_are_only_in_store_keys(module: str) -> None:
    assert key_names(SOURCES[module]) == set()


def test_imports_have_no_cycle() -> None:
    assert cycle(SOURCES) == []


def test_tables_name_exactly_the_rooms() -> None:
    assert {room(module) for module in SOURCES} == set(ARROWS)
    assert set().union(*ONLY_IN.values(), LEAVES, *LEAVES.values()) <= set(ARROWS)


def test_docstring_of_store_keys_draws_every_key() -> None:
    drawn = set(re.findall(r"(?:…|\{0\}):(\w+)", keys.__doc__ or ""))
    assert drawn == {name.rstrip(":") for name in keys._NAMES}


@pytest.mark.parametrize(
    ("module", "text", "breach"),
    [
        ("api.messages", "from scheduler_api.delivery.http.sender import Sender", "delivery"),
        ("delivery.sender", "import scheduler_api.api.http", "api"),
        ("store.queue", "from scheduler_api import server", "server"),
        ("store.queue", "from scheduler_api.api import http", "api"),
        ("domain.message", "def f():\n    from scheduler_api.store.keys import Keys", "store"),
        ("cli", "from scheduler_api.store.store import Store", "store"),
        ("settings", "from scheduler_api.telemetry.logging import configure", "telemetry"),
        ("domain.message", "from scheduler_api import __version__", ""),
    ],
)
def test_forbidden_rooms_finds_an_arrow_that_points_up(module: str, text: str, breach: str) -> None:
    assert forbidden_rooms(module, text) == {breach}


@pytest.mark.parametrize(
    ("module", "text", "library"),
    [
        ("api.messages", "import redis", "redis"),
        ("delivery.sender", "from redis.asyncio import Redis", "redis"),
        ("domain.message", "if True:\n    from starlette.requests import Request", "starlette"),
        ("store.store", "import aiohttp.web as web", "aiohttp"),
        ("cli", "import uvicorn", "uvicorn"),
        ("server", "from dotenv import dotenv_values", "dotenv"),
    ],
)
def test_forbidden_libraries_finds_a_library_in_another_room(
    module: str, text: str, library: str
) -> None:
    assert forbidden_libraries(module, text) == {library}


@pytest.mark.parametrize("text", ["from . import http", "from ..store import keys"])
def test_relative_imports_finds_relative_imports(text: str) -> None:
    assert relative_imports(text)


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.environ['A']",
        "from os import environ",
        "from os import getenv as g",
        "import os as o\no.getenv('A')",
        "from dotenv import load_dotenv",
    ],
)
def test_reads_environment_finds_every_way_to_read_it(text: str) -> None:
    assert reads_environment(text)


def test_cycle_finds_modules_that_import_each_other() -> None:
    a, b, c = "import scheduler_api.b", "from scheduler_api.c import x", "import scheduler_api.a"
    circle = cycle({"": "", "a": a, "b": b, "c": c})
    assert set(circle) == {"a", "b", "c"}
    assert len(list(pairwise(circle))) == 3
    assert cycle({"": "", "a": a, "b": b, "c": ""}) == []


@pytest.mark.parametrize("text", ["", "import os", "# a comment\nx = 1"])
def test_lacks_docstring_finds_a_module_without_one(text: str) -> None:
    assert lacks_docstring(text)


@pytest.mark.parametrize(
    "text",
    [
        "key = 'scheduler:{0}:due'",
        "key = f'{base}:payloads'",
        "x = 'parked:' + host",
        "k = ':meta'",
    ],
)
def test_key_names_finds_a_key_in_another_module(text: str) -> None:
    assert key_names(text)
