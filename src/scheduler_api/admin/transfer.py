"""Export and import: pending messages to and from files, and from the original service.

`step` is called with the number of messages or bytes done, for a progress bar.
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

RESTORE_BATCH: Final = 500  # messages in one call of Dump.restore
MAX_LISTED: Final = 20  # refusals; further ones are only counted

Step = Callable[[int], None]


class Refused(msgspec.Struct, frozen=True):
    """A message that was not imported."""

    subject: str  # "line 7", or an id
    reason: str


class Imported(msgspec.Struct):
    """The outcome of an import."""

    restored: int = 0  # messages
    same: int = 0  # existed already
    refused: list[Refused] = []  # the first MAX_LISTED
    refusals: int = 0  # all of them

    def refuse(self, subject: str, reason: str) -> None:
        """Count a refusal, and list it if there are few."""
        self.refusals += 1
        if len(self.refused) < MAX_LISTED:
            self.refused.append(Refused(subject, reason))


class ExportFile:
    """A file that appears when it is complete; until then it is `NAME.part`."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Raises: FileExistsError, if the file exists, or a part exists and `resume` is False."""
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self.lines = 0  # already in the part
        self.last: bytes = b""  # the last of these
        if path.exists():
            raise FileExistsError(
                f"{path} exists and is not overwritten: choose another name, or remove it"
            )
        if self.part.exists() and not resume:
            raise FileExistsError(
                f"{self.part} is from an interrupted export: continue with --resume, or remove it"
            )

    def __enter__(self) -> BinaryIO:
        # Payloads may contain secrets.
        descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT, 0o600)
        self._file = os.fdopen(descriptor, "r+b")
        end = 0
        for line in self._file:
            if line.endswith(b"\n"):  # else it was cut off while it was written
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
    """The file, which can be read twice; `-` is stdin, which is copied to a file first."""
    if file != "-":
        with Path(file).open("rb") as opened_file:
            yield opened_file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stdin, copy)
        copy.seek(0)
        yield copy


def size_of(file: BinaryIO) -> int:
    """The size of the file, bytes."""
    return os.fstat(file.fileno()).st_size


async def export(store: Store, out: BinaryIO, last: bytes, step: Step) -> int:
    """Write each pending message after that of the line `last` as a line → how many."""
    after: Position | None = position_of(last) if last else None
    count = 0
    async for message in store.dump.pending(after):
        out.write(pack_line(message))
        count += 1
        step(1)
    out.flush()
    return count


async def import_lines(store: Store, file: BinaryIO, settings: Settings, step: Step) -> Imported:
    """Import all lines, or none if one of them is invalid; `file` is read twice."""
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
    """Import the messages of the original service, from its Redis, which is only read.

    A message that cannot be read is refused, and the others are imported. A second run skips them.
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
    for message, word in zip(batch, await store.dump.restore(batch), strict=True):
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
        if len(batch) == RESTORE_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
