"""The command `serve`: one option for each setting."""

# Heavy modules are imported where they are used, so that `--version` and `--help` are fast.
# ruff: noqa: PLC0415

from typing import Final

import click
from msgspec.structs import replace

from scheduler_api import settings
from scheduler_api.cli.errors import reported_errors
from scheduler_api.server.address import LOOPBACK
from scheduler_api.settings import Settings

SHORT_OPTIONS: Final = {"API_HOST": "--host", "API_PORT": "--port"}  # variable → second option


def _run(listen: int | None, **flags: str | None) -> None:
    """Run the server.

    Every option can also be set by the environment variable in brackets, or in the file .env.
    """
    from scheduler_api.telemetry.logging import make_streams_nonblocking

    make_streams_nonblocking()
    with reported_errors():
        chosen = settings.load({name: value for name, value in flags.items() if value is not None})
        from scheduler_api.server import serve

        serve.serve(chosen if listen is None else allow_receiver(chosen, listen), listen=listen)


def allow_receiver(chosen: Settings, port: int) -> Settings:
    """The same settings, with webhooks also allowed to this port of loopback."""
    rules = chosen.egress_allow
    receiver = type(rules).parse(f"{LOOPBACK}:{port}")
    return replace(
        chosen, egress_allow=replace(rules, addresses=rules.addresses + receiver.addresses)
    )


def _options() -> list[click.Parameter]:
    return [
        click.Option(
            [it.name, f"--{it.name.lower().replace('_', '-')}", *_short_option(it.name)],
            metavar="VALUE",
            help=f"{it.meaning}. [{it.name}{f'={it.default}' if it.default else ''}]",
        )
        for it in settings.describe()
    ]


def _short_option(variable: str) -> list[str]:
    return [SHORT_OPTIONS[variable]] if variable in SHORT_OPTIONS else []


_LISTEN: Final = click.Option(
    ["--listen"],
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    help=f"For a try-out: also run a receiver on {LOOPBACK}:PORT that prints every webhook.",
)

serve = click.Command("serve", callback=_run, help=_run.__doc__, params=[_LISTEN, *_options()])
