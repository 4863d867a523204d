"""The error tree: its drawing, its texts, and its HTTP statuses."""

import re

import pytest

from scheduler_api.api.http import STATUSES, problem
from scheduler_api.domain import errors
from scheduler_api.domain.errors import FieldError, Invalid, SchedulerError, pointer_step

_LINE = re.compile(r"(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: +(?P<status>\d{3}))?")


def tree(root: type[SchedulerError] = SchedulerError) -> list[type[SchedulerError]]:
    """A class and all its subclasses."""
    return [root, *(one for child in root.__subclasses__() for one in tree(child))]


def drawn(text: str) -> list[tuple[str, str | None, int | None]]:
    """Name, name of the parent and status on each line of a drawing, from the top."""
    found: list[tuple[str, str | None, int | None]] = []
    parents: list[str] = []
    for line in text.splitlines():
        if row := _LINE.match(line):
            depth = len(row["indent"]) // 4
            parents[depth:] = [row["name"]]
            status = int(row["status"]) if row["status"] else None
            found.append((row["name"], parents[depth - 1] if depth else None, status))
    return found


def drawing() -> str:
    """The part of the module's docstring that is the tree."""
    text = errors.__doc__ or ""
    return text[text.index("SchedulerError\n") : text.index("\n\nA failed delivery")]


def made(error: type[SchedulerError]) -> SchedulerError:
    return error([FieldError("/id", "is wrong")]) if issubclass(error, Invalid) else error()


def test_docstring_draws_the_classes_in_their_order() -> None:
    own = [one for one in tree() if one.__module__ == errors.__name__]
    classes = [
        (one.__name__, None if one is SchedulerError else one.__bases__[0].__name__) for one in own
    ]
    assert [(name, parent) for name, parent, _ in drawn(drawing())] == classes


def test_drawing_without_a_class_fails() -> None:
    less = drawing().replace("├── Unauthenticated      401\n", "")
    assert "Unauthenticated" not in [name for name, _, _ in drawn(less)]
    assert len(drawn(less)) == len(drawn(drawing())) - 1


def test_docstring_draws_the_status_of_each_error() -> None:
    for name, _, status in drawn(drawing()):
        if status is not None:
            assert problem(made(getattr(errors, name))).status_code == status


@pytest.mark.parametrize("error", tree()[1:])
def test_error_has_a_status_a_code_and_a_sentence(error: type[SchedulerError]) -> None:
    assert any(issubclass(error, family) for family, _, _ in STATUSES)
    assert re.fullmatch(r"[a-z_]+", error.code)
    assert (error.__doc__ or "").endswith(".")
    assert "\n" not in (error.__doc__ or "")


def test_error_codes_are_unique() -> None:
    codes = [error.code for error in tree()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("error", [one for one in tree() if not issubclass(one, Invalid)])
def test_error_without_a_detail_has_its_docstring_as_detail(error: type[SchedulerError]) -> None:
    assert str(error()) == (error.__doc__ or "").strip()
    assert str(error("Another one.")) == "Another one."


def test_error_keeps_its_facts() -> None:
    assert errors.DuplicateMessage(state="failed").facts == {"state": "failed"}


def test_invalid_names_every_wrong_field_in_its_detail() -> None:
    wrong = [FieldError("/id", "is too long"), FieldError("?limit", "is no number")]
    assert str(Invalid(wrong)) == "/id: is too long; ?limit: is no number"
    assert Invalid(wrong).errors == wrong


@pytest.mark.parametrize(("name", "step"), [("a", "a"), ("a/b~c", "a~1b~0c"), ("~1", "~01")])
def test_pointer_step_escapes_tilde_and_slash(name: str, step: str) -> None:
    assert pointer_step(name) == step


def caused(error: SchedulerError, cause: str) -> SchedulerError:
    error.__cause__ = OSError(cause)
    return error


def test_text_with_cause_adds_the_cause_on_one_line() -> None:
    error = caused(errors.StoreUnavailable("It is away."), "127.0.0.1:1\nrefused")
    assert errors.text_with_cause(error) == "It is away. (127.0.0.1:1 refused)"


def test_text_with_cause_leaves_out_what_the_text_already_has() -> None:
    assert errors.text_with_cause(errors.StoreUnavailable("It is away.")) == "It is away."
    error = caused(errors.StoreUnavailable("It is away: refused"), "refused")
    assert errors.text_with_cause(error) == "It is away: refused"


def test_text_with_cause_leaves_out_the_words_of_a_script() -> None:
    error = caused(errors.OtherPartitions("Set PARTITIONS=1."), "PARTITIONS 1 4 script: on @x:13.")
    assert errors.text_with_cause(error) == "Set PARTITIONS=1."
