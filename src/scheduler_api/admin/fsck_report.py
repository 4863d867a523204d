"""The report of `scheduler-api fsck`: a table for people, JSON for programs."""

from typing import Final

import msgspec

from scheduler_api.store.audit.invariants import NUMBERS, Finding
from scheduler_api.store.store import Store

COLUMN_NAMES: Final = ("partition", "invariant", "rule", "subject", "finding", "repair")


class Found(msgspec.Struct, frozen=True):
    """A finding in the report."""

    partition: int
    invariant: int  # its number in docs/design.md
    rule: str
    subject: str  # an id, a destination or a Redis key
    detail: str
    repair: str | None  # what was changed; None: nothing

    def cells(self) -> tuple[str, ...]:
        """Its row in the table."""
        location = (str(self.partition), str(self.invariant), self.rule, self.subject)
        return (*location, self.detail, self.repair or "-")


class Report(msgspec.Struct, frozen=True):
    """All findings."""

    messages: int
    partitions: int
    findings: list[Found]
    left: int  # findings that were not repaired

    def as_json(self) -> str:
        """One JSON object."""
        return msgspec.json.encode(self).decode()

    def as_text(self) -> str:
        """A table, if there are findings, and a summary."""
        partitions = _count(self.partitions, "partition")
        checked = f"{_count(self.messages, 'message')} checked in {partitions}"
        if not self.findings:
            return f"{checked}: no problems found"
        rows = [COLUMN_NAMES, *(found.cells() for found in self.findings)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        repaired = len(self.findings) - self.left
        last = f"{checked}: {_count(len(self.findings), 'finding')}, {repaired:,} repaired"
        return "\n".join([*table, last])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


async def report(store: Store, *, repair: bool) -> Report:
    """Check all partitions. Raises: StoreUnavailable."""
    findings, messages = [], 0
    for partition in range(len(store.keys)):
        check = store.fsck(partition)
        findings += [_found(partition, one) async for one in check.run(repair=repair)]
        messages += check.messages
    left = sum(found.repair is None for found in findings)
    return Report(messages, len(store.keys), findings, left)


def _found(partition: int, finding: Finding) -> Found:
    subject = finding.subject.decode(errors="backslashreplace")
    number = NUMBERS[finding.rule]
    return Found(partition, number, finding.rule, subject, finding.detail, finding.repair)
