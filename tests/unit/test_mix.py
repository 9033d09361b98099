"""What a destination gets: profiles, and what a site changes in them."""

from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

import pytest

from config.mix import PROFILES, FindingCodes, ObjectMix, ReportClass, ResultKind, SegmentationType
from config.settings import Destination

PLACE: dict[str, Any] = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
OTHERS: dict[str, Any] = {
    "objects": (ResultKind.SC,),
    "segmentation": SegmentationType.LABELMAP,
    "report": ReportClass.COMPREHENSIVE,
    "finding_codes": FindingCodes.SRT,
    "threshold": 40,
    "negatives": False,
    "series_descriptions": MappingProxyType({ResultKind.SC: "Our pictures"}),
}


def test_every_part_of_a_mix_is_tried_here() -> None:
    assert set(OTHERS) == {each.name for each in fields(ObjectMix)}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_destination_gets_its_profile(profile: Any) -> None:
    assert Destination(**PLACE, profile=profile).mix == PROFILES[profile]


@pytest.mark.parametrize("part", OTHERS)
def test_a_site_changes_one_part_of_a_profile_and_no_other(part: str) -> None:
    changed = Destination(**PLACE, profile="archive", **{part: OTHERS[part]}).mix
    assert changed == replace(PROFILES["archive"], **{part: OTHERS[part]})


@pytest.mark.parametrize("part", OTHERS)
def test_every_part_of_a_mix_changes_its_digest(part: str) -> None:
    assert replace(ObjectMix(), **{part: OTHERS[part]}).digest != ObjectMix().digest


def test_the_order_of_series_descriptions_is_none_of_the_content() -> None:
    words = {ResultKind.SEG: "Masses", ResultKind.SR: "Report"}
    turned = dict(reversed(words.items()))
    assert ObjectMix(series_descriptions=words).digest == ObjectMix(series_descriptions=turned).digest


def test_the_profiles_do_what_their_names_promise() -> None:
    assert set(PROFILES["ohif"].objects) == {ResultKind.SEG, ResultKind.SR}
    assert {ResultKind.CAD_SR, ResultKind.GSPS} == set(PROFILES["breast-workstation"].objects)
    assert ResultKind.SC in PROFILES["plain-pacs"].objects
    assert PROFILES["plain-pacs"].report is ReportClass.COMPREHENSIVE
    for mix in PROFILES.values():
        # Measured: these two are what some viewers and archives refuse, so no profile starts with them.
        assert mix.segmentation is SegmentationType.BINARY
        assert ResultKind.PMAP not in mix.objects
        assert mix.negatives
        assert mix.threshold == 0


def test_kinds_named_twice_come_once() -> None:
    assert Destination(**PLACE, objects=("SR", "SEG", "SR")).mix.objects == (ResultKind.SR, ResultKind.SEG)
