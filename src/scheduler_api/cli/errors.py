"""Errors of commands: printed in one line, with an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from scheduler_api.domain.errors import SchedulerError, text_with_cause
from scheduler_api.settings import SettingsError


class InvalidSettings(click.ClickException):
    """A setting or an argument is wrong; exit code 2, as click's for a wrong argument."""

    exit_code = 2


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn the errors of a command into click's: one line, exit code 1, or 2 for settings."""
    try:
        yield
    except SettingsError as error:
        raise InvalidSettings(" ".join(str(error).splitlines())) from None
    except (OSError, SchedulerError) as error:  # a used port; a store that does not start
        raise click.ClickException(text_with_cause(error)) from None
