"""What a radiologist sees in OHIF, judged on the pixels of its window (docs/viewers.md)."""

import re
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import SegmentationStorage

from ai.exam import STANDARD_VIEWS, Laterality, View
from ai.findings import BreastScore, ExamFindings, ImageFindings, Mass
from ai.phantom.lesions import Lesion
from ai.pixels import pixel_spacing, view_image
from ai.readers.lesions import measure
from config.mix import ObjectMix, ReportClass, ResultKind
from node.phantom import PhantomExam, StudyHeader, mammogram, phantom_exam
from node.results.answer import Answer, AnswerStatus, ImageAnswer, Predecessor
from node.results.drawing import COLOURS
from node.results.edition import Edition
from node.results.encode import ENCODERS, ResultObject, encode
from storage.database import open_database
from tests.answers import CREATED_AT, INSTALLATION, MODEL, a_map, a_mass
from tests.databases import SQLiteDatabases
from tests.doors import a_room
from tests.ohif import PATIENCE, Holds, Screen, Viewer, archive, require_ohif, site, viewer
from tests.web import Service, a_service, an_address

pytestmark = [
    pytest.mark.interop,
    # The browser's and Orthanc's connections are closed by their ends, not by us.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

RIGHT, LEFT = Laterality.RIGHT, Laterality.LEFT
LESIONS = (
    Lesion(RIGHT, 0.6, 0.35, 0.3, radius=12, irregularity=0.2),
    Lesion(RIGHT, 0.35, -0.3, -0.3, radius=9, irregularity=0.1),
    Lesion(LEFT, 0.6, 0.2, 0.25, radius=11, irregularity=0.15),
)
"""Masses in all four views, none over another."""

ALIKE = 0.95
"""Likeness of an image that is seen; measured 0.968 and more under an overlay, of another view 0.54 at most."""


@cache
def drawn() -> PhantomExam:
    """Return the phantom; to draw one in full size takes seconds."""
    return phantom_exam(11, masses=LESIONS)


@dataclass(frozen=True)
class Desk:
    """Where a radiologist sits: an archive and OHIF beside it."""

    archive: Holds
    viewer: Viewer
    release: str

    def exam(self, name: str) -> PhantomExam:
        """Return a phantom exam as this release shows it, one series per view."""
        study = StudyHeader(f"OHIF {name}", f"OHIF-{name}", datetime(2026, 1, 10, 10, 15, tzinfo=UTC))
        images = [
            mammogram(drawn().image(view).pixel_array, view, number, drawn().vendor, study)
            for number, view in enumerate(STANDARD_VIEWS, start=1)
        ]
        exam = replace(drawn(), images=tuple(images))
        if self.release == "3.12":
            # 3.13 shows an image that has the attribute as black (cornerstone3D issue 2844).
            for image in exam.images:
                image.VOILUTFunction = "SIGMOID"
        return exam

    def opens(self, exam: PhantomExam, *results: ResultObject) -> None:
        """Store an exam and its results, and open the study."""
        self.archive.store((*exam.images, *(made.dataset for made in results)))
        series = {str(each.SeriesInstanceUID) for each in (*exam.images, *(made.dataset for made in results))}
        self.viewer.open(str(exam.images[0].StudyInstanceUID), len(series))


@dataclass(frozen=True)
class Node:
    """The node itself as the archive."""

    service: Service
    port: int

    def store(self, datasets: Iterable[Dataset]) -> None:
        """Store instances by STOW-RS."""
        assert self.service.store(*datasets).status_code == 200


AT_THE_NODE = "node-3.13"
"""The viewer beside the node itself, without another archive."""


# One fixture for all, so that one browser is closed before the next is opened: there is one to a thread.
# The older release is looked at by `make test-long`.
@pytest.fixture(scope="module", params=[pytest.param("3.12", marks=pytest.mark.slow), "3.13"])
def desk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SQLiteDatabases
) -> Iterator[Desk]:
    release = request.param.removeprefix("node-")
    files, folder = require_ohif(release), tmp_path_factory.mktemp("ohif")
    if request.param != AT_THE_NODE:
        with archive(folder) as opened, site(files, opened) as address, viewer(address, release) as page:
            yield Desk(opened, page, release)
        return
    engine = open_database(sqlite_databases.fresh())
    with a_service(a_room(folder, engine)) as service, an_address(service.app) as address:
        node = Node(service, urlsplit(address).port or 0)
        with site(files, node) as where, viewer(where, request.param) as page:
            yield Desk(node, page, release)
    engine.dispose()


