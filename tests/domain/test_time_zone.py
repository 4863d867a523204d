"""Time zones by name."""

from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.time_zone import time_zone
from tests.support.values import value_or_error


def test_time_zone_accepts_every_name_of_the_database() -> None:
    assert all(time_zone(name).key == name for name in available_timezones())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("america/sao_paulo", "America/Sao_Paulo"),
        ("America/Sao Paulo", "America/Sao_Paulo"),
        ("Sao_Paulo", "America/Sao_Paulo"),
        ("Amerika/New_York", "America/New_York"),
        ("utc", "UTC"),
    ],
)
def test_time_zone_refuses_an_unknown_name_and_suggests_the_nearest(
    name: str, nearest: str
) -> None:
    with pytest.raises(ValueError, match=f"did you mean {nearest}\\?"):
        time_zone(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "\x00",
        "../etc/passwd",
        "/etc/passwd",
        "America/",
        pytest.param("a" * 100_000, id="long"),
        "\ud800",
        "\u0130",
        ".",
    ],
)
def test_time_zone_refuses_an_odd_name_like_any_other(name: str) -> None:
    with pytest.raises(ValueError, match="is not an IANA time zone"):
        time_zone(name)


@given(st.text())
def test_time_zone_of_any_text_is_a_zone_or_a_value_error(name: str) -> None:
    assert value_or_error(lambda: time_zone(name))
