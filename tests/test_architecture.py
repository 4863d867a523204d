"""The house's rules that a machine can hold: who imports whom, and what a script's head tells.

Each rule is a function over source text, and is itself tested on a text that breaks it.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import scheduler_api
from scheduler_api.store import keys, replies
from scheduler_api.store.connection import script_text

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
    """Full names of the modules that a text imports anywhere, and of the things it takes there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def ours(text: str) -> set[str]:
    """What is imported from our own package; '' for something of the package itself."""
    found = set()
    for name in imported(text):
        first, _, rest = name.partition(".")
        if first == "scheduler_api":
            found.add(rest)
    return found


def module_of(name: str, known: Mapping[str, str]) -> str:
    """The module that an imported name is, or is taken from."""
    while name not in known:
        name = name.rpartition(".")[0]
    return name


def forbidden_rooms(module: str, text: str) -> set[str]:
    """Rooms of ours that this module imports and may not."""
    own = room(module)
    rooms = {room(module_of(name, SOURCES)) for name in ours(text)}
    leaves = {leaf for leaf, importers in LEAVES.items() if own in importers}
    return rooms - ARROWS[own] - leaves - {own}


def forbidden_libraries(module: str, text: str) -> set[str]:
    """Libraries that this module imports and may not."""
    libraries = {name.partition(".")[0] for name in imported(text)}
    return {one for one in libraries if room(module) not in ONLY_IN.get(one, {room(module)})}


def relative_imports(text: str) -> list[str]:
    return [name for name in imported(text) if name.startswith(".")]


def reads_environment(text: str) -> bool:
    """Whether the text names what holds the environment."""
    nodes = list(ast.walk(ast.parse(text)))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    taken = {name.rpartition(".")[2] for name in imported(text)}
    return bool((attributes | taken) & _ENVIRONMENT)


