"""What each destination gets of an answer, and what a new revision says of the former one, on both databases."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage
from sqlalchemy import Engine

from ai.exam import STANDARD_VIEWS
from config.mix import ResultKind
from config.settings import Destination
from node.results.facts import FACTS
from tests.builders import R_CC, altered
from tests.chain import PACS, Chain, a_chain, summary_of, text_of
from tests.doors import phantom_images


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def destination(name: str, **mix: Any) -> Destination:
    return Destination(name=name, ae_title=name.upper(), host="127.0.0.1", port=104, **mix)


def answered(chain: Chain, *destinations: Destination) -> None:
    """Let the phantom's exam come in and be answered."""
    chain.close(phantom_images())
    assert chain.worker(destinations=destinations).work_once()


def a_repeat() -> Dataset:
    """Return a later R CC, which is read instead of the first."""
    first = phantom_images()[STANDARD_VIEWS.index(R_CC)]
    return altered(first, SOPInstanceUID=f"{first.SOPInstanceUID}.2", AcquisitionTime="235959")


def tracking_uids(dataset: Dataset) -> set[str]:
    return {str(segment.TrackingUID) for segment in dataset.SegmentSequence if "TrackingUID" in segment}


def test_two_destinations_of_one_mix_get_the_same_objects(chain: Chain) -> None:
    answered(chain, PACS, destination("mirror"))
    assert chain.sent_to("mirror") == chain.sent_to("pacs") != []


def test_destinations_of_different_mixes_get_other_objects_about_the_same_findings(chain: Chain) -> None:
    answered(chain, PACS, destination("research", segmentation="LABELMAP", objects=("SEG",)))
    binary, labels = (chain.of_kind(ResultKind.SEG, name) for name in ("pacs", "research"))
    assert {seg.SOPInstanceUID for seg in binary}.isdisjoint(seg.SOPInstanceUID for seg in labels)
    assert set().union(*map(tracking_uids, binary)) == set().union(*map(tracking_uids, labels)) != set()


def test_a_destination_does_not_see_findings_below_its_threshold_and_is_told_their_number(chain: Chain) -> None:
    answered(chain, PACS, destination("strict", threshold=90))
    assert chain.of_kind(ResultKind.SEG, "strict") == []
    [strict], [report] = (chain.of_kind(ResultKind.SR, name) for name in ("strict", "pacs"))
    assert "4 findings below this destination's threshold of 90." in text_of(strict)
    assert (summary_of(strict), summary_of(report)) == ("111241", "111242")
    assert "below this destination's threshold" not in text_of(report)
    assert chain.exam.status == "findings"


def test_a_destination_that_wants_no_negatives_gets_none(chain: Chain) -> None:
    chain.reader.masses = False
    answered(chain, PACS, destination("quiet", negatives=False))
    assert [record.kind for record in chain.sent_to("pacs")] == [ResultKind.SR]
    assert chain.sent_to("quiet") == []


@pytest.mark.parametrize("images", [0, 3])
def test_a_destination_that_wants_no_negatives_gets_what_is_no_plain_negative(chain: Chain, images: int) -> None:
    chain.reader.masses = False
    chain.reader.no_breast = STANDARD_VIEWS[images:]
    answered(chain, destination("quiet", negatives=False))
    assert chain.exam.status == ("partial, no findings" if images else "not analysed")
    assert [record.kind for record in chain.sent_to("quiet")] == [ResultKind.SR]


def test_a_negative_that_hides_findings_is_sent_to_who_wants_no_negatives(chain: Chain) -> None:
    answered(chain, destination("quiet", negatives=False, threshold=90))
    assert [record.kind for record in chain.sent_to("quiet")] == [ResultKind.SR]


def test_a_negative_that_supersedes_findings_is_sent_to_who_wants_no_negatives(chain: Chain) -> None:
    quiet = destination("quiet", negatives=False)
    answered(chain, quiet)
    chain.reader.masses = False
    chain.close([a_repeat()])
    chain.worker(destinations=[quiet]).work_once()
    assert chain.exam.status == "no findings"
    assert len(chain.of_kind(ResultKind.SR, "quiet")) == 2


def test_without_a_destination_the_results_stay_in_the_store(chain: Chain) -> None:
    answered(chain)
    assert {result.record.kind for result in chain.issued()} == {ResultKind.SEG, ResultKind.SR, FACTS}
    assert chain.outbox.of_exam(chain.exam.id) == []


