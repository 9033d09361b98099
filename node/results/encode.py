"""An answer becomes DICOM objects: those of a destination's object mix, in its form."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from types import MappingProxyType
from typing import Final

from pydicom.dataset import Dataset

from config.mix import ResultKind
from node.results.cad_sr import cad_report
from node.results.edition import Edition
from node.results.forms import FALLBACK_REPORT, FALLBACK_SEGMENTATION
from node.results.gsps import presentation_state
from node.results.pages import image_panel
from node.results.pdf import summary
from node.results.pmap import parametric_map
from node.results.rejection import rejection_note
from node.results.sc import overview, view_capture
from node.results.seg import segmentation
from node.results.sr import recast, report


@dataclass(frozen=True, eq=False)
class ResultObject:
    """A result object.

    Attributes
    ----------
    kind
        What it is.
    dataset
        The object.
    image_uid
        SOP Instance UID of the image that it belongs to, or None when it belongs to the exam.
    fallback
        The same in a form that more destinations take; sent instead where this one is refused.
    """

    kind: ResultKind
    dataset: Dataset
    image_uid: str | None = None
    fallback: "ResultObject | None" = None

    @property
    def instance_uid(self) -> str:
        """SOP Instance UID."""
        return str(self.dataset.SOPInstanceUID)

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID."""
        return str(self.dataset.SOPClassUID)

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return str(self.dataset.SeriesInstanceUID)

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return str(self.dataset.StudyInstanceUID)


def segmentations(edition: Edition) -> Iterator[ResultObject]:
    """Yield a Segmentation for each image with masses; what is not BINARY has a BINARY one to fall back on."""
    for image in edition.answer.images:
        found = edition.answer.findings_of(image)
        if found is None or not found.masses:
            continue
        made = {
            form: ResultObject(ResultKind.SEG, segmentation(edition, image, found, form), image.uid)
            for form in dict.fromkeys((FALLBACK_SEGMENTATION, edition.mix.segmentation))
        }
        chosen = made.pop(edition.mix.segmentation)
        yield replace(chosen, fallback=made.get(FALLBACK_SEGMENTATION))


def reports(edition: Edition) -> Iterator[ResultObject]:
    """Yield the TID 1500 report; a Comprehensive 3D one has a Comprehensive one to fall back on."""
    made = report(edition, edition.mix.report)
    fallback = None
    if edition.mix.report is not FALLBACK_REPORT:
        fallback = ResultObject(ResultKind.SR, recast(made, edition, FALLBACK_REPORT))
    yield ResultObject(ResultKind.SR, made, fallback=fallback)


def maps(edition: Edition) -> Iterator[ResultObject]:
    """Yield a Parametric Map for each image whose reader made a map."""
    for image in edition.answer.images:
        found = edition.answer.findings_of(image)
        if found is not None and found.probability is not None:
            yield ResultObject(ResultKind.PMAP, parametric_map(edition, image, found), image.uid)


def cad_reports(edition: Edition) -> Iterator[ResultObject]:
    """Yield the Mammography CAD SR."""
    yield ResultObject(ResultKind.CAD_SR, cad_report(edition))


def presentation_states(edition: Edition) -> Iterator[ResultObject]:
    """Yield a presentation state for each image that was read; one without masses says so."""
    for image in edition.answer.images:
        if found := edition.answer.findings_of(image):
            yield ResultObject(ResultKind.GSPS, presentation_state(edition, image, found), image.uid)


def overviews(edition: Edition) -> Iterator[ResultObject]:
    """Yield the page of the exam; every answer has one."""
    yield ResultObject(ResultKind.SC, overview(edition))


def view_captures(edition: Edition) -> Iterator[ResultObject]:
    """Yield a picture of each image that was read."""
    for image in edition.answer.images:
        found, panel = edition.answer.findings_of(image), image_panel(edition, image)
        if found and panel:
            yield ResultObject(ResultKind.SC_VIEW, view_capture(edition, image, found, panel), image.uid)


def summaries(edition: Edition) -> Iterator[ResultObject]:
    """Yield the summary; every answer has one."""
    yield ResultObject(ResultKind.PDF, summary(edition))


def rejections(edition: Edition) -> Iterator[ResultObject]:
    """Yield the note that withdraws the former revision's objects, when there are any."""
    if edition.answer.superseded:
        yield ResultObject(ResultKind.REJECTION, rejection_note(edition))


ENCODERS: Final[Mapping[ResultKind, Callable[[Edition], Iterable[ResultObject]]]] = MappingProxyType(
    {
        ResultKind.SEG: segmentations,
        ResultKind.SR: reports,
        ResultKind.CAD_SR: cad_reports,
        ResultKind.PMAP: maps,
        ResultKind.GSPS: presentation_states,
        ResultKind.SC: overviews,
        ResultKind.SC_VIEW: view_captures,
        ResultKind.PDF: summaries,
        ResultKind.REJECTION: rejections,
    }
)
"""Kind → encoder. An encoder yields nothing where its kind has nothing to say."""


def encode(edition: Edition) -> tuple[ResultObject, ...]:
    """Return the objects that answer an exam at the destinations of one object mix, in the order of the mix."""
    return tuple(made for kind in edition.mix.objects for made in ENCODERS[kind](edition))


def to_bytes(dataset: Dataset) -> bytes:
    """Return the data set as a DICOM file (PS3.10); equal data sets give equal bytes."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
