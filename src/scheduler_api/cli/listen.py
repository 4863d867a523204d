"""The command `listen`: a receiver for a try-out."""

# Heavy modules are imported where they are used, so that `--version` and `--help` are fast.
# ruff: noqa: PLC0415

import sys

import click

from scheduler_api import settings
from scheduler_api.cli.errors import reported_errors
from scheduler_api.server.address import LOOPBACK
from scheduler_api.telemetry.nonblocking_output import nonblocking


@click.command()
@click.option(
    "--host",
    default=LOOPBACK,
    metavar="HOST",
    show_default=True,
    help="Address to listen on.",
)
@click.option(
    "--port",
    default=8001,
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    show_default=True,
    help="Port to listen on; 0 picks a free port.",
)
def listen(host: str, port: int) -> None:
    """Receive webhooks and print them.

    Signatures are verified if SIGNING_SECRET is set.
    """
    import asyncio

    sys.stdout = nonblocking(sys.stdout, _notice)
    with reported_errors():
        secrets = settings.load().signing_secrets
    try:
        asyncio.run(_listen(host, port, secrets))
    except OSError as error:
        reason = f"cannot listen on {host}:{port} ({error.strerror}): set --host or --port"
        raise click.ClickException(reason) from None


def _notice(dropped: int) -> bytes:
    return f"({dropped} lines could not be printed)\n".encode()


async def _listen(host: str, port: int, secrets: tuple[bytes, ...]) -> None:
    import asyncio
    import signal

    from scheduler_api.receiver import receiver

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with receiver(host, port, secrets, echo=click.echo) as address:
        click.echo(f"Listening on {address} (press Ctrl-C to stop)")
        await stopped.wait()
