"""Tests of the simulation: it catches planted mistakes."""

from itertools import islice

import pytest

from tests.sim.campaign import broken, catch
from tests.sim.planted import PLANTED, Planted
from tests.sim.replica import Rules
from tests.sim.store_on_model import StoreOnModel
from tests.sim.world import World

SOON = 40  # schedules
MANY = 12  # mistakes
BUDGET = 1_000  # schedules for one mistake

# Mistakes of earlier versions that a schedule has found.
OURS = ("a repeated claim does not renew the leases of the lost one",)


def test_planted_mistakes_are_many_and_have_a_name_each() -> None:
    assert len({planted.name for planted in PLANTED}) == len(PLANTED) >= 12


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_planted_mistake_finds_its_place_in_the_code(planted: Planted) -> None:
    changed = [as_it_is for as_it_is, spoilt in planted.sources().items() if as_it_is != spoilt]
    assert changed or planted.rules != Rules()


def test_planted_mistake_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 0 places in claim"):
        Planted("a text that is not there", "claim", "not there", "").sources()


def test_catch_finds_most_planted_mistakes_soon() -> None:
    caught = (one for one in (catch(planted, SOON) for planted in PLANTED) if one.reason)
    assert len(list(islice(caught, MANY))) == MANY


@pytest.mark.parametrize("name", OURS)
def test_catch_finds_mistakes_of_earlier_versions_in_planted_code_only(name: str) -> None:
    [planted] = (planted for planted in PLANTED if planted.name == name)
    caught = catch(planted, BUDGET)
    assert caught.reason
    assert broken(World(StoreOnModel(), caught.schedules - 1)) is None
