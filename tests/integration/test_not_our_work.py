"""What else a PACS routes to the node (rules R5, R8): kept so that no sender fails, and answered only where it is ours."""

from pathlib import Path

import pytest
from pydicom.uid import (
    UID,
    BreastTomosynthesisImageStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    MRImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
    XRayRadiationDoseSRStorage,
)
from sqlalchemy import Engine

from node.intake import Outcome
from storage.states import ExamState, Plan
from tests.builders import key_objects, own_result_header, quick_header, tomosynthesis_header
from tests.chain import QUIET, Chain, a_chain
from tests.doors import phantom_images

OTHERS = {
    XRayRadiationDoseSRStorage: "SR",
    EnhancedSRStorage: "SR",
    GrayscaleSoftcopyPresentationStateStorage: "PR",
    SegmentationStorage: "SEG",
    EncapsulatedPDFStorage: "DOC",
    UltrasoundImageStorage: "US",
    MRImageStorage: "MR",
}


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def receive_others(chain: Chain, study: str, patient: str) -> None:
    for number, (sop_class, modality) in enumerate(OTHERS.items(), start=1):
        header = quick_header(
            SOPClassUID=UID(sop_class),
            Modality=modality,
            SOPInstanceUID=f"1.2.8.{number}",
            StudyInstanceUID=study,
            PatientID=patient,
            PresentationIntentType=None,
        )
        assert chain.room.receive(header).outcome is Outcome.STORED
    assert chain.room.receive(key_objects([header], "113000", PatientID=patient)).outcome is Outcome.STORED
    assert chain.room.receive(own_result_header()).outcome is Outcome.OWN


def test_what_is_no_mammogram_is_kept_and_opens_no_exam(chain: Chain) -> None:
    receive_others(chain, "1.2.8", "OTHER")
    assert chain.room.rows() == (len(OTHERS) + 2, 0, 0)
    chain.clock.forward(QUIET.hard_cap)
    assert chain.exam_clock().tick() == 0


def test_what_comes_beside_mammograms_changes_nothing_about_their_exam(chain: Chain) -> None:
    chain.close(phantom_images())
    image = phantom_images()[0]
    receive_others(chain, str(image.StudyInstanceUID), str(image.PatientID))
    assert (chain.exam.state, chain.exam.revision) == (ExamState.QUEUED, 1)


def test_tomosynthesis_alone_is_told_that_it_was_not_analysed(chain: Chain) -> None:
    chain.close([tomosynthesis_header(SOPClassUID=BreastTomosynthesisImageStorage)])
    assert (chain.job.plan, chain.job.reasons) == (
        Plan.NOT_ANALYSED,
        ("several frames", "tomosynthesis, which the reader does not read"),
    )
