"""One exam, several destinations: the node as processes, each PACS with its own wishes and limits."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    MammographyCADSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from node.demo.pacs import errors_in
from storage.states import DeliveryState
from tests.acceptance.nodes import Site, a_site, an_exam, patiently, study_of
from tests.pacs import a_free_port, a_pacs
from tests.peers import require_program

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

EXAM = an_exam("DESTINATIONS")
MIXES = {
    "archive": 'profile = "archive"',
    "workstation": 'profile = "breast-workstation"',
    "plain": 'profile = "plain-pacs"',
    "old": 'segmentation = "LABELMAP"',
}
TAKES = {
    "archive": (
        SegmentationStorage,
        Comprehensive3DSRStorage,
        MammographyCADSRStorage,
        GrayscaleSoftcopyPresentationStateStorage,
        SecondaryCaptureImageStorage,
        EncapsulatedPDFStorage,
    ),
    "workstation": (MammographyCADSRStorage, GrayscaleSoftcopyPresentationStateStorage),
    "plain": (SecondaryCaptureImageStorage, ComprehensiveSRStorage),
    # It knows neither label maps nor Comprehensive 3D SR.
    "old": (SegmentationStorage, ComprehensiveSRStorage),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node that has answered an exam to five destinations."""
    ports = {name: a_free_port() for name in MIXES}
    with ExitStack() as stack:
        site = stack.enter_context(a_site(tmp_path_factory.mktemp("site"), ports=ports, mixes=MIXES))
        for name, port in ports.items():
            stack.enter_context(a_pacs(site.archives[name].keep, port=port, classes=TAKES[name]))
        site.serve_and_work()
        site.send(EXAM)
        exam = site.answered(study_of(EXAM))
        assert patiently(lambda: all(d.state is not DeliveryState.WAITING for d in site.parts.outbox.of_exam(exam.id)))
        yield site


def received(site: Site, destination: str) -> list[Dataset]:
    return [dcmread(path) for path in site.archives[destination].files(study_of(EXAM))]


def test_each_destination_gets_the_kinds_of_its_profile(site: Site) -> None:
    kinds = {name: Counter(str(d.Modality) for d in received(site, name)) for name in ("pacs", *MIXES)}
    segmentations = kinds["pacs"]["SEG"]
    assert segmentations == kinds["old"]["SEG"] == kinds["archive"]["SEG"]
    assert kinds["pacs"]["SR"] == kinds["old"]["SR"] == kinds["plain"]["SR"] == 1
    assert kinds["archive"]["SR"] == 2  # TID 1500 and CAD
    assert kinds["workstation"] == {"SR": 1, "PR": 4}
    assert [d.SOPClassUID for d in received(site, "workstation") if d.Modality == "SR"] == [MammographyCADSRStorage]
    assert {SecondaryCaptureImageStorage, EncapsulatedPDFStorage} <= {d.SOPClassUID for d in received(site, "archive")}


def test_what_an_old_pacs_refuses_comes_in_the_form_that_it_knows(site: Site) -> None:
    exam = site.answered(study_of(EXAM))
    states = Counter((d.kind, d.state) for d in site.parts.outbox.of_exam(exam.id) if d.destination == "old")
    assert states["SR", DeliveryState.REPLACED] == states["SR", DeliveryState.SENT] == 1
    assert states["SEG", DeliveryState.REPLACED] == states["SEG", DeliveryState.SENT]
    assert {d.SOPClassUID for d in received(site, "old")} <= {SegmentationStorage, ComprehensiveSRStorage}


def test_a_mass_has_one_tracking_uid_at_all_destinations(site: Site) -> None:
    tracked = {
        name: {s.TrackingUID for d in received(site, name) if d.Modality == "SEG" for s in d.SegmentSequence}
        for name in ("pacs", "archive", "old")
    }
    assert tracked["pacs"] == tracked["archive"] == tracked["old"]


def test_everything_that_every_destination_gets_is_valid(site: Site) -> None:
    require_program("dciodvfy")
    files = [file for archive in site.archives.values() for file in archive.files(study_of(EXAM))]
    assert len(files) > 10
    assert {str(file): errors for file in files if (errors := errors_in(file))} == {}
