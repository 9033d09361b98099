"""Dates and times with an offset: what they mean in UTC, and where a range is parted."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.instants import bounds, date_time, first_instant, instant, kept_instant, last_instant


@pytest.fixture
def helsinki(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Helsinki")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("20301122080000+0200", "20301122060000", "20301122060000"),
        ("20301122080000.123456-0530", "20301122133000", "20301122133000"),
        ("2030112208+0000", "20301122080000", "20301122085959"),
        ("202802+0000", "20280201000000", "20280229235959"),
        ("2030+0000", "20300101000000", "20301231235959"),
        ("20161231235960+0000", "20161231235959", "20161231235959"),
        ("9999+0000", "99990101000000", "99991231235959"),
        ("0001+1400", "00010101000000", "00011231095959"),
        ("9999-1200", "99990101120000", "99991231235959"),
        ("203", "", ""),
        ("20301322+0000", "", ""),
        ("0000+0000", "", ""),
        ("2030+1500", "", ""),
        ("yesterday", "", ""),
    ],
)
def test_a_value_means_seconds_in_utc(text: str, first: str, last: str) -> None:
    assert (first_instant(text), last_instant(text)) == (first, last)
    assert all(instant(kept_instant(each)) == each for each in (first, last) if each and each[0] != "0")


@given(st.datetimes(*map(datetime.fromisoformat, ("1900-01-01", "2999-01-01"))), st.integers(-12 * 60, 14 * 60))
def test_what_is_written_is_read_again(local: datetime, minutes: int) -> None:
    at = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert first_instant(f"{at:%Y%m%d%H%M%S%z}") == first_instant(date_time(instant(at))) == instant(at)
    assert kept_instant(instant(at)) == at.replace(microsecond=0)


def test_a_value_without_an_offset_is_in_the_zone_of_its_data_set_or_of_the_node(helsinki: None) -> None:
    assert first_instant("20301122080000", "-0500") == "20301122130000"
    assert first_instant("20301122080000+0100", "-0500") == "20301122070000"
    assert first_instant("20301122080000") == "20301122060000"
    assert first_instant("20300722080000") == "20300722050000"
    assert first_instant("20301122080000", "east") == ""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("2030", ("2030", "", "")),
        ("2030-", ("2030", "-", "")),
        ("-2030", ("", "-", "2030")),
        ("2030-2031", ("2030", "-", "2031")),
        ("2030-0500", ("2030-0500", "", "")),
        ("2030-0500-", ("2030-0500", "-", "")),
        ("-2030-0500", ("", "-", "2030-0500")),
        ("2030-0500 - 2031+0100", ("2030-0500", "-", "2031+0100")),
        ("", None),
        ("-", None),
        ("2030 2031", None),
        ("2030--2031", None),
        ("2030" + " " * 8000, None),
    ],
)
def test_a_range_is_parted_where_no_offset_is(text: str, parts: tuple[str, str, str] | None) -> None:
    assert bounds(text) == parts
