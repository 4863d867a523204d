"""The results that `make crash` saves in .guarantee/ for the table of tests/guarantee.py."""

import msgspec

from tests.crash.campaign import Report
from tests.crash.herd import Herd
from tests.crash.races import Races


class Results(msgspec.Struct):
    """The results of one run."""

    campaigns: list[Report]
    races: Races
    herd: Herd

    @property
    def sound(self) -> bool:
        """Whether every promise was kept."""
        campaigns = all(report.sound for report in self.campaigns)
        return campaigns and not self.races.wrong and self.herd.sound
