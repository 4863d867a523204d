"""Rules on files and names: length, tests that mirror the modules, constants with one value.

Each rule is a function over texts or paths, and is itself tested on one that breaks it.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.test_architecture import LUA, PACKAGE, SOURCES

TESTS = Path(__file__).parent
MAX_LINES = 300  # of a module, unless its docstring has "300 lines" and the reason

# Test files that name no module or script → their subject.
SUBJECTS: Mapping[str, str] = {
    "api/test_contract.py": "requests and responses compared with the OpenAPI document",
    "api/test_framing.py": "how requests are framed, sent as raw bytes",
    "api/test_root_path.py": "the API under a path prefix",
    "delivery/http/test_connections.py": "number of connections, open and idle",
    "delivery/http/test_receivers.py": "receivers that misbehave",
    "delivery/http/test_response_cases.py": "a table of responses, also read by aiohttp",
    "delivery/test_concurrency.py": "open requests to one destination, on the wire",
    "delivery/test_fairness.py": "slow receivers beside fast ones",
    "delivery/test_memory.py": "memory that deliveries take",
    "delivery/test_slot_memory.py": "memory that slots take",
    "store/audit/test_damaged.py": "reading damaged records",
    "store/connection/test_rights.py": "permissions of the store's user",
    "store/test_create_many.py": "create with several messages",
    "store/test_destination_list.py": "pages of destinations",
    "store/test_destination_names.py": "one destination for several forms of a host",
    "store/test_histories.py": "random calls compared with a model",
    "store/test_other_partitions.py": "processes with another number of partitions",
    "store/test_partitions.py": "data in several partitions",
    "store/test_queued_claims.py": "claims of messages that wait for a permit",
    "store/test_random_limits.py": "random limits of destinations",
    "store/test_shares.py": "fair shares of destinations in a claim",
    "store/test_unreachable.py": "the number of unreachable destinations remembered",
}
# Folders of tests that mirror no room.
OTHER_FOLDERS = {"campaigns", "crash", "faults", "sim", "support", "system"}


def is_too_long(text: str) -> bool:
    """Whether a module has more lines than allowed, and does not say why."""
    reason = "300 lines" in (ast.get_docstring(ast.parse(text)) or "")
    return len(text.splitlines()) > MAX_LINES and not reason


def starts_servers(text: str) -> bool:
    """Whether a module starts servers of asyncio itself."""
    return re.search(r"(?<!socket)\.(start|create)(_unix)?_server\(", text) is not None


def constants(text: str) -> dict[str, str]:
    """Name → expression of each constant of a module, public or not."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            for name in names:
                if isinstance(name, ast.Name) and re.fullmatch(r"_?[A-Z][A-Z0-9_]*", name.id):
                    found[name.id] = ast.unparse(node.value) if node.value else ""
    return found


def ambiguous(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Constant → modules, for constants that have different values in several modules."""
    values: dict[str, dict[str, str]] = defaultdict(dict)
    for module, text in texts.items():
        for name, value in constants(text).items():
            values[name][module] = value
    return {name: sorted(by) for name, by in values.items() if len(set(by.values())) > 1}


def modules_of(paths: Sequence[str]) -> dict[str, set[str]]:
    """Folder → names of the modules and folders in it, and its own name."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in map(Path, paths):
        folder = path.parent.as_posix()
        found[folder] |= {path.stem, path.parent.name}
        found[path.parent.parent.as_posix()].add(path.parent.name)
    return found


def is_mirrored(path: str, modules: Mapping[str, set[str]], scripts: set[str]) -> bool:
    """Whether a test file has the name of a module in its room, or of a script of the store."""
    test = Path(path)
    name = test.stem.removeprefix("test_")
    folder = test.parent.as_posix()
    return name in modules.get(folder, set()) or (folder == "store" and name in scripts)


MODULES = modules_of([path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")])
LUA_SCRIPTS = {path.stem for path in LUA.glob("*/*.lua")}
TEST_FILES = sorted(
    path
    for path in (path.relative_to(TESTS).as_posix() for path in TESTS.glob("*/**/test_*.py"))
    if path.partition("/")[0] not in OTHER_FOLDERS
)


@pytest.mark.parametrize("module", SOURCES)
def test_module_has_at_most_300_lines_or_states_the_reason(module: str) -> None:
    assert not is_too_long(SOURCES[module])


@pytest.mark.parametrize("path", TEST_FILES)
def test_test_file_names_a_module_a_script_or_a_known_subject(path: str) -> None:
    assert is_mirrored(path, MODULES, LUA_SCRIPTS) is not (path in SUBJECTS)


def test_known_subjects_exist() -> None:
    assert set(SUBJECTS) <= set(TEST_FILES)


def test_is_too_long_finds_a_module_of_301_lines_without_a_reason() -> None:
    lines = "x = 1\n" * MAX_LINES
    assert is_too_long(f'"""What lives here."""\n{lines}')
    assert not is_too_long(f'"""Longer than 300 lines: one table."""\n{lines}')
    assert not is_too_long(lines)


def test_is_mirrored_needs_a_module_in_the_same_room() -> None:
    modules = modules_of(["store/keys.py", "store/audit/fsck.py", "domain/url.py"])
    assert is_mirrored("store/test_keys.py", modules, set())
    assert is_mirrored("store/test_audit.py", modules, set())
    assert is_mirrored("store/audit/test_audit.py", modules, set())
    assert is_mirrored("store/test_claim.py", modules, {"claim"})
    assert not is_mirrored("domain/test_keys.py", modules, set())
    assert not is_mirrored("domain/test_claim.py", modules, {"claim"})


def test_tests_start_servers_that_end_their_connections() -> None:
    """Whoever starts a server uses Connections, which ends them."""
    others = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]
    starting = [path for path in others if starts_servers(path.read_text())]
    found = {path.relative_to(TESTS).as_posix() for path in starting}
    assert found == {"support/fault_proxy.py", "support/stream_server.py"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("await asyncio.start_server(f, host, 0)", True),
        ("await asyncio.start_unix_server(f, path)", True),
        ("await loop.create_server(f)", True),
        ("with socket.create_server(address): ...", False),
        ("async with tcp_server(f): ...", False),
    ],
)
def test_starts_servers_finds_servers_of_asyncio(text: str, *, found: bool) -> None:
    assert starts_servers(text) is found


def test_constant_has_the_same_value_in_all_modules() -> None:
    assert ambiguous(SOURCES) == {}


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("LIMIT = 1", "LIMIT = 2", {"LIMIT": ["a", "b"]}),
        ("LIMIT: Final = 1", "_LIMIT = 2", {}),
        ("LIMIT = 1", "LIMIT = 1", {}),
        ("LOW, HIGH = 1, 2", "HIGH: int = 2", {"HIGH": ["a", "b"]}),
        ("Alias = int", "Alias = str", {}),
        ("def f():\n    LIMIT = 1", "LIMIT = 2", {}),
    ],
)
def test_ambiguous_finds_a_constant_with_two_values(
    first: str, second: str, found: dict[str, list[str]]
) -> None:
    assert ambiguous({"a": first, "b": second}) == found
