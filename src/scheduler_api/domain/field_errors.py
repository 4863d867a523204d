"""Errors of msgspec in plain words: which field is wrong, and what would be right.

msgspec names Python types and says no more than what it expected; callers see JSON.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from scheduler_api.domain.errors import FieldError, pointer_step

MAX_ECHO: Final = 200  # characters of a request that an error message repeats

# Parts of msgspec's error messages.
_PLACE: Final = re.compile(r" - at `\$(.*)`$")
_UNKNOWN: Final = re.compile(r"unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"missing required field `(.*)`")
_TYPE: Final = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_BOUND: Final = re.compile(r"Expected `(\w+)`( of length)? ([<>]=) (\d+)")
_CHOICE: Final = re.compile(r"Invalid enum value ('.*')", re.DOTALL)

_TYPE_NAMES: Final = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_FOUND_NAMES: Final = _TYPE_NAMES | {
    "int": "a number",
    "float": "a decimal number",
    "bool": "a boolean",
}


def field_error(text: str, form: Any, fields: Iterable[str]) -> FieldError:
    """An error message of msgspec as a JSON pointer and a message.

    `form`: the type that was decoded. `fields`: the known names, for a hint.
    """
    place = _PLACE.search(text)
    steps = place[1] if place else ""
    # msgspec writes [...] for a member of an object, without its name.
    pointer = re.sub(r"\[(\d+)\]", r"/\1", steps.replace("[...]", "")).replace(".", "/")
    sentence = _PLACE.sub("", text)
    if unknown := _UNKNOWN.search(sentence):
        name = unknown[1][:MAX_ECHO]
        near = difflib.get_close_matches(name, list(fields), 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        return FieldError(f"{pointer}/{pointer_step(name)}", f"there is no such field{hint}")
    if missing := _MISSING.search(sentence):
        return FieldError(f"{pointer}/{missing[1]}", "this field is required")
    message = _message(sentence, form, pointer)
    return FieldError(pointer or "/", f"each value {message}" if "[...]" in steps else message)


def _message(sentence: str, form: Any, pointer: str) -> str:
    if wrong := _TYPE.fullmatch(sentence):
        return f"must be {_type_names(wrong[1])}, not {_FOUND_NAMES.get(wrong[2], wrong[2])}"
    if bound := _BOUND.fullmatch(sentence):
        return _bound(*bound.groups())
    if choice := _CHOICE.fullmatch(sentence):
        allowed = ", ".join(_choices_at(form, pointer))
        return f"{choice[1][:MAX_ECHO]} is not allowed; use one of {allowed}"
    return sentence[:1].lower() + sentence[1:MAX_ECHO]


def _type_names(types: str) -> str:
    """Names of types that msgspec writes as `int | str | null`; a field may always be left out."""
    names = types.replace("int | float", "float").removesuffix(" | null").split(" | ")
    return " or ".join(_TYPE_NAMES.get(name, name) for name in names)


def _bound(kind: str, length: str | None, sign: str, number: str) -> str:
    at = "at least" if sign == ">=" else "at most"
    if not length:
        return f"must be {at} {number}"
    unit = "characters" if kind == "str" else "items" if number != "1" else "item"
    return f"must have {at} {number} {unit}"


def _choices_at(form: Any, pointer: str) -> Iterator[str]:
    """The allowed texts of a field of a struct."""
    for field in msgspec.structs.fields(form):
        if f"/{field.encode_name}" == pointer:
            yield from _choices(field.type)


def _choices(kind: Any) -> Iterator[str]:
    if get_origin(kind) is Literal:
        yield from get_args(kind)
        return
    for part in get_args(kind):
        yield from _choices(part)