def test_a_form_that_may_be_refused_lies_ready_in_a_form_that_more_take(chain: Chain) -> None:
    answered(chain, destination("research", segmentation="LABELMAP"))
    records = {result.record.uid: result.record for result in chain.issued()}
    sent = chain.sent_to("research")
    [report] = [record for record in sent if record.kind == ResultKind.SR]
    segmentations = [record for record in sent if record.kind == ResultKind.SEG]
    assert report.sop_class_uid == Comprehensive3DSRStorage
    assert records[report.fallback_uid or ""].sop_class_uid == ComprehensiveSRStorage
    assert len(segmentations) == 4
    for record in segmentations:
        instead = records[record.fallback_uid or ""]
        assert (instead.kind, instead.image_uid) == (record.kind, record.image_uid)
        assert instead.fallback_uid is None
    assert {delivery.result_uid for delivery in chain.outbox.of_exam(chain.exam.id)} == {record.uid for record in sent}


def test_the_facts_are_kept_and_agree_with_the_report(chain: Chain) -> None:
    answered(chain, PACS)
    [told] = chain.facts()
    assert (told["exam"], told["revision"], told["status"]) == (chain.exam.uid, 1, "findings")
    assert [image["view"] for image in told["images"]] == [str(view) for view in STANDARD_VIEWS]
    masses = [mass for image in told["images"] for mass in image["masses"]]
    assert {mass["tracking_uid"] for mass in masses} == set().union(*map(tracking_uids, chain.of_kind(ResultKind.SEG)))
    assert "FOUR VIEWS" not in str(told)
    # How far an image is from the gate's reference is told here alone: the objects say only whether it is far.
    distances = [image["reference_distance"] for image in told["images"]]
    assert min(distances) > 0
    assert distances == [round(distance, 1) for distance in distances]


def test_a_new_revision_tells_what_changed_and_names_all_reports_of_the_former(chain: Chain) -> None:
    workstation = destination("workstation", objects=("SR",), threshold=90)
    answered(chain, PACS, workstation)
    former = {record.uid for name in ("pacs", "workstation") for record in chain.sent_to(name) if record.kind == "SR"}
    chain.reader.masses = False
    chain.close([a_repeat()])
    chain.worker(destinations=[PACS, workstation]).work_once()
    told, quiet = text_of(chain.report), text_of(chain.of_kind(ResultKind.SR, "workstation")[0])
    assert "Supersedes the answer to revision 1: another image read: R CC; R CC: 0 masses (was 1 mass)" in told
    assert "mass (was" not in quiet
    assert "Supersedes the answer to revision 1" in quiet
    # The form that was preferred comes first: it is what the destination most likely has.
    [study] = chain.report.PredecessorDocumentsSequence
    first = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert first.ReferencedSOPClassUID == Comprehensive3DSRStorage
    latest = chain.facts()[0]
    assert set(latest["supersedes"]) >= former
    assert latest["revision"] == 2


def test_a_rejection_note_withdraws_the_former_objects_but_no_report(chain: Chain) -> None:
    strict = destination("archive", objects=("SEG", "SR", "REJECTION"))
    answered(chain, strict)
    assert chain.of_kind(ResultKind.REJECTION, "archive") == []
    segmentations = {str(seg.SOPInstanceUID) for seg in chain.of_kind(ResultKind.SEG, "archive")}
    for revision in (2, 3):
        chain.close([altered(a_repeat(), SOPInstanceUID=f"1.2.3.{revision}", AcquisitionTime=f"23595{revision}")])
        chain.worker(destinations=[strict]).work_once()
        note = chain.of_kind(ResultKind.REJECTION, "archive")[0]
        assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
        named = {
            str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
            for item in note.ContentSequence
            if "ReferencedSOPSequence" in item
        }
        assert named == segmentations
        # Newest first: one for each view.
        segmentations = {str(seg.SOPInstanceUID) for seg in chain.of_kind(ResultKind.SEG, "archive")[:4]}


def test_reading_an_unchanged_revision_again_supersedes_nothing(chain: Chain) -> None:
    answered(chain, PACS, destination("strict", threshold=90))
    before = [result.record for result in chain.issued()]
    chain.queue.retry(chain.job.id, chain.clock())
    chain.worker(destinations=[PACS, destination("strict", threshold=90)]).work_once()
    assert [result.record for result in chain.issued()] == before
