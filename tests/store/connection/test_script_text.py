"""The composed texts of the scripts."""

import re

import pytest

from scheduler_api.store.connection.script_text import (
    NAMES,
    is_read_only,
    lua_text,
    path_of,
    source,
)
from scheduler_api.store.keys import OLDEST_READABLE, SCHEMA


def functions(text: str) -> list[str]:
    return re.findall(r"^local function (\w+)", text, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_source_begins_with_the_flags_and_ends_with_the_script(name: str) -> None:
    first, _, rest = lua_text(path_of(name)).partition("\n")
    assert source(name).splitlines()[0] == first
    assert source(name).endswith(f"\n{rest}")


@pytest.mark.parametrize("name", NAMES)
def test_source_defines_each_function_once_and_only_those_that_are_used(name: str) -> None:
    text = re.sub(r"--.*", "", source(name))
    defined = functions(text)
    assert len(set(defined)) == len(defined)
    assert [one for one in defined if len(re.findall(rf"\b{one}\b", text)) == 1] == []


def test_source_defines_a_function_before_it_is_used() -> None:
    assert functions(source("reap"))[-2:] == ["take_back", "take_back_all"]


def test_source_has_the_schema_and_the_number_of_partitions() -> None:
    numbers = f"OLDEST_READABLE, NEWEST_SCHEMA, PARTITIONS = {OLDEST_READABLE}, {SCHEMA}, 5"
    assert numbers in source("get", partitions=5)


def test_source_takes_a_replaced_lib() -> None:
    clock = lua_text("lib/clock.lua").replace("call('TIME')", "{1, 0}")
    assert "local time = {1, 0}" in source("claim", {"clock": clock})
    assert "local time = call('TIME')" in source("claim")


@pytest.mark.parametrize("statement", ["ruled = nil", "local ruled\nforget({})"])
def test_source_refuses_a_statement_of_a_lib_that_it_would_leave_out(statement: str) -> None:
    with pytest.raises(ValueError, match="must begin with `local NAME`"):
        source("claim", {"clock": f"-- needs: keys\n\n{statement}\n"})


def test_is_read_only_is_what_the_first_line_says() -> None:
    assert {name for name in NAMES if is_read_only(name)} == {
        *("get", "list", "inspect", "read_claims", "list_destinations", "read_destinations"),
    }
