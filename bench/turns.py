"""The order in which the sides of a run are measured."""

from collections.abc import Callable
from typing import Any

Sides = dict[str, Callable[[], Any]]  # name → function that measures it


def in_turn(index: int, sides: Sides) -> dict[str, Any]:
    """Measure each side, in every second run in reverse order → results in the given order."""
    names = list(sides)
    results = {name: sides[name]() for name in (reversed(names) if index % 2 else names)}
    return {name: results[name] for name in names}
