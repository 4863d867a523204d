"""Prints the lowest version of each library that pyproject.toml allows, as constraints for pip."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest() -> Iterator[str]:
    """`name==version` for each library that the service needs, without those of the tests."""
    for line in tomllib.loads(PROJECT.read_text("utf-8"))["project"]["dependencies"]:
        needed = Requirement(line)
        [bound] = [it.version for it in needed.specifier if it.operator == ">="]
        yield f"{needed.name}=={bound}"


if __name__ == "__main__":
    print(*lowest(), sep="\n")
