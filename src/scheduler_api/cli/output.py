"""What commands print besides their result: progress bars, and errors of writing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from scheduler_api.settings import Settings


def log_errors_only(chosen: Settings) -> Settings:
    """Log only errors of the store that the command opens, on stderr; returns the settings."""
    from scheduler_api.telemetry.logging import configure_logging  # noqa: PLC0415  slow to import

    configure_logging("ERROR", chosen.log_format)
    return chosen


@contextmanager
def progress_bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that moves the bar; there is a bar only if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(label=label, length=length, file=sys.stderr) as bar:
        yield bar.update


@contextmanager
def export_errors(file: str) -> Iterator[None]:
    """Name the output that could not be written in an OSError without a file name."""
    try:
        yield
    except OSError as error:
        if not error.strerror or error.filename:  # it names its subject already
            raise
        target = "to stdout" if file == "-" else f"{file}.part"
        hint = "" if file == "-" else ": fix this, then continue with --resume"
        raise OSError(f"cannot write {target} ({error.strerror}){hint}") from None
