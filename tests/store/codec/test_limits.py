"""What the store keeps of a destination: packed and unpacked."""

import pytest

from scheduler_api.domain.attempt_stats import AttemptStats
from scheduler_api.domain.destination import Hold, Limits, Rate
from scheduler_api.store.codec.limits import pack_limits, unpack_hold, unpack_limits, unpack_stats
from scheduler_api.store.codec.record import from_ms


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (Limits(5), b"3 0 0 [5,null,false]"),
        (Limits(rate=Rate(10, "s")), b'3 200 0 [null,"10/s",false]'),
        (Limits(paused=True), b"3 0 1 [null,null,true]"),
    ],
)
def test_pack_limits_has_numbers_for_the_scripts_and_what_was_set(
    limits: Limits, field: bytes
) -> None:
    assert pack_limits(limits, 3, 2) == field
    assert unpack_limits(field) == limits


@pytest.mark.parametrize("field", [b"", b"3 0 0", b"3 0 0 {", b"3 0 0 [1]"])
def test_unpack_limits_of_a_damaged_field_is_none(field: bytes) -> None:
    assert unpack_limits(field) is None


def test_unpack_hold_has_an_instant_only_if_time_ends_it() -> None:
    assert unpack_hold(b"", -1) is None
    assert unpack_hold(b"full", -1) == Hold("full", None)
    assert unpack_hold(b"rate", 1_000) == Hold("rate", from_ms(1_000))


def test_unpack_stats_sums_several_fields() -> None:
    assert unpack_stats(b" d:2 5:2 7:1 d:1 5:1") == AttemptStats(3, {5: 3, 7: 1})
