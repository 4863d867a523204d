"""Where the texts of settings come from: flags, environment, .env, and files (NAME_FILE).

The only module that reads the environment.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

Source = Mapping[str, str | None]  # variable → text


class SettingsError(ValueError):
    """A setting is wrong; the text names the variable and the valid values."""


class Found(NamedTuple):
    """The text of a setting, and where it was found."""

    text: str
    source: int  # 0: flags, 1: environment, 2: .env; a lower one takes precedence


def find(
    variables: Iterable[str],
    flags: Mapping[str, str],
    environ: Mapping[str, str] | None,
    dotenv: Path | None,
) -> dict[str, Found]:
    """Variable → its text in the first source that has one. Raises: SettingsError.

    `environ` None: the environment of this process. Empty text counts as not set.
    """
    sources = (flags, os.environ if environ is None else environ, _read_dotenv(dotenv))
    return {name: found for name in variables if (found := _find(name, sources))}


def _read_dotenv(path: Path | None) -> Source:
    if path is None or not path.is_file():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415  takes 10 ms, which most starts do not need

    try:
        # Not interpolated: a token may contain "${", and only this module reads os.environ.
        return dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None


def _find(variable: str, sources: Iterable[Source]) -> Found | None:
    for number, source in enumerate(sources):
        plain = source.get(variable) or ""
        file = source.get(f"{variable}_FILE") or ""
        if plain.strip() and file:
            raise SettingsError(f"{variable} and {variable}_FILE are both set: set only one")
        text = _read_file(variable, file) if file else plain
        if text.strip():
            return Found(text, number)
    return None


def _read_file(variable: str, file: str) -> str:
    try:
        return Path(file).read_text("utf-8-sig").rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingsError(f"{variable}_FILE is {file!r}: cannot read it ({reason})") from None
