"""The messages of a process that wait for permits, as in delivery/permits.py."""

from typing import TYPE_CHECKING, Final

from scheduler_api.delivery.timing import MAX_QUEUED
from tests.sim.lease import Lease, Line

if TYPE_CHECKING:
    from tests.sim.replica import Replica

MAX_PASSES: Final = 3  # of one permit; fewer than the dispatcher's, so that it happens


class Lines:
    """Those of one process: a line for each destination of a partition."""

    def __init__(self, replica: "Replica") -> None:
        self._replica = replica
        self._world = replica.world
        self._used: set[Line] = set()  # in which messages wait, or waited lately

    def waiting(self, line: Line) -> list[Lease]:
        """The messages that wait there, the first one first."""
        return [lease for lease in self._replica.leases if lease.waits and lease.line == line]

    def is_used(self, line: Line) -> bool:
        """Whether messages wait there, or waited lately."""
        return line in self._used or self._world.options.queues

    def first(self) -> Line | None:
        """A line in which messages wait; None if there is none."""
        return next((lease.line for lease in self._replica.leases if lease.waits), None)

    def queue(self, leases: list[Lease]) -> None:
        """Start messages of a claim with permits that were kept; let the others wait."""
        self._used |= {lease.line for lease in leases}
        for ended in self._kept():
            if waiting := self.waiting(ended.line):
                self._pass(ended, waiting[0])
        for line in {lease.line for lease in leases}:
            self._give_back_without_request(line)

    def settle(self, partition: int) -> None:
        """No claim is under way there any longer: permits that were kept are given back."""
        for lease in self._kept():
            if lease.claimer.partition == partition:
                lease.keeps = False

    def _kept(self) -> list[Lease]:
        return [lease for lease in self._replica.leases if lease.keeps]

    def end(self, ended: Lease, *, answered: bool) -> None:
        """A request has ended: its permit goes to the first message that waits for it."""
        line = ended.line
        waiting = self.waiting(line)
        if not answered:
            self.give_back(line)
        elif ended.passes == MAX_PASSES or ended.offer.destination not in self._world.quick:
            self._give_back_without_request(line)
        elif waiting:
            self._pass(ended, waiting[0])
        elif self.is_used(line):
            ended.keeps = ended.claimer.asked is not None

    def _pass(self, ended: Lease, first: Lease) -> None:
        ended.keeps = False
        if ended.usable and first.usable:
            first.sending = first.claimed.permit = True
            first.passes = ended.passes + 1
            ended.claimed.permit = not self._world.rules.gives_permit_once
        else:
            self.give_back(first.line)

    def _give_back_without_request(self, line: Line) -> None:
        if all(lease.line != line for lease in self._replica.sending()):
            self.give_back(line)

    def give_back(self, line: Line) -> None:
        """Its messages get no permit; the next call releases them."""
        for lease in self.waiting(line):
            lease.returns = True

    def give_old_back(self) -> None:
        """Give back what has waited for long, and forget lines that are not used any more."""
        then = self._world.now - MAX_QUEUED * 1000
        for lease in self._replica.leases:
            lease.returns = lease.returns or (lease.waits and lease.claimed_ms <= then)
        self._used = {line for line in self._used if self.waiting(line)}

    def stop(self) -> None:
        """Give all back."""
        for lease in self._replica.leases:
            lease.returns = lease.returns or lease.waits