def cycle(texts: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a circle; imports inside of functions count too."""
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
    """Texts that are the name of a key, or begin or end like one; docstrings do not count."""
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


def script_faults(name: str, text: str) -> list[str]:
    """What a script's head lacks."""
    first, *rest = text.splitlines()
    head = "\n".join(_comment(rest))
    flags = first.removeprefix("#!lua").strip()
    wanted = {""} if name in ("create", "restore") else {"flags=allow-oom", "flags=no-writes"}
    rules = {
        "begins with #!lua": first.startswith("#!lua"),
        "has the flags that fit it": flags in wanted,
        "says first what it does": bool(re.match(r"-- [A-Z].*\w", head)),
        "tells ARGV": "ARGV[1" in head,
        "tells what it returns": bool(re.search(r"^-- Returns? \S", head, re.MULTILINE)),
        "tells every argument it reads": _arguments(text) <= _told(head),
    }
    return [rule for rule, holds in rules.items() if not holds]


def _comment(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("--"):
            return
        yield line


def _arguments(text: str) -> set[int]:
    code = re.sub(r"--.*", "", text)
    return {int(number) for number in re.findall(r"ARGV\[(\d+)\]", code)}


def _told(head: str) -> set[int]:
    """Numbers of the arguments that the head tells; `ARGV[3…]` is 3 and all that follow."""
    told: set[int] = set()
    for number, more in re.findall(r"ARGV\[(\d+)\s*(…?)\s*\d*\]", head):
        told |= set(range(int(number), 100)) if more else {int(number)}
    return told


# Commands that change a key.
_VERBS = "HSET|HSETNX|HDEL|HINCRBY|SADD|SREM|ZADD|ZREM|ZPOPMIN|SPUBLISH|UNLINK"


def writes(text: str, moves: Set[str]) -> bool:
    """Whether a text changes a key, directly or by one of the functions `moves`."""
    code = re.sub(r"--.*", "", text)
    return bool(re.search(rf"call\('(?:{_VERBS})'", code)) or bool(words(code) & moves)


def moves_messages(text: str) -> bool:
    """Whether a text itself writes a key that says where messages are."""
    places = "DUE|TAKEN|LEASES|PARKED|PARKING|FINISHED"
    return bool(re.search(rf"call\('(?:{_VERBS})', (?:{places})\b", text))


def shapes_in(text: str) -> list[tuple[str, ...]]:
    """The shapes of at least two fields that a script's head names, in their order.

    `{a, b, (c, d)…}` is a reply that begins with a, b and goes on with rows of c, d.
    """
    head = " ".join(line.strip("- ") for line in _comment(text.splitlines()[1:]))
    parts = re.findall(r"\(([a-z_]+(?:, [a-z_]+)+)\)…|\{([a-z_]+(?:, [a-z_]+\b(?!…))+)", head)
    return [tuple((rows or start).split(", ")) for rows, start in parts]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def functions(text: str) -> dict[str, str]:
    """Name → text of the functions that a Lua file defines at its top level."""
    return dict(re.findall(r"^local function (\w+)(.*?\nend)$", text, re.MULTILINE | re.DOTALL))


def defined(text: str) -> set[str]:
    """Names that a Lua file defines at its top level."""
    found = re.findall(r"^local (?!function)([\w,\s]+?)(?<!,)(?: =|$| --)", text, re.MULTILINE)
    return set(functions(text)) | {name.strip() for names in found for name in names.split(",")}


def moves_of(libs: Mapping[str, str]) -> set[str]:
    """The functions of lua/lib that change a key."""
    known = {name: body for text in libs.values() for name, body in functions(text).items()}
    found: set[str] = set()
    while more := {name for name in known.keys() - found if writes(known[name], found)}:
        found |= more
    return found


def needs(text: str) -> list[str]:
    """The files of lua/lib that a Lua file says it needs."""
    line = re.search(r"^-- needs: (.+)$", text, re.MULTILINE)
    return line[1].split() if line else []


def wrong_needs(text: str, libs: Mapping[str, str]) -> set[str]:
    """Files of lua/lib that a Lua file uses and does not say, or says and does not use."""
    code = re.sub(r"--.*|'[^'\n]*'", "", text)
    used = words(code) - set(re.findall(r"local (?:function )?(\w+)", code))
    own = defined(text)
    return {
        name
        for name, lib in libs.items()
        if lib != text and (name in needs(text)) is not bool(used & (defined(lib) - own))
    }


LIBS = {path.stem: path.read_text() for path in (LUA / "lib").glob("*.lua")}
SCRIPTS = {path.stem: path.read_text() for path in LUA.glob("*/*.lua") if path.parent.name != "lib"}
MOVES = moves_of(LIBS)


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_the_rooms_below_it(module: str) -> None:
    assert forbidden_rooms(module, SOURCES[module]) == set()


@pytest.mark.parametrize("module", SOURCES)
def test_a_library_stays_in_its_room(module: str) -> None:
    assert forbidden_libraries(module, SOURCES[module]) == set()


@pytest.mark.parametrize("module", SOURCES)
def test_imports_are_absolute(module: str) -> None:
    assert relative_imports(SOURCES[module]) == []


@pytest.mark.parametrize("module", SOURCES)
def test_only_the_settings_read_the_environment(module: str) -> None:
    assert module in READS_ENVIRONMENT or not reads_environment(SOURCES[module])


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_says_what_lives_in_it(module: str) -> None:
    assert not lacks_docstring(SOURCES[module])


@pytest.mark.parametrize("module", [name for name in SOURCES if name != "store.keys"])
def test_key_names_are_made_in_one_module(module: str) -> None:
    assert key_names(SOURCES[module]) == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert cycle(SOURCES) == []


def test_the_table_names_every_room_and_no_other() -> None:
    assert {room(module) for module in SOURCES} == set(ARROWS)
    assert set().union(*ONLY_IN.values(), LEAVES, *LEAVES.values()) <= set(ARROWS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_tells_its_flags_its_arguments_and_its_reply(name: str) -> None:
    assert script_faults(name, SCRIPTS[name]) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_changes_nothing_says_so_and_no_other(name: str) -> None:
    assert ("flags=no-writes" in SCRIPTS[name]) is not writes(SCRIPTS[name], MOVES)


def test_there_is_a_file_for_each_script_that_is_loaded_and_no_other() -> None:
    paths = {path.relative_to(LUA).as_posix() for path in LUA.rglob("*.lua")}
    assert {path for path in paths if not path.startswith("lib/")} == {
        script_text.path_of(name) for name in script_text.NAMES
    }


@pytest.mark.parametrize("name", [*SCRIPTS, *LIBS])
def test_a_lua_file_needs_the_libs_that_it_says(name: str) -> None:
    assert wrong_needs(SCRIPTS.get(name) or LIBS[name], LIBS) == set()


@pytest.mark.parametrize("name", [*SCRIPTS, *LIBS])
def test_only_two_files_move_messages_between_places(name: str) -> None:
    text = SCRIPTS.get(name) or LIBS[name]
    assert moves_messages(text) is (name in ("places", "finished"))


def test_the_finished_states_are_the_same_in_lua_and_python() -> None:
    found = re.search(r"^local STATES = \{(.+)\}$", LIBS["finished"], re.MULTILINE)
    assert found
    assert found[1].replace("'", "").split(", ") == list(keys.FINISHED)


@pytest.mark.parametrize("name", replies.SHAPES)
def test_a_shape_has_the_names_that_the_script_says(name: str) -> None:
    said = shapes_in(SCRIPTS[name])
    shapes = [shape._fields for shape in replies.SHAPES[name]]
    assert shapes == [shape for shape in said if shape in shapes]


def test_each_reply_of_several_fields_has_a_shape() -> None:
    lacking = {
        (name, *said)
        for name, text in SCRIPTS.items()
        for said in shapes_in(text)
        if said not in [shape._fields for shape in replies.SHAPES.get(name, ())]
    }
    assert lacking == {
        ("claim", "destination", "open"),
        ("read_counts", "claims", "in_flight", "rows"),
        ("read_counts", "id", "claim"),
        ("read_counts", "destination", "count"),
        ("release", "id", "fence"),
        ("renew", "id", "fence"),
        ("repair", "state", "keep"),
    }


def test_a_script_checks_the_data_first_unless_it_ends_claims() -> None:
    unchecked = {name for name, text in SCRIPTS.items() if "check_data(" not in text}
    assert unchecked == {"settle", "release", "renew"}
    for name in SCRIPTS.keys() - unchecked:
        code = re.sub(r"--.*", "", script_text.lua_text(script_text.path_of(name)))
        assert (
            code.split("\n", 1)[1]
            .lstrip()
            .splitlines()[0]
            .endswith(("check_data()", "check_data(true)"))
        )


def test_the_keys_are_taken_in_the_order_in_which_they_are_given() -> None:
    found = re.search(r"^local ([A-Z, \n]+) = unpack\(KEYS\)", LIBS["keys"], re.MULTILINE)
    assert found
    names = [name.strip() for name in found[1].split(",")]
    assert [*names, *(state.upper() for state in keys.FINISHED)] == [
        name.rstrip(":").upper() for name in keys._NAMES
    ]


def test_the_drawing_of_the_keyspace_has_every_key() -> None:
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
def test_an_arrow_that_points_up_is_caught(module: str, text: str, breach: str) -> None:
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
def test_a_library_in_another_room_is_caught(module: str, text: str, library: str) -> None:
    assert forbidden_libraries(module, text) == {library}


@pytest.mark.parametrize("text", ["from . import http", "from ..store import keys"])
def test_a_relative_import_is_caught(text: str) -> None:
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
def test_a_second_reader_of_the_environment_is_caught(text: str) -> None:
    assert reads_environment(text)


def test_a_circle_is_caught() -> None:
    a, b, c = "import scheduler_api.b", "from scheduler_api.c import x", "import scheduler_api.a"
    circle = cycle({"": "", "a": a, "b": b, "c": c})
    assert set(circle) == {"a", "b", "c"}
    assert len(list(pairwise(circle))) == 3
    assert cycle({"": "", "a": a, "b": b, "c": ""}) == []


@pytest.mark.parametrize("text", ["", "import os", "# a comment\nx = 1"])
def test_a_module_without_a_docstring_is_caught(text: str) -> None:
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
def test_a_key_named_elsewhere_is_caught(text: str) -> None:
    assert key_names(text)


GOOD = "#!lua flags=allow-oom\n-- Does it.\n--\n-- ARGV[1] id\n-- Returns 'ok'\nreturn ARGV[1]\n"


def test_a_good_script_has_no_faults() -> None:
    assert script_faults("cancel", GOOD) == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("cancel", GOOD.replace("#!lua", "#!/lua"), "begins with #!lua"),
        ("cancel", GOOD.replace(" flags=allow-oom", ""), "has the flags that fit it"),
        ("create", GOOD, "has the flags that fit it"),
        ("cancel", GOOD.replace("-- Does it.\n", ""), "says first what it does"),
        ("cancel", GOOD.replace("-- ARGV[1] id\n", ""), "tells ARGV"),
        ("cancel", GOOD.replace("-- Returns 'ok'\n", ""), "tells what it returns"),
        ("cancel", GOOD.replace("return ARGV[1]", "return ARGV[2]"), "tells every argument"),
    ],
)
def test_a_script_with_a_poor_head_is_caught(name: str, text: str, fault: str) -> None:
    assert any(found.startswith(fault) for found in script_faults(name, text))


@pytest.mark.parametrize("line", ["call('ZADD', DUE, 1, id)", "forget(id)", "drop(id)"])
def test_a_change_in_a_script_is_seen(line: str) -> None:
    libs = {
        "finished": "local function forget(id)\n  call('HDEL', PAYLOADS, id)\nend\n",
        "claims": "local function drop(id)\n  forget(id)\nend\nlocal function due(id)\nend\n",
    }
    assert moves_of(libs) == {"forget", "drop"}
    assert writes(line, moves_of(libs))
    assert not writes("return call('HGET', PAYLOADS, id) -- forget(id)", moves_of(libs))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("-- needs: clock\nlocal now = clock()", set()),
        ("local now = clock()", {"clock"}),
        ("-- needs: clock\nreturn 1 -- clock()", {"clock"}),
        ("-- needs: clock keys\nlocal now = clock()", {"keys"}),
    ],
)
def test_a_wrong_need_of_a_lua_file_is_caught(text: str, wrong: set[str]) -> None:
    libs = {
        "clock": "local function clock()\n  return 1\nend\n",
        "keys": "local DUE,\n  TAKEN = unpack(KEYS)\n",
    }
    assert wrong_needs(text, libs) == wrong


@pytest.mark.parametrize("key", ["DUE", "PARKED .. dest", "FINISHED[state]"])
def test_a_move_between_places_is_seen(key: str) -> None:
    assert moves_messages(f"call('ZREM', {key}, id)")
    assert not moves_messages(f"call('ZSCORE', {key}, id)")


def test_the_shapes_in_a_head_are_found() -> None:
    head = "#!lua\n-- Does it.\n-- ARGV[1…] (id, ms)…\n-- Returns {now,\n--   due, (word, at)…}\n"
    head += "-- {no, rest…}\n"
    assert shapes_in(head) == [("id", "ms"), ("now", "due"), ("word", "at")]
    assert shapes_in(head + "local t = {now, due}") == shapes_in(head)
