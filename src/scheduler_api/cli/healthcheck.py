"""The command `healthcheck`: asks the server on this machine for its health."""

from contextlib import suppress
from typing import Final

import click

from scheduler_api import settings
from scheduler_api.cli.errors import reported_errors
from scheduler_api.server.address import reachable_host

TIMEOUT: Final = 5  # seconds
MAX_PRINTED: Final = 1000  # bytes of the response


@click.command()
@click.option("--live", is_flag=True, help="Check only that the process runs, not the store.")
def healthcheck(live: bool) -> None:
    """Check that the server on this machine accepts requests.

    The exit code is 0 if it does, else 1.
    """
    path = "/health/live" if live else "/health/ready"
    with reported_errors():
        chosen = settings.load()
    host, port = reachable_host(chosen.api_host), chosen.api_port
    try:
        status, text = _get(host, port, path)
    except OSError as error:
        reason = error.strerror or error
        raise click.ClickException(f"no response from {host} port {port}: {reason}") from None
    with suppress(OSError):  # the exit code is what counts
        click.echo(f"{status} {text}")
    if status != 200:
        raise click.exceptions.Exit(1)


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415  slow to import

    # Not urllib: it would send even this through the proxy of the environment.
    connection = HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read(MAX_PRINTED).decode(errors="replace").strip()
    except HTTPException as error:
        raise OSError(f"the response is not HTTP: {error!r}") from None
    else:
        return response.status, text
    finally:
        connection.close()
