"""Headers → (laterality, view), modifiers, what kind of image this is, and why (rules R5, R12)."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from pydicom import Dataset
from pydicom.uid import (
    UID,
    BreastProjectionXRayImageStorageForPresentation,
    BreastProjectionXRayImageStorageForProcessing,
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
)

from ai.exam import Laterality, View, ViewPosition
from node.body_parts import other_part
from node.headers import first, items, number, plain, values
from node.identity import MANUFACTURER, MODEL_NAME
from node.view_codes import CODING_SCHEMES, MODIFIERS, VIEWS, ViewWords, read_text


class ImageKind(StrEnum):
    """What kind of object an instance is."""

    #: A digital mammogram as people look at it.
    FOR_PRESENTATION = "For Presentation"
    #: A digital mammogram as the detector gave it.
    FOR_PROCESSING = "For Processing"
    #: A stack of slices, in its own SOP class or in one that stood in for it.
    TOMOSYNTHESIS = "tomosynthesis"
    #: A projection image of a tomosynthesis acquisition.
    PROJECTION = "breast projection"
    #: A picture of pixels from elsewhere: scanned film, screen shots.
    SECONDARY_CAPTURE = "Secondary Capture"
    #: Any other image.
    OTHER_IMAGE = "other image"
    #: Structured report, presentation state, segmentation, document …
    NOT_AN_IMAGE = "not an image"
    #: One of our own objects that came back (rule R8).
    OWN_RESULT = "own result"


KINDS = {
    DigitalMammographyXRayImageStorageForPresentation: ImageKind.FOR_PRESENTATION,
    DigitalMammographyXRayImageStorageForProcessing: ImageKind.FOR_PROCESSING,
    BreastTomosynthesisImageStorage: ImageKind.TOMOSYNTHESIS,
    BreastProjectionXRayImageStorageForPresentation: ImageKind.PROJECTION,
    BreastProjectionXRayImageStorageForProcessing: ImageKind.PROJECTION,
}

LOSSY_SYNTAXES = frozenset(
    f"1.2.840.10008.1.2.4.{leaf}" for leaf in (50, 51, 81, 91, 93, 111, 112, 203, *range(100, 109))
)
"""JPEG baseline and extended, near-lossless JPEG-LS, JPEG 2000 and its part 2, JPEG XL, High-Throughput JPEG 2000, and
videos: all that need not be lossless (PS3.5 A.4)."""

MAGNIFIED = 1.3
"""Estimated Radiographic Magnification Factor from which a view is magnified; contact views have up to 1.15 (R12)."""

DERIVED_KINDS = {
    "TOMOSYNTHESIS": "part of a tomosynthesis",
    "GENERATED_2D": "computed from tomosynthesis",
    "RECOMBINED": "contrast-enhanced, recombined",
    "HIGH_ENERGY": "contrast-enhanced, high energy",
    "SUBTRACTION": "contrast-enhanced, subtracted",
}
"""Values of Image Type beyond the second that make it no ordinary mammogram (PS3.3 C.8.11.7, C.8.21.3)."""


@dataclass(frozen=True)
class Classification:
    """What an instance is to an exam.

    Attributes
    ----------
    kind
        What kind of object.
    laterality
        The breast; None when unknown, both, or contradictory.
    view_position
        CC, MLO, or the short name of another view (ML, XCCL, …); None when unknown or contradictory.
    modifiers
        Names of view modifiers (PS3.16 CID 4015), sorted.
    usable
        Whether it can be read as its standard view: whole, contact, lossless, of an accepted kind.
    opens_exam
        Whether its arrival alone asks for an answer (rule R5).
    reasons
        Sentences: first why it is not usable, and last, always, where its view came from, and whether the pixels can
        be held against it.
    """

    kind: ImageKind
    laterality: Laterality | None
    view_position: str | None
    modifiers: tuple[str, ...]
    usable: bool
    opens_exam: bool
    reasons: tuple[str, ...]

    @property
    def view(self) -> View | None:
        """The standard view that it shows; also of images that are not usable."""
        return standard_view(self.laterality, self.view_position)


def standard_view(laterality: str | None, view_position: str | None) -> View | None:
    """Return the view of a laterality and a view position, None when it is not one of the four."""
    if laterality is None or view_position not in tuple(ViewPosition):
        return None
    return View(Laterality(laterality), ViewPosition(view_position))


def classify(
    header: Dataset, accepts: frozenset[ImageKind] = frozenset({ImageKind.FOR_PRESENTATION})
) -> Classification:
    """Say what an instance is; odd headers make it unusable, they never raise.

    Parameters
    ----------
    header
        The data set, with or without pixels, with its File Meta Information where there is one.
    accepts
        Kinds of image that the chosen reader reads.
    """
    kind = image_kind(header)
    if kind in (ImageKind.NOT_AN_IMAGE, ImageKind.OWN_RESULT):
        return Classification(kind, None, None, (), usable=False, opens_exam=False, reasons=(f"{kind}", "no view"))
    laterality, laterality_source = agreed("laterality", laterality_sources(header))
    position, position_source = agreed("view", position_sources(header))
    modifiers = tuple(sorted(set(view_modifiers(header))))
    obstacles = list(obstacles_of(header, modifiers))
    if kind not in accepts:
        obstacles.insert(0, refusal(kind))
    if laterality is None:
        obstacles.append(laterality_source)
    if position is None:
        obstacles.append(position_source)
    elif position not in tuple(ViewPosition):
        obstacles.append(f"{position} is not a standard view")
    return Classification(
        kind=kind,
        laterality=Laterality(laterality) if laterality else None,
        view_position=position,
        modifiers=modifiers,
        usable=not obstacles,
        opens_exam=opens_exam(header, kind),
        reasons=(*dict.fromkeys(obstacles), "; ".join((laterality_source, position_source, *unchecked(header)))),
    )


def unchecked(header: Dataset) -> Iterator[str]:
    """Yield what the gate cannot hold against the pixels: without Patient Orientation (PS3.3 C.7.6.1.1.1) the side.

    It tells where the chest wall lies by anterior or posterior in one of its two directions.
    """
    directions = values(header, "PatientOrientation")
    if len(directions) != 2 or not {"A", "P"} & {direction[:1] for direction in directions}:
        yield "side not checked in the picture, Patient Orientation does not tell it"


def refusal(kind: ImageKind) -> str:
    """Return the sentence that says that the chosen reader does not read this kind of image."""
    return f"{kind}, which the reader does not read"


def kinds_of(accepts: Collection[str]) -> frozenset[ImageKind]:
    """Return the kinds of image that a model's card says it reads (``use.accepts``)."""
    return frozenset(kind for kind in ImageKind if kind.value.upper() in accepts)


