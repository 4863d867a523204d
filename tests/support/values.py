"""Calls a parser in property tests, which expect a value or a ValueError."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def value_or_error(read: Callable[[], T]) -> T | bytes:
    """What `read` returns, or the text of its ValueError; it must be ASCII.

    Otherwise a response that repeats a lone surrogate could not be encoded.
    """
    try:
        return read()
    except ValueError as error:
        return str(error).encode("ascii")
