"""Commands that work on the store without a server: export, import, fsck."""

# Heavy modules are imported where they are used, so that `--version` and `--help` are fast.
# ruff: noqa: PLC0415

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scheduler_api import settings
from scheduler_api.cli.errors import InvalidSettings, reported_errors
from scheduler_api.cli.output import export_errors, log_errors_only, progress_bar
from scheduler_api.settings import Settings, store_url

if TYPE_CHECKING:
    from scheduler_api.admin.fsck_report import Report
    from scheduler_api.admin.transfer import Imported


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--resume", is_flag=True, help="Continue an interrupted export into FILE.")
def export(file: str, resume: bool) -> None:
    """Write every pending message to FILE, one JSON object a line.

    If FILE is -, write to stdout. To move messages to another place, stop the server first:
    messages that it sends during the export are in FILE too.
    """
    import asyncio

    with reported_errors():
        written = asyncio.run(_export(log_errors_only(settings.load()), file, resume))
    click.echo(f"{written:,} message{'' if written == 1 else 's'} exported", err=True)


async def _export(chosen: Settings, file: str, resume: bool) -> int:
    from scheduler_api.admin import transfer
    from scheduler_api.admin.checked_store import open_checked_store

    if file == "-" and sys.stdout is None:
        raise OSError("stdout is closed: give a FILE")
    with export_errors(file), ExitStack() as stack:
        into = None if file == "-" else transfer.ExportFile(Path(file), resume=resume)
        async with open_checked_store(chosen) as store:
            out = stack.enter_context(into) if into else sys.stdout.buffer
            last = into.last if into else b""
            advance = stack.enter_context(progress_bar("Exporting", await store.messages.count()))
            advance(into.lines if into else 0)
            return await transfer.export(store, out, last, advance)


@click.command(name="import")
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@click.option(
    "--from-original",
    metavar="URL",
    help="Import the messages of the original Scheduler API from its Redis, which is only read.",
)
def import_(file: str | None, from_original: str | None) -> None:
    """Import the messages of FILE, which `export` has written.

    If FILE is -, read from stdin. Messages that exist already are skipped, so an interrupted
    import can be run again. If any line is invalid, nothing is imported. A message is refused if
    another message has its id.
    """
    import asyncio

    if (file is None) == (from_original is None):
        raise click.UsageError("Give FILE or --from-original URL.")
    if from_original is not None:
        from_original = _single_server(from_original)
    with reported_errors():
        outcome = asyncio.run(_import(log_errors_only(settings.load()), file, from_original))
    click.echo(f"{outcome.restored:,} imported, {outcome.same:,} existed already", err=True)
    for refused in outcome.refused:
        click.echo(f"refused: {refused.subject}: {refused.reason}", err=True)
    if outcome.refusals:
        raise click.ClickException(f"{outcome.refusals:,} refused")


def _single_server(url: str) -> str:
    """The URL, if it is that of one server. Raises: InvalidSettings."""
    from urllib.parse import urlsplit

    try:
        valid = store_url.validated(url)
        if "+" in urlsplit(valid).scheme:
            raise ValueError("must be redis://HOST, rediss://HOST or unix:///PATH")
    except ValueError as error:
        raise InvalidSettings(f"--from-original is invalid: {error}") from None
    return valid


async def _import(chosen: Settings, file: str | None, original: str | None) -> "Imported":
    from scheduler_api.admin import transfer
    from scheduler_api.admin.checked_store import open_checked_store

    async with open_checked_store(chosen) as store:
        if original is not None:
            return await transfer.import_original(store, original, chosen)
        with ExitStack() as stack:
            lines = stack.enter_context(transfer.rewindable(file or "-", sys.stdin.buffer))
            # Each byte is read twice: to check every line, and to import it.
            length = 2 * transfer.size_of(lines)
            advance = stack.enter_context(progress_bar("Importing", length))
            return await transfer.import_lines(store, lines, chosen, advance)


@click.command()
@click.option("--repair", is_flag=True, help="Fix the problems, and print each change.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def fsck(repair: bool, as_json: bool) -> None:
    """Check the stored data for damage; servers may be running.

    The exit code is 0 if no problems are left, else 1. In doubt, a repair
    lets a message be sent twice rather than never. Unknown keys are reported and left alone.
    """
    import asyncio

    with reported_errors():
        report = asyncio.run(_fsck(log_errors_only(settings.load()), repair))
    click.echo(report.as_json() if as_json else report.as_text())
    if report.left:
        raise click.exceptions.Exit(1)


async def _fsck(chosen: Settings, repair: bool) -> "Report":
    from scheduler_api.admin import fsck_report
    from scheduler_api.admin.checked_store import open_checked_store

    async with open_checked_store(chosen) as store:
        return await fsck_report.report(store, repair=repair)