def image_kind(header: Dataset) -> ImageKind:
    """Tell the kind from SOP class, intent and, for images in borrowed SOP classes, modality and number of frames."""
    if first(header, "Manufacturer") == MANUFACTURER.upper() and first(header, "ManufacturerModelName") == (
        MODEL_NAME.upper()
    ):
        return ImageKind.OWN_RESULT
    sop_class = UID(first(header, "SOPClassUID"))
    kind = KINDS.get(sop_class)
    if kind is ImageKind.FOR_PRESENTATION and first(header, "PresentationIntentType") == "FOR PROCESSING":
        return ImageKind.FOR_PROCESSING
    if kind:
        return kind
    # The names of all image SOP classes, and of no other, have these words (PS3.6 A); private ones have no name.
    if "Image Storage" not in sop_class.name and (sop_class.name != str(sop_class) or not first(header, "Rows")):
        return ImageKind.NOT_AN_IMAGE
    if first(header, "Modality") == "MG" and number(header, "NumberOfFrames") > 1:
        # Tomosynthesis was sent as Secondary Capture or CT before it had a SOP class.
        return ImageKind.TOMOSYNTHESIS
    return ImageKind.SECONDARY_CAPTURE if "Secondary Capture" in sop_class.name else ImageKind.OTHER_IMAGE


def opens_exam(header: Dataset, kind: ImageKind) -> bool:
    """Tell whether an instance asks for an answer: any mammogram, projection or tomosynthesis (rule R5)."""
    return kind in KINDS.values() or (
        kind in (ImageKind.SECONDARY_CAPTURE, ImageKind.OTHER_IMAGE) and first(header, "Modality") == "MG"
    )


