"""The command `scheduler-api`: its group of commands, and what happens when stdout is not writable.

Exit codes: 0 success, 1 failure, 2 a wrong argument or setting.
"""

import platform
import sys
from typing import Any

import click

from scheduler_api import __version__
from scheduler_api.cli.admin import export, fsck, import_
from scheduler_api.cli.healthcheck import healthcheck
from scheduler_api.cli.listen import listen
from scheduler_api.cli.serve import serve
from scheduler_api.telemetry.nonblocking_output import nonblocking


class _Group(click.Group):
    """Reports a stdout that cannot be written; a stderr that cannot be written stops no command."""

    def main(self, *args: Any, **options: Any) -> Any:
        """As in click."""
        sys.stderr = nonblocking(sys.stderr)
        try:
            return super().main(*args, **options)
        except OSError as error:  # of printing: commands report their own OSErrors
            click.echo(f"Error: cannot write to stdout ({error.strerror})", err=True)
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scheduler-api", message="%(prog)s %(version)s")
def main() -> None:
    """Send webhooks at a later time."""


@main.command()
def version() -> None:
    """Print the versions of scheduler-api and Python."""
    click.echo(f"scheduler-api {__version__} (Python {platform.python_version()})")


for command in (serve, listen, healthcheck, export, import_, fsck):
    main.add_command(command)