def shifted(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Return a mask moved down."""
    return np.asarray(np.roll(mask, pixels, axis=0), np.bool_)


def read(exam: PhantomExam, *, move: int = 0) -> Answer:
    """Return the truth of a phantom exam as a reader would tell it, every mass moved down by so many pixels."""
    images, found = [], []
    for view in STANDARD_VIEWS:
        header = deepcopy(exam.image(view))
        del header.PixelData
        images.append(ImageAnswer(header, view))
        masses = tuple(
            told(shifted(mass.mask, move), number, header) for number, mass in enumerate(exam.masses(view), start=1)
        )
        shape = header.Rows, header.Columns
        found.append(
            ImageFindings(
                str(header.SOPInstanceUID),
                view,
                shape,
                masses,
                masses[0].suspicion,
                0.6,
                probability=a_map(shape, [mass.full_mask(shape) for mass in masses]),
            )
        )
    findings = ExamFindings(MODEL, tuple(found), tuple(BreastScore(side, 83) for side in Laterality), 83)
    return Answer("e1", 1, AnswerStatus.FINDINGS, CREATED_AT, tuple(images), MODEL, findings)


def alone(answer: Answer, view: View) -> Answer:
    """Return the answer as if this view were the whole exam."""
    assert answer.findings
    images = tuple(image for image in answer.images if image.view == view)
    found = tuple(image for image in answer.findings.images if image.view == view)
    breasts = tuple(breast for breast in answer.findings.breasts if breast.laterality is view.laterality)
    findings = replace(answer.findings, images=found, breasts=breasts)
    return replace(answer, exam=str(view), images=images, findings=findings)


def told(mask: NDArray[np.bool_], number: int, header: Dataset) -> Mass:
    """Return a mass of an image with its size in millimetres."""
    mass = a_mass(mask, number, suspicion=90 - 7 * number)
    return replace(mass, size=measure(mass.mask, pixel_spacing(header)))


def objects(exam: PhantomExam, answer: Answer, *kinds: ResultKind, **form: Any) -> tuple[ResultObject, ...]:
    """Encode an answer as these kinds of objects, in the form that the mix is given."""
    mix = ObjectMix(kinds, **form)
    drawn = {ResultKind.SC, ResultKind.SC_VIEW, ResultKind.PDF}.intersection(kinds)
    pictures = {
        str(exam.image(view).SOPInstanceUID): (255 * view_image(exam.image(view), view).pixels).astype(np.uint8)
        for view in (STANDARD_VIEWS if drawn else ())
    }
    return encode(Edition.of(answer, mix, installation=INSTALLATION, settings_digest="", pictures=pictures))


def masses_of(answer: Answer, view: View) -> tuple[Mass, ...]:
    """Return the masses of a view."""
    assert answer.findings
    return next(image.masses for image in answer.findings.images if image.view == view)


def whole(answer: Answer, view: View, exam: PhantomExam) -> NDArray[np.bool_]:
    """Return all masses of a view as one mask."""
    shape = exam.image(view).pixel_array.shape
    return np.asarray(np.any([mass.full_mask(shape) for mass in masses_of(answer, view)], axis=0), np.bool_)


def displayed(exam: PhantomExam, view: View) -> NDArray[Any]:
    """Return the greys of a view as a viewer displays them: what its window and VOI LUT function make of its pixels."""
    image = exam.image(view)
    return apply_windowing(image.pixel_array, image)


def shows(image: NDArray[Any], screen: Screen) -> bool:
    """Tell whether this image is seen."""
    return screen.likeness(image) > ALIKE


def view_shown(screen: Screen, exam: PhantomExam) -> View:
    """Return the view whose image is seen."""
    likeness = {view: screen.likeness(displayed(exam, view)) for view in STANDARD_VIEWS}
    best = max(STANDARD_VIEWS, key=lambda view: likeness[view])
    assert likeness[best] > ALIKE, likeness
    return best


def outlined(mass: Mass, exam: PhantomExam, view: View, screen: Screen) -> float:
    """Return how much of a mass's outline is drawn."""
    return screen.drawn(mass.contour, *exam.image(view).pixel_array.shape)


def all_outlined(answer: Answer, exam: PhantomExam, view: View, screen: Screen) -> bool:
    """Tell whether a view is seen with the outlines of all its masses."""
    drawn = [outlined(mass, exam, view, screen) for mass in masses_of(answer, view)]
    return shows(displayed(exam, view), screen) and min(drawn) > 0.9


def lies_over(expected: NDArray[np.bool_], before: Screen, screen: Screen) -> bool:
    """Tell whether what is coloured since before is this mask."""
    fresh = screen.since(before)
    return fresh.overlap(expected) > 0.8 and fresh.distance(expected) < 2


def image_then_overlay(desk: Desk, exam: PhantomExam, answer: Answer, view: View, series: str) -> tuple[Screen, Screen]:
    """Open a view, then a Segmentation of it, load it, and return what is seen before and when its masses have come."""
    desk.viewer.show(str(view))
    before = desk.viewer.look_until(partial(shows, displayed(exam, view)))
    desk.viewer.show(series)
    assert desk.viewer.say("Yes", "Do you want to open this Segmentation?")
    after = desk.viewer.look_until(partial(lies_over, whole(answer, view, exam), before))
    return before, after.since(before)


def open_report(desk: Desk, series: str, seen: Callable[[Screen], bool]) -> Screen:
    """Open a report and return what is seen when its outlines have come.

    OHIF 3.12.10 draws them sometimes only when the report is opened a second time.
    """
    for seconds in (10, 10, 60):
        desk.viewer.show(series)
        desk.viewer.say("No", "Do you want to continue tracking measurements for this study?", 3)
        screen = desk.viewer.look_until(seen, seconds)
        if seen(screen):
            break
        desk.viewer.show(str(STANDARD_VIEWS[1]))
    return screen


def test_segmentations_lie_over_their_masses_in_all_four_views(desk: Desk) -> None:
    exam = desk.exam("SEG")
    answer = read(exam)
    desk.opens(exam, *objects(exam, answer, ResultKind.SEG))
    for view in STANDARD_VIEWS:
        expected = whole(answer, view, exam)
        before, after = image_then_overlay(desk, exam, answer, view, f"AI masses {view}")
        desk.viewer.keep(f"seg-{view}")
        assert view_shown(before, exam) == view_shown(after, exam) == view
        assert not before.coloured[before.place(expected)[0]].any()
        assert after.overlap(expected) > 0.8
        assert after.distance(expected) < 2
        for mass, colour in zip(masses_of(answer, view), COLOURS, strict=False):
            tint = np.subtract(colour, min(colour))
            assert after.colour(mass.full_mask(expected.shape)) @ tint / np.linalg.norm(tint) > 0.95
    assert not desk.viewer.complaint()


@pytest.mark.parametrize("desk", [AT_THE_NODE], indirect=True)
def test_the_node_itself_is_the_archive_from_which_an_exam_and_its_overlays_are_opened(desk: Desk) -> None:
    exam = desk.exam("NODE")
    answer = read(exam)
    desk.opens(exam, *objects(exam, answer, ResultKind.SEG, ResultKind.SR))
    for view in STANDARD_VIEWS[::3]:
        _, after = image_then_overlay(desk, exam, answer, view, f"AI masses {view}")
        desk.viewer.keep(f"seg-{view}")
        assert view_shown(after, exam) == view
        assert after.overlap(whole(answer, view, exam)) > 0.8
    view = STANDARD_VIEWS[0]
    screen = open_report(desk, "AI mammography report", partial(all_outlined, answer, exam, view))
    desk.viewer.keep("sr")
    assert outlined(masses_of(answer, view)[0], exam, view, screen) > 0.9
    assert not desk.viewer.complaint()


@pytest.mark.parametrize(
    "report", [ReportClass.COMPREHENSIVE_3D, pytest.param(ReportClass.COMPREHENSIVE, marks=pytest.mark.slow)]
)
def test_reports_show_outlines_and_numbers_on_the_image_they_belong_to(desk: Desk, report: ReportClass) -> None:
    """A report for each view: OHIF opens a report on the image of its first group and gets no further."""
    exam = desk.exam(f"SR-{report}")
    answers = {view: alone(read(exam), view) for view in STANDARD_VIEWS}
    reports = [
        made
        for view, answer in answers.items()
        for made in objects(
            exam, answer, ResultKind.SR, report=report, series_descriptions={ResultKind.SR: f"Report {view}"}
        )
    ]
    desk.opens(exam, *reports)
    for view, answer in answers.items():
        screen = open_report(desk, f"Report {view}", partial(all_outlined, answer, exam, view))
        desk.viewer.keep(f"sr-{report}-{view}")
        assert view_shown(screen, exam) == view
        labels = desk.viewer.labels()
        for mass in masses_of(answer, view):
            assert outlined(mass, exam, view, screen) > 0.9
            assert any(numbers(mass) <= set(numbers_in(label)) for label in labels), (mass, labels)
    assert not desk.viewer.complaint()


def test_a_report_opens_on_the_image_of_the_most_suspicious_mass(desk: Desk) -> None:
    exam = desk.exam("FIRST")
    answer = read(exam)
    assert answer.findings
    view = STANDARD_VIEWS[-1]
    images = tuple(
        replace(image, masses=tuple(replace(mass, suspicion=99) for mass in image.masses))
        if image.view == view
        else image
        for image in answer.findings.images
    )
    answer = replace(answer, findings=replace(answer.findings, images=images))
    desk.opens(exam, *objects(exam, answer, ResultKind.SR))
    screen = open_report(desk, "AI mammography report", partial(all_outlined, answer, exam, view))
    assert view_shown(screen, exam) == view
    assert outlined(masses_of(answer, view)[0], exam, view, screen) > 0.9


def numbers(mass: Mass) -> set[float]:
    """Return what a label says of a mass: area, axes and score."""
    return {
        round(mass.size.area, 2),
        round(mass.size.long_axis, 2),
        round(mass.size.short_axis, 2),
        float(mass.suspicion),
    }


def numbers_in(label: list[str]) -> list[float]:
    """Return the value of each line of a label."""
    return [float(found[1]) for line in label if (found := re.search(r": (\d+\.\d+) ", line))]


def test_captures_are_shown_as_images(desk: Desk) -> None:
    exam = desk.exam("SC")
    made = objects(exam, read(exam), ResultKind.SC, ResultKind.SC_VIEW)
    desk.opens(exam, *made)
    assert len(made) == 1 + len(STANDARD_VIEWS)
    for number, capture in enumerate(each.dataset for each in made):
        seen = partial(is_picture, capture.pixel_array)
        desk.viewer.show(capture.SeriesDescription)
        screen = desk.viewer.look_until(seen, PATIENCE / 2)
        desk.viewer.keep(f"sc {number}")
        for again in range(2):
            if seen(screen):
                break
            # On a busy machine OHIF 3.13 places a capture as it had placed what was open before, if its player for films
            # comes in between (its performResize), and keeps to that place until the study is opened afresh.
            desk.viewer.reload()
            desk.viewer.show(capture.SeriesDescription)
            screen = desk.viewer.look_until(seen)
            desk.viewer.keep(f"sc {number} again {again}")
        assert is_picture(capture.pixel_array, screen)


def is_picture(picture: NDArray[np.uint8], screen: Screen) -> bool:
    """Tell whether a coloured picture is seen, colour for colour."""
    placed, covered = screen.place(picture)
    shown, expected = (cv2.GaussianBlur(each, (0, 0), 2)[covered] for each in (screen.pixels, placed))
    return float(np.corrcoef(shown.ravel(), expected.ravel())[0, 1]) > 0.9


def test_a_study_with_all_objects_still_opens_its_images_and_results(desk: Desk) -> None:
    exam = desk.exam("ALL")
    answer = withdrawing(read(exam))
    made = objects(exam, answer, *ENCODERS)
    assert {each.kind for each in made} == set(ResultKind)
    desk.opens(exam, *made)
    # One series of each kind; a Parametric Map leaves its window and colours to the images that are opened after it.
    opened = {each.kind: str(each.dataset.SeriesDescription) for each in made if each.kind is not ResultKind.PMAP}
    for kind, series in opened.items():
        complaint = desk.viewer.complaint_over(series)
        desk.viewer.keep(f"all {kind}")
        assert not complaint, kind
    for view in STANDARD_VIEWS[::3]:
        desk.viewer.show(str(view))
        assert view_shown(desk.viewer.look_until(partial(shows, displayed(exam, view))), exam) == view
    # What was opened stays drawn, and a capture brings OHIF's player for films.
    desk.viewer.reload()
    for view in STANDARD_VIEWS[::3]:
        before, after = image_then_overlay(desk, exam, answer, view, f"AI masses {view}")
        assert view_shown(before, exam) == view_shown(after, exam) == view
        assert after.overlap(whole(answer, view, exam)) > 0.8


def withdrawing(answer: Answer) -> Answer:
    """Return an answer that withdraws an object of its former revision."""
    uid = str(answer.images[0].header.StudyInstanceUID)
    former = Predecessor(uid, f"{uid}.1", SegmentationStorage, f"{uid}.1.1")
    return replace(answer, revision=2, superseded=(former,), changes=("Everything is as it was.",))


def test_after_a_second_revision_the_new_outline_is_drawn(desk: Desk) -> None:
    exam = desk.exam("REVISED")
    first, second = read(exam), replace(read(exam, move=-560), revision=2)  # texts beside outlines, too
    made = objects(exam, first, ResultKind.SEG, ResultKind.SR)
    former = next(each for each in made if each.kind is ResultKind.SR)
    predecessor = Predecessor(former.study_uid, former.series_uid, former.sop_class_uid, former.instance_uid)
    second = replace(
        second, predecessors=(predecessor,), changes=("All masses moved.",), created_at=CREATED_AT + timedelta(hours=1)
    )
    desk.opens(exam, *made, *objects(exam, second, ResultKind.SEG, ResultKind.SR))
    view = STANDARD_VIEWS[0]
    _, after = image_then_overlay(desk, exam, second, view, f"AI masses {view} rev 2")
    desk.viewer.keep("revised seg")
    assert after.overlap(whole(second, view, exam)) > 0.8
    screen = open_report(desk, "AI mammography report", partial(all_outlined, second, exam, view))
    desk.viewer.keep("revised sr")
    for new, old in zip(masses_of(second, view), masses_of(first, view), strict=True):
        assert outlined(new, exam, view, screen) > 0.9
        assert outlined(old, exam, view, screen) < 0.5