def obstacles_of(header: Dataset, modifiers: Iterable[str]) -> Iterator[str]:
    """Yield why an image cannot be read, apart from its kind and view."""
    syntax = first(getattr(header, "file_meta", Dataset()), "TransferSyntaxUID")
    factor = number(header, "EstimatedRadiographicMagnificationFactor")
    image_type = values(header, "ImageType")[2:]
    part = other_part(header)
    checks = {
        f"body part {part}, not the breast": bool(part),
        "lossy compressed": syntax in LOSSY_SYNTAXES or first(header, "LossyImageCompression") == "01",
        **{f"view modifier: {modifier}": True for modifier in modifiers},
        f"magnified {factor:.2f} times": factor >= MAGNIFIED,
        "partial view": first(header, "PartialView") == "YES",
        **{sentence: value in image_type for value, sentence in DERIVED_KINDS.items()},
        "quality control image": first(header, "QualityControlImage") in ("YES", "BOTH"),
        "no pixels": min(number(header, "Rows"), number(header, "Columns")) < 1,
        "several frames": number(header, "NumberOfFrames") > 1,
        "colour image": number(header, "SamplesPerPixel") > 1
        or first(header, "PhotometricInterpretation") == "PALETTE COLOR",
    }
    yield from (sentence for sentence, found in checks.items() if found)


Evidence = tuple[str, str]
"""An attribute's keyword, and what it says."""


def laterality_sources(header: Dataset) -> Iterator[list[Evidence]]:
    """Yield groups of evidence for the breast, the most trusted group first."""
    frames = [
        ("FrameLaterality", first(anatomy, "FrameLaterality"))
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for group in items(header, groups)
        for anatomy in items(group, "FrameAnatomySequence")
    ]
    coded = [(keyword, first(header, keyword)) for keyword in ("ImageLaterality", "Laterality")]
    worded = words(header, "ViewPosition")
    coded.append(("ViewPosition", worded.laterality or ""))
    yield [(keyword, value) for keyword, value in coded + frames if value in tuple(Laterality)]
    for keyword in ("AcquisitionDeviceProcessingDescription", "SeriesDescription"):
        found = words(header, keyword).laterality
        yield [(keyword, found)] if found else []


def position_sources(header: Dataset) -> Iterator[list[Evidence]]:
    """Yield groups of evidence for the view, the most trusted group first."""
    coded: list[Evidence] = []
    if stated := first(header, "ViewPosition"):
        coded.append(("ViewPosition", words(header, "ViewPosition").position or plain(stated)))
    coded += [("ViewCodeSequence", VIEWS[code]) for code in codes(items(header, "ViewCodeSequence")) if code in VIEWS]
    yield [(keyword, value) for keyword, value in coded if value]
    # Fuji writes the view where others describe the processing; CBIS-DDSM writes it as the orientation.
    worded = ((key, words(header, key)) for key in ("AcquisitionDeviceProcessingDescription", "PatientOrientation"))
    yield [(keyword, found.position) for keyword, found in worded if found.position]
    described = words(header, "SeriesDescription").position
    yield [("SeriesDescription", described)] if described else []


def view_modifiers(header: Dataset) -> Iterator[str]:
    """Yield the names of view modifiers: coded ones, and those that stand in the view's text."""
    # The sequence belongs into the view's item (PS3.3 C.8.11.7); some write it beside.
    for item in (header, *items(header, "ViewCodeSequence")):
        for code in codes(items(item, "ViewModifierCodeSequence")):
            yield MODIFIERS.get(code) or f"unknown code {plain(code)}"
    for keyword in ("ViewPosition", "AcquisitionDeviceProcessingDescription", "SeriesDescription"):
        yield from words(header, keyword).modifiers


def agreed(what: str, groups: Iterable[list[Evidence]]) -> tuple[str | None, str]:
    """Return what the first group that says anything says, and a sentence; None when it contradicts itself."""
    for group in groups:
        if not group:
            continue
        found = dict.fromkeys(value for _, value in group)
        if len(found) == 1:
            return group[0][1], f"{what} {group[0][1]} from {', '.join(dict.fromkeys(keyword for keyword, _ in group))}"
        return None, f"{what} contradictory: {', '.join(dict.fromkeys(f'{value} in {key}' for key, value in group))}"
    return None, f"no {what} in the header"


def codes(coded: Iterable[Dataset]) -> Iterator[str]:
    """Yield the code values of the SNOMED codes among code sequence items."""
    for item in coded:
        if first(item, "CodingSchemeDesignator") in CODING_SCHEMES and (code := first(item, "CodeValue")):
            yield code


def words(header: Dataset, keyword: str) -> ViewWords:
    """Return what the text of an attribute says of the view."""
    return read_text(" ".join(values(header, keyword)), code=keyword == "ViewPosition")
