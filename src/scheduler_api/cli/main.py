"""The command scheduler-api: arguments in, calls of server/start and listen, lines out."""

# Heavy modules are imported where they are used: `--version` and `--help` answer at once.
# ruff: noqa: PLC0415

import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from scheduler_api import __version__, settings
from scheduler_api.domain.errors import SchedulerError
from scheduler_api.settings import Settings, SettingsError, store_url
from scheduler_api.telemetry.pipe import guarded

if TYPE_CHECKING:
    from scheduler_api.admin.fsck_report import Report
    from scheduler_api.admin.transfer import Imported

LOOPBACK = "127.0.0.1"
CALLED = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}  # listened on → dialled
ALIASES = {"API_HOST": "--host", "API_PORT": "--port"}  # variable → its short option
PATIENCE = 5  # seconds a health check waits


class WrongSettings(click.ClickException):
    """Told in one line; exit 2, as for a wrong argument."""

    exit_code = 2


class _Commands(click.Group):
    """Ends with a line that says so where stdout cannot be written; stderr stops no command."""

    def main(self, *args: Any, **options: Any) -> Any:
        """As click does it."""
        sys.stderr = guarded(sys.stderr)
        try:
            return super().main(*args, **options)
        except OSError as error:  # a command reports its own: this is of what it prints
            click.echo(f"Error: cannot write to stdout ({error.strerror})", err=True)
            sys.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scheduler-api", message="%(prog)s %(version)s")
def main() -> None:
    """Send a webhook to the future: this payload, to this URL, at this instant."""


def _options() -> list[click.Parameter]:
    """One option a setting, named and explained as the setting is."""
    return [
        click.Option(
            [it.name, f"--{it.name.lower().replace('_', '-')}", *_alias(it.name)],
            metavar="VALUE",
            help=f"{it.meaning}. [{it.name}{f'={it.default}' if it.default else ''}]",
        )
        for it in settings.describe()
    ]


def _alias(variable: str) -> list[str]:
    return [ALIASES[variable]] if variable in ALIASES else []


def serve(listen: int | None, **flags: str | None) -> None:
    """Run the server. Every option may also come from the environment or from .env."""
    from scheduler_api.telemetry.logging import guard_streams

    guard_streams()
    with _told():
        chosen = settings.load({name: value for name, value in flags.items() if value is not None})
        from scheduler_api.server import serve as start

        start.serve(chosen if listen is None else open_to(chosen, listen), listen=listen)


main.add_command(
    click.Command(
        "serve",
        callback=serve,
        help=serve.__doc__,
        params=[
            click.Option(
                ["--listen"],
                type=click.IntRange(1, 65_535),
                metavar="PORT",
                help=f"Try-out: also run a receiver on {LOOPBACK}:PORT, and allow sending to it.",
            ),
            *_options(),
        ],
    )
)


@main.command()
@click.option("--host", default=LOOPBACK, show_default=True, help="Address to listen on.")
@click.option("--port", default=8001, type=click.IntRange(0, 65_535), show_default=True)
def listen(host: str, port: int) -> None:
    """Print every webhook that arrives; check signatures when SIGNING_SECRET is set."""
    import asyncio

    sys.stdout = guarded(sys.stdout, _missing_lines)
    with _told():
        secrets = settings.load().signing_secrets
    try:
        asyncio.run(_listen(host, port, secrets))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error}") from None


@main.command()
@click.option("--live", is_flag=True, help="Ask whether the process works, without the store.")
def healthcheck(live: bool) -> None:
    """Ask the server on this machine whether it takes traffic; exit 0 or 1."""
    path = "/health/live" if live else "/health/ready"
    with _told():
        chosen = settings.load()
    try:
        status, text = _ask(CALLED.get(chosen.api_host, chosen.api_host), chosen.api_port, path)
    except OSError as error:
        raise click.ClickException(f"no answer: {error}") from None
    with suppress(OSError):  # the exit code is the answer
        click.echo(f"{status} {text}")
    if status != 200:
        raise click.exceptions.Exit(1)


@main.command(name="export")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--resume", is_flag=True, help="Go on where an export into FILE was cut off.")
def export_(file: str, resume: bool) -> None:
    """Write every pending message to FILE, or to stdout if it is -, one JSON a line.

    What is being sent meanwhile is in it too: stop the service before it is moved elsewhere.
    """
    import asyncio

    with _told():
        written = asyncio.run(_export(_quiet(settings.load()), file, resume))
    click.echo(f"{written:,} messages exported", err=True)


@main.command(name="import")
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@click.option(
    "--from-original",
    metavar="URL",
    help="Take over what the original service keeps in this Redis; its keys stay as they are.",
)
def import_(file: str | None, from_original: str | None) -> None:
    """Put in the messages of FILE, an export; of stdin if it is -.

    A message that is there already is skipped, so that a repetition goes on. One bad line, and
    nothing is put in. An id that another message has is refused.
    """
    import asyncio

    if (file is None) == (from_original is None):
        raise click.UsageError("Give FILE or --from-original URL.")
    if from_original is not None:
        from_original = _one_server(from_original)
    with _told():
        outcome = asyncio.run(_import(_quiet(settings.load()), file, from_original))
    click.echo(f"{outcome.restored:,} imported, {outcome.same:,} were there already", err=True)
    for refused in outcome.refused:
        click.echo(f"refused: {refused.subject}: {refused.reason}", err=True)
    if outcome.refusals:
        raise click.ClickException(f"{outcome.refusals:,} refused")


