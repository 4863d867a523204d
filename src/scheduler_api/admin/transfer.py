"""Export and import: pending messages to and from files, and from the original service.

Asked by cli; a `step` is told of each message or byte that is done, for a progress bar.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from scheduler_api.admin.ndjson import pack_line, position_of, unpack_line, unpack_original
from scheduler_api.domain.errors import SchedulerError
from scheduler_api.settings import Settings
from scheduler_api.store.audit.dump import Position, Restorable
from scheduler_api.store.audit.legacy import originals
from scheduler_api.store.store import Store

BATCH: Final = 500  # messages put in by one call of the archive
TOLD: Final = 20  # of what was refused; the rest is counted

Step = Callable[[int], None]


class Refused(msgspec.Struct, frozen=True):
    """What was not put in."""

    subject: str  # "line 7", or an id
    reason: str


class Imported(msgspec.Struct):
    """What an import came to."""

    restored: int = 0
    same: int = 0  # were there already
    refused: list[Refused] = []  # the first TOLD
    refusals: int = 0

    def refuse(self, subject: str, reason: str) -> None:
        """Count it, and keep it if there are few."""
        self.refusals += 1
        if len(self.refused) < TOLD:
            self.refused.append(Refused(subject, reason))


class ExportFile:
    """A file that appears when it is whole; until then it is `NAME.part`."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Raises: FileExistsError, if there is a file, or a part that is not to be resumed."""
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self.lines = 0  # found in the part
        self.last: bytes = b""  # of these
        if path.exists():
            raise FileExistsError(f"{path} exists: it is not overwritten")
        if self.part.exists() and not resume:
            raise FileExistsError(
                f"{self.part} is of an export that did not end: go on with --resume, or remove it"
            )

    def __enter__(self) -> BinaryIO:
        # A payload may be anybody's secret.
        descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT, 0o600)
        self._file = os.fdopen(descriptor, "r+b")
        end = 0
        for line in self._file:
            if line.endswith(b"\n"):  # else it was being written at the end
                self.last = line
                self.lines += 1
                end += len(line)
        self._file.truncate(end)
        self._file.seek(end)
        return self._file

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        if kind is None:
            os.link(self.part, self.path)  # unlike a rename, it never overwrites
            self.part.unlink()


@contextmanager
def rewindable(file: str, stdin: BinaryIO) -> Iterator[BinaryIO]:
    """The file, to be read twice; `-` is stdin, copied first."""
    if file != "-":
        with Path(file).open("rb") as opened_file:
            yield opened_file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stdin, copy)
        copy.seek(0)
        yield copy


def size_of(file: BinaryIO) -> int:
    """In bytes."""
    return os.fstat(file.fileno()).st_size


async def export(store: Store, out: BinaryIO, last: bytes, step: Step) -> int:
    """Write each pending message as a line, those after the line `last` → how many."""
    after: Position | None = position_of(last) if last else None
    count = 0
    async for message in store.archive.pending(after):
        out.write(pack_line(message))
        count += 1
        step(1)
    out.flush()
    return count


async def import_lines(store: Store, file: BinaryIO, settings: Settings, step: Step) -> Imported:
    """Put in every line, or none if one of them cannot be read; `file` is read twice."""
    outcome = Imported()
    for number, line in enumerate(file, 1):
        try:
            unpack_line(line, settings.egress_allow)
        except (ValueError, msgspec.MsgspecError, SchedulerError) as error:
            outcome.refuse(f"line {number}", str(error))
        step(len(line))
    if outcome.refusals:
        return outcome
    file.seek(0)
    for batch in _batches(file):
        await _restore(store, [unpack_line(line, settings.egress_allow) for line in batch], outcome)
        step(sum(map(len, batch)))
    return outcome


async def import_original(store: Store, address: str, settings: Settings) -> Imported:
    """Put in the messages of the original service; its Redis is only read.

    What cannot be read there is refused, and the rest put in: a repetition skips it.
    """
    outcome = Imported()
    async for page in originals(address):
        batch = []
        for key, value in page:
            try:
                batch.append(
                    unpack_original(key, value, settings.default_timezone, settings.egress_allow)
                )
            except (ValueError, msgspec.MsgspecError, SchedulerError) as error:
                outcome.refuse(key, str(error))
        await _restore(store, batch, outcome)
    return outcome


async def _restore(store: Store, batch: Sequence[Restorable], outcome: Imported) -> None:
    for message, word in zip(batch, await store.archive.restore(batch), strict=True):
        if word == "ok":
            outcome.restored += 1
        elif word == "same":
            outcome.same += 1
        else:
            outcome.refuse(message.id, "another message has this id")


def _batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for line in lines:
        batch.append(line)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
