"""What a superseding answer says of the former one, and the note that withdraws its objects."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.exam import STANDARD_VIEWS
from config.mix import ObjectMix, ResultKind
from config.policy import RecallLimit
from node.results.answer import Answer, Predecessor
from node.results.changes import changes
from node.results.facts import facts
from node.results.uids import ObjectUIDs
from tests.answers import RIGHT, a_mass, an_answer, encoded, phantom_masks

NOTE = ObjectMix((ResultKind.REJECTION,))


def facts_of(answer: Answer) -> dict[str, Any]:
    return facts(answer, ObjectUIDs.of(answer, "here", "", ""))


def told(former: Answer, answer: Answer, threshold: int = 0) -> str:
    [sentence] = changes(facts_of(former), answer, 1, threshold)
    return sentence.removeprefix("Supersedes the answer to revision 1").strip(": .")


def without_masses(answer: Answer, position: int) -> Answer:
    """Return the answer without the masses of one image."""
    assert answer.findings
    images = list(answer.findings.images)
    images[position] = replace(images[position], masses=())
    return replace(answer, findings=replace(answer.findings, images=tuple(images)))


def test_the_same_findings_are_called_so() -> None:
    assert told(an_answer(), an_answer()) == "the same findings"


def test_views_that_came_and_went_are_named() -> None:
    partial = an_answer(read=RIGHT, complete=False)
    assert told(partial, an_answer()).startswith("now read: L CC, L MLO; the former answer was 'partial'; L CC: ")
    assert told(an_answer(), partial) == "no longer read: L CC, L MLO; the former answer was 'all views read'"


def test_a_view_of_which_another_image_was_read_has_neither_come_nor_gone() -> None:
    former = facts_of(an_answer())
    former["images"][0]["uid"] = "1.2.3"
    [sentence] = changes(former, an_answer(), 1, 0)
    assert sentence == "Supersedes the answer to revision 1: another image read: R CC."


def test_the_number_of_masses_is_told_for_the_view_that_changed() -> None:
    before = an_answer()
    number = len(phantom_masks()[STANDARD_VIEWS[1]])
    noun = "mass" if number == 1 else "masses"
    assert told(before, without_masses(before, 1)) == f"L CC: 0 masses (was {number} {noun})"


def test_another_outline_is_told() -> None:
    before = an_answer()
    assert before.findings
    first = before.findings.images[0]
    mask = np.roll(phantom_masks()[first.view][0], 5, axis=0)
    moved = replace(first, masses=(a_mass(mask, suspicion=first.masses[0].suspicion), *first.masses[1:]))
    after = replace(before, findings=replace(before.findings, images=(moved, *before.findings.images[1:])))
    assert told(before, after) == "R CC: new outlines or scores"


def test_what_lies_below_the_threshold_on_both_sides_is_no_change() -> None:
    before = an_answer()
    assert told(before, without_masses(before, 1), threshold=100) == "the same findings"


def test_another_model_is_named() -> None:
    before = an_answer()
    model = replace(before.model, version="2.0", digest="cd" * 32)
    assert before.findings
    after = replace(before, model=model, findings=replace(before.findings, model=model))
    assert told(before, after) == "read by phantom-reader 2.0 (was phantom-reader 1.2)"


@pytest.mark.parametrize("recall", [RecallLimit(score=70), RecallLimit(score=90)])
def test_other_limits_for_the_same_scores_are_told(recall: RecallLimit) -> None:
    other = replace(an_answer(), recall=recall)
    assert told(an_answer(), other) == "other limits, probabilities or doubts for the same scores"
    assert told(other, other) == "the same findings"


def test_other_weights_under_the_same_name_are_told_by_their_digests() -> None:
    before = an_answer()
    model = replace(before.model, digest="cd" * 32)
    assert before.findings
    after = replace(before, model=model, findings=replace(before.findings, model=model))
    name = "phantom-reader 1.2, digest"
    assert told(before, after) == f"read by {name} cdcdcdcdcdcd (was {name} abababababab)"


def test_a_former_answer_without_facts_is_superseded_all_the_same() -> None:
    assert changes(None, an_answer(), 3, 0) == ("Supersedes the answer to revision 3.",)


def superseding() -> tuple[Answer, list[Predecessor]]:
    """Return a second revision's answer, and the first's objects."""
    first = encoded(an_answer(), ObjectMix((ResultKind.SEG,)))
    former = [Predecessor(o.study_uid, o.series_uid, o.sop_class_uid, o.instance_uid) for o in first]
    gsps = Predecessor(former[0].study_uid, "2.25.1", "1.2.840.10008.5.1.4.1.1.11.1", "2.25.2")
    return replace(an_answer(), revision=2, superseded=(*former, gsps)), [*former, gsps]


def references(note: Dataset) -> dict[str, str]:
    """Return UID and value type of what a note names."""
    return {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID): str(item.ValueType)
        for item in note.ContentSequence
        if "ReferencedSOPSequence" in item
    }


def test_the_note_names_every_object_with_its_series_and_why() -> None:
    answer, former = superseding()
    [made] = encoded(answer, NOTE)
    note = made.dataset
    types = references(note)
    assert set(types) == {each.instance_uid for each in former}
    assert types.pop("2.25.2") == "COMPOSITE"
    assert set(types.values()) == {"IMAGE"}
    evidence = {
        (str(series.SeriesInstanceUID), str(reference.ReferencedSOPInstanceUID))
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }
    assert evidence == {(each.series_uid, each.instance_uid) for each in former}
    texts = [item.TextValue for item in note.ContentSequence if item.ValueType == "TEXT"]
    assert any("Superseded by revision 2" in text for text in texts)
    assert "rev 2" in note.SeriesDescription


def test_a_first_revision_has_no_note() -> None:
    assert encoded(an_answer(), NOTE) == ()


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "StudyInstanceUID"])
def test_the_note_belongs_to_the_patient_and_the_study(keyword: str) -> None:
    answer, _ = superseding()
    [made] = encoded(answer, NOTE)
    assert made.dataset[keyword].value == answer.images[0].header[keyword].value
