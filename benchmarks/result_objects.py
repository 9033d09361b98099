"""Bytes and seconds of every kind of result object for one four-view exam on this machine.

The exam is the full-size phantom with its true masses, so that everyone can repeat it. Objects that may be refused are
made together with the form that goes out in their place; their seconds hold both, their bytes one.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
from pydicom.dataset import Dataset

from ai.exam import STANDARD_VIEWS, Laterality, View
from ai.findings import BreastScore, ExamFindings, ImageFindings, Mass, ModelIdentity
from ai.pixels import pixel_spacing, view_image
from ai.readers.lesions import measure, outline
from benchmarks.values import US, Value
from config.mix import ObjectMix, ReportClass, ResultKind, SegmentationType
from node.phantom import PhantomExam, phantom_exam
from node.results.answer import Answer, ImageAnswer, Predecessor, answer_status
from node.results.edition import Edition
from node.results.encode import encode, to_bytes

MODEL = ModelIdentity("phantom truth", "1", "0" * 64)
FORMER = Predecessor("2.25.1", "2.25.2", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.3")
VARIANTS = {
    **{f"SEG {form}": ObjectMix((ResultKind.SEG,), segmentation=form) for form in SegmentationType},
    **{f"SR {form}": ObjectMix((ResultKind.SR,), report=form) for form in ReportClass},
    **{str(kind): ObjectMix((kind,)) for kind in ResultKind if kind not in (ResultKind.SEG, ResultKind.SR)},
}


def values(repeats: int) -> Iterator[Value]:
    """Yield seconds, and kilobytes, of every kind of object."""
    exam = phantom_exam(7)
    answer = the_answer(exam)
    pictures = {
        str(exam.image(view).SOPInstanceUID): (255 * view_image(exam.image(view), view).pixels).astype(np.uint8)
        for view in STANDARD_VIEWS
    }
    for name, mix in VARIANTS.items():
        edition = Edition.of(answer, mix, installation="benchmark", settings_digest="", pictures=pictures)
        for _ in range(repeats):
            begin = time.perf_counter()
            sizes = [len(to_bytes(made.dataset)) for made in encode(edition)]
            yield Value(f"{name} of an exam", "s", US, time.perf_counter() - begin)
            yield Value(f"size, {name} of an exam", "kB", US, sum(sizes) / 1e3)


def the_answer(exam: PhantomExam) -> Answer:
    """Return the truth of the phantom as an answer that has something to say in every kind of object."""
    found = tuple(the_findings(exam.image(view), view, exam) for view in STANDARD_VIEWS)
    findings = ExamFindings(MODEL, found, tuple(BreastScore(side, 80) for side in Laterality), 80)
    images = tuple(ImageAnswer(without_pixels(exam.image(view)), view) for view in STANDARD_VIEWS)
    status = answer_status(findings, complete=True)
    return Answer("benchmark", 2, status, datetime.now(UTC), images, MODEL, findings, superseded=(FORMER,))


def the_findings(image: Dataset, view: View, exam: PhantomExam) -> ImageFindings:
    """Return the true masses of a view, and a map of the size that readers make."""
    spacing = pixel_spacing(image)
    masses = []
    for number, true in enumerate(exam.masses(view), start=1):
        x, y, width, height = true.box
        mask = true.mask[y : y + height, x : x + width]
        size = measure(mask, spacing)
        masses.append(Mass(number, (y, x), mask, outline(mask, (y, x)), size, 0.9, 0.8, 90 - number))
    shape = (int(image.Rows), int(image.Columns))
    grid = np.zeros((512, round(512 * shape[1] / shape[0])), np.float32)
    return ImageFindings(str(image.SOPInstanceUID), view, shape, tuple(masses), 80, 0.8, probability=grid)


def without_pixels(image: Dataset) -> Dataset:
    """Return the header of an image."""
    header = Dataset()
    header.update({element.tag: element for element in image if element.keyword != "PixelData"})
    return header