def _one_server(url: str) -> str:
    from urllib.parse import urlsplit

    try:
        checked = store_url.validated(url)
        if "+" in urlsplit(checked).scheme:
            raise ValueError("must be redis://HOST, rediss://HOST or unix:///PATH")
    except ValueError as error:
        raise WrongSettings(f"--from-original is invalid: {error}") from None
    return checked


@main.command()
@click.option("--repair", is_flag=True, help="Put right what is wrong, and tell each act.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def fsck(repair: bool, as_json: bool) -> None:
    """Check the data against the invariants, beside running servers too; exit 0 if all is well.

    Where it is in doubt, a repair sends a message once more rather than not at all. Keys of nobody
    are told and left alone.
    """
    import asyncio

    with _told():
        report = asyncio.run(_fsck(_quiet(settings.load()), repair))
    click.echo(report.as_json() if as_json else report.as_text())
    if report.left:
        raise click.exceptions.Exit(1)


@main.command()
def version() -> None:
    """Print the version, and that of Python."""
    click.echo(f"scheduler-api {__version__} (Python {platform.python_version()})")


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise WrongSettings(" ".join(str(error).splitlines())) from None
    except (OSError, SchedulerError) as error:  # a taken port; a store that does not start
        raise click.ClickException(str(error)) from None


def open_to(chosen: Settings, port: int) -> Settings:
    """The same settings, which also let messages go to 127.0.0.1:port and nothing else."""
    rules = chosen.egress_allow
    receiver = type(rules).parse(f"{LOOPBACK}:{port}")
    return replace(
        chosen, egress_allow=replace(rules, addresses=rules.addresses + receiver.addresses)
    )


def _missing_lines(count: int) -> bytes:
    return f"({count} lines could not be printed)\n".encode()


async def _listen(host: str, port: int, secrets: tuple[bytes, ...]) -> None:
    import asyncio
    import signal

    from scheduler_api.receiver import receiver

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with receiver(host, port, secrets, echo=click.echo) as address:
        click.echo(f"Listening on {address} (Ctrl-C stops)")
        await stopped.wait()


def _quiet(chosen: Settings) -> Settings:
    """The same settings; of the store that they open only errors are logged, on stderr."""
    from scheduler_api.telemetry.logging import configure_logging

    configure_logging("ERROR", chosen.log_format)
    return chosen


async def _export(chosen: Settings, file: str, resume: bool) -> int:
    from scheduler_api.admin import transfer
    from scheduler_api.admin.checked_store import open_checked_store

    if file == "-" and sys.stdout is None:
        raise OSError("stdout is closed: give a FILE")
    with _writing(file), ExitStack() as stack:
        into = None if file == "-" else transfer.ExportFile(Path(file), resume=resume)
        async with open_checked_store(chosen) as store:
            out = stack.enter_context(into) if into else sys.stdout.buffer
            last = into.last if into else b""
            bar = stack.enter_context(_bar("Exporting", await store.messages.count()))
            bar(into.lines if into else 0)
            return await transfer.export(store, out, last, bar)


@contextmanager
def _writing(file: str) -> Iterator[None]:
    """Says of a full disk or a closed pipe what could not be written."""
    try:
        yield
    except OSError as error:
        if not error.strerror or error.filename:  # it names what it is about
            raise
        what = "to stdout" if file == "-" else f"{file}.part"
        then = "" if file == "-" else ": when it can be, go on with --resume"
        raise OSError(f"cannot write {what} ({error.strerror}){then}") from None


async def _import(chosen: Settings, file: str | None, original: str | None) -> "Imported":
    from scheduler_api.admin import transfer
    from scheduler_api.admin.checked_store import open_checked_store

    async with open_checked_store(chosen) as store:
        if original is not None:
            return await transfer.import_original(store, original, chosen)
        with ExitStack() as stack:
            lines = stack.enter_context(transfer.rewindable(file or "-", sys.stdin.buffer))
            # Each byte is read twice: to see whether every line is good, and to put them in.
            bar = stack.enter_context(_bar("Importing", 2 * transfer.size_of(lines)))
            return await transfer.import_lines(store, lines, chosen, bar)


async def _fsck(chosen: Settings, repair: bool) -> "Report":
    from scheduler_api.admin import fsck_report
    from scheduler_api.admin.checked_store import open_checked_store

    async with open_checked_store(chosen) as store:
        return await fsck_report.report(store, repair=repair)


@contextmanager
def _bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """Moved by what is called; shown on a terminal alone."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(label=label, length=length, file=sys.stderr) as bar:
        yield bar.update


def _ask(host: str, port: int, path: str) -> tuple[int, str]:
    from http.client import HTTPConnection, HTTPException

    # Not urllib: it would send even this through the proxy that the environment names.
    connection = HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(1000).decode(errors="replace").strip()
    except HTTPException as error:
        raise OSError(f"this is not HTTP: {error!r}") from None
    finally:
        connection.close()
