"""Numbers in sentences."""

import pytest

from ai.words import counted, took


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1.0, "1 image"), (0.5, "0.5 images")]
)
def test_a_number_stands_with_what_is_counted(number: float, told: str) -> None:
    assert counted(number, "image") == told


def test_what_is_counted_may_be_a_phrase() -> None:
    assert [counted(number, "mass is", "masses are") for number in (1, 2)] == ["1 mass is", "2 masses are"]


def test_a_reading_tells_how_long_it_took_stage_by_stage() -> None:
    timings = {"decode": 0.12, "gate": 0.04, "read": 3.66, "total": 4.05}
    assert took(timings) == "4.05 s: decode 0.12, gate 0.04, read 3.66"
    assert [took({"total": 2}), took({}), took({"read": 1})] == ["2.00 s", "", ""]
