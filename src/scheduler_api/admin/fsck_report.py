"""What `scheduler-api fsck` tells, for people and for programs."""

from typing import Final

import msgspec

from scheduler_api.store.audit.fsck import Checked
from scheduler_api.store.audit.invariants import NUMBERS
from scheduler_api.store.store import Store

HEAD: Final = ("part", "inv", "rule", "subject", "finding", "repair")


class Found(msgspec.Struct, frozen=True):
    """A finding as it is told."""

    partition: int
    invariant: int  # its number in the design
    rule: str
    subject: str  # an id, a destination or a key
    detail: str
    repair: str | None  # what was done; None: nothing

    def cells(self) -> tuple[str, ...]:
        """The row of a table."""
        place = (str(self.partition), str(self.invariant), self.rule, self.subject)
        return (*place, self.detail, self.repair or "-")


class Report(msgspec.Struct, frozen=True):
    """Everything that was found."""

    messages: int
    partitions: int
    findings: list[Found]
    left: int  # findings about which nothing was done

    def as_json(self) -> str:
        """One object."""
        return msgspec.json.encode(self).decode()

    def as_text(self) -> str:
        """A table, if anything was found, and a sentence."""
        checked = f"{self.messages:,} messages checked in {self.partitions} partition(s)"
        if not self.findings:
            return f"{checked}: nothing is wrong"
        rows = [HEAD, *(found.cells() for found in self.findings)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        repaired = len(self.findings) - self.left
        last = f"{checked}: {len(self.findings):,} findings, {repaired:,} repaired"
        return "\n".join([*table, last])


async def report(store: Store, *, repair: bool) -> Report:
    """Check all partitions. Raises: StoreUnavailable."""
    findings, messages = [], 0
    for partition, make in enumerate(store.fscks):
        check = make()
        findings += [_found(partition, one) async for one in check.run(repair=repair)]
        messages += check.messages
    left = sum(found.repair is None for found in findings)
    return Report(messages, len(store.fscks), findings, left)


def _found(partition: int, checked: Checked) -> Found:
    finding = checked.finding
    subject = finding.subject.decode(errors="backslashreplace")
    number = NUMBERS[finding.rule]
    return Found(partition, number, finding.rule, subject, finding.detail, checked.act)
