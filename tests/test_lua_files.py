"""Rules on the Lua files: what a script's head states, and which functions change keys.

Each rule is a function over source text, and is itself tested on a text that breaks it.
"""

import re
from collections.abc import Iterator, Mapping, Set

import pytest

from scheduler_api.store import keys, replies
from scheduler_api.store.connection import script_text
from tests.test_architecture import LUA


def script_faults(name: str, text: str) -> list[str]:
    """The rules that the head of a script breaks."""
    first, *rest = text.splitlines()
    head = "\n".join(_comment(rest))
    flags = first.removeprefix("#!lua").strip()
    wanted = {""} if name in ("create", "restore") else {"flags=allow-oom", "flags=no-writes"}
    rules = {
        "begins with #!lua": first.startswith("#!lua"),
        "has the flags that fit it": flags in wanted,
        "states first what it does": bool(re.match(r"-- [A-Z].*\w", head)),
        "states ARGV": "ARGV[1" in head,
        "states what it returns": bool(re.search(r"^-- Returns? \S", head, re.MULTILINE)),
        "states every argument it reads": _arguments(text) <= _stated(head),
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


def _stated(head: str) -> set[int]:
    """Numbers of the arguments that the head states; `ARGV[3…]` means 3 and all that follow."""
    stated: set[int] = set()
    for number, more in re.findall(r"ARGV\[(\d+)\s*(…?)\s*\d*\]", head):
        stated |= set(range(int(number), 100)) if more else {int(number)}
    return stated


# Commands that change a key.
_VERBS = "HSET|HSETNX|HDEL|HINCRBY|SADD|SREM|ZADD|ZREM|ZPOPMIN|SPUBLISH|UNLINK"


def writes(text: str, moves: Set[str]) -> bool:
    """Whether a text changes a key, directly or by one of the functions `moves`."""
    code = re.sub(r"--.*", "", text)
    return bool(re.search(rf"call\('(?:{_VERBS})'", code)) or bool(words(code) & moves)


def moves_messages(text: str) -> bool:
    """Whether a text itself changes an index of messages."""
    places = "DUE|TAKEN|LEASES|PARKED|PARKING|FINISHED"
    return bool(re.search(rf"call\('(?:{_VERBS})', (?:{places})\b", text))


def slices_records(text: str) -> bool:
    """Whether a Lua text reads or writes single bytes of a record."""
    return bool(re.search(r"\b(?:record|old|tail|rest):(?:sub|byte|find|match)\(|'\\[0-9]'", text))


def shapes_in(text: str) -> list[tuple[str, ...]]:
    """The shapes of at least two fields that a script's head names, in their order.

    `{a, b, (c, d)…}` is a reply that begins with a, b and continues with rows of c, d.
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
    """The files of lua/lib that the `needs` line of a Lua file names."""
    line = re.search(r"^-- needs: (.+)$", text, re.MULTILINE)
    return line[1].split() if line else []


def wrong_needs(text: str, libs: Mapping[str, str]) -> set[str]:
    """Files of lua/lib that a Lua file uses without naming, or names without using."""
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


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_head_states_flags_arguments_and_reply(name: str) -> None:
    assert script_faults(name, SCRIPTS[name]) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_flagged_no_writes_exactly_if_it_writes_nothing(name: str) -> None:
    assert ("flags=no-writes" in SCRIPTS[name]) is not writes(SCRIPTS[name], MOVES)


def test_lua_folder_has_exactly_the_scripts_that_are_loaded() -> None:
    paths = {path.relative_to(LUA).as_posix() for path in LUA.rglob("*.lua")}
    assert {path for path in paths if not path.startswith("lib/")} == {
        script_text.path_of(name) for name in script_text.NAMES
    }


@pytest.mark.parametrize("name", [*SCRIPTS, *LIBS])
def test_lua_file_uses_exactly_the_libs_that_it_needs(name: str) -> None:
    assert wrong_needs(SCRIPTS.get(name) or LIBS[name], LIBS) == set()


@pytest.mark.parametrize("name", [*SCRIPTS, *LIBS])
def test_messages_are_moved_between_indexes_only_in_two_files(name: str) -> None:
    text = SCRIPTS.get(name) or LIBS[name]
    assert moves_messages(text) is (name in ("places", "finished"))


@pytest.mark.parametrize("name", [*SCRIPTS, *LIBS])
def test_bytes_of_a_record_are_used_only_in_one_lua_file(name: str) -> None:
    assert slices_records(SCRIPTS.get(name) or LIBS[name]) is (name == "record")


def test_finished_states_are_the_same_in_lua_and_python() -> None:
    found = re.search(r"^local STATES = \{(.+)\}$", LIBS["finished"], re.MULTILINE)
    assert found
    assert found[1].replace("'", "").split(", ") == list(keys.FINISHED)


@pytest.mark.parametrize("name", replies.SHAPES)
def test_reply_has_the_field_names_of_the_script_head(name: str) -> None:
    said = shapes_in(SCRIPTS[name])
    shapes = [shape._fields for shape in replies.SHAPES[name]]
    assert shapes == [shape for shape in said if shape in shapes]


def test_reply_of_several_fields_has_a_named_tuple() -> None:
    lacking = {
        (name, *said)
        for name, text in SCRIPTS.items()
        for said in shapes_in(text)
        if said not in [shape._fields for shape in replies.SHAPES.get(name, ())]
    }
    assert lacking == {
        ("claim", "destination", "open"),
        ("claim", "destination", "waiting"),
        ("read_claims", "claims", "in_flight", "rows"),
        ("read_claims", "id", "claim"),
        ("read_claims", "destination", "counts"),
        ("release", "id", "fence", "permit"),
        ("renew", "id", "fence"),
        ("repair", "state", "keep"),
    }


def test_script_checks_the_data_first_unless_it_ends_claims() -> None:
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


def test_lua_unpacks_the_keys_in_the_order_of_python() -> None:
    found = re.search(r"^local ([A-Z, \n]+) = unpack\(KEYS\)", LIBS["keys"], re.MULTILINE)
    assert found
    names = [name.strip() for name in found[1].split(",")]
    assert [*names, *(state.upper() for state in keys.FINISHED)] == [
        name.rstrip(":").upper() for name in keys._NAMES
    ]


GOOD = "#!lua flags=allow-oom\n-- Does it.\n--\n-- ARGV[1] id\n-- Returns 'ok'\nreturn ARGV[1]\n"


def test_script_faults_is_empty_for_a_good_script() -> None:
    assert script_faults("cancel", GOOD) == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("cancel", GOOD.replace("#!lua", "#!/lua"), "begins with #!lua"),
        ("cancel", GOOD.replace(" flags=allow-oom", ""), "has the flags that fit it"),
        ("create", GOOD, "has the flags that fit it"),
        ("cancel", GOOD.replace("-- Does it.\n", ""), "states first what it does"),
        ("cancel", GOOD.replace("-- ARGV[1] id\n", ""), "states ARGV"),
        ("cancel", GOOD.replace("-- Returns 'ok'\n", ""), "states what it returns"),
        ("cancel", GOOD.replace("return ARGV[1]", "return ARGV[2]"), "states every argument"),
    ],
)
def test_script_faults_finds_what_a_head_lacks(name: str, text: str, fault: str) -> None:
    assert any(found.startswith(fault) for found in script_faults(name, text))


@pytest.mark.parametrize("line", ["call('ZADD', DUE, 1, id)", "forget(id)", "drop(id)"])
def test_writes_finds_a_change_also_through_a_lib(line: str) -> None:
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
def test_wrong_needs_finds_missing_and_unused_libs(text: str, wrong: set[str]) -> None:
    libs = {
        "clock": "local function clock()\n  return 1\nend\n",
        "keys": "local DUE,\n  TAKEN = unpack(KEYS)\n",
    }
    assert wrong_needs(text, libs) == wrong


@pytest.mark.parametrize("key", ["DUE", "PARKED .. dest", "FINISHED[state]"])
def test_moves_messages_finds_a_move_between_indexes(key: str) -> None:
    assert moves_messages(f"call('ZREM', {key}, id)")
    assert not moves_messages(f"call('ZSCORE', {key}, id)")


def test_shapes_in_finds_the_rows_and_replies_of_a_head() -> None:
    head = "#!lua\n-- Does it.\n-- ARGV[1…] (id, ms)…\n-- Returns {now,\n--   due, (word, at)…}\n"
    head += "-- {no, rest…}\n"
    assert shapes_in(head) == [("id", "ms"), ("now", "due"), ("word", "at")]
    assert shapes_in(head + "local t = {now, due}") == shapes_in(head)


@pytest.mark.parametrize("code", ["old:sub(14)", "record:byte(14, 15)", "'\\2' .. u48(now)"])
def test_slices_records_finds_the_use_of_single_bytes(code: str) -> None:
    assert slices_records(f"local a = {code}")
    assert not slices_records("local a = same_request(record, tail) .. progress:match('x')")
