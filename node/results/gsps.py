"""Outlines and scores of one image as a Grayscale Softcopy Presentation State (PS3.3 A.33.1)."""

from collections.abc import Iterator
from typing import Any, Final

import highdicom as hd
import numpy as np
from highdicom.pr import GraphicAnnotation, GraphicLayer, GraphicObject, TextObject
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from ai.findings import ImageFindings, Mass
from ai.pixels import pixel_aspect
from config.mix import ResultKind
from node.identity import RESEARCH_USE_ONLY
from node.results.answer import Answer, ImageAnswer
from node.results.drawing import COLOURS, masses_in_words
from node.results.edition import Edition
from node.results.equipment import equipment, finish
from node.results.geometry import thinned
from node.results.groups import SUMMARY_IDENTIFIER
from node.results.labels import Box, label_places
from node.results.seg import tracking_identifier
from node.results.source import orientation, plain, source_header
from node.results.uids import ObjectUIDs

KIND: Final = ResultKind.GSPS.value

TEXT_BOX: Final = (0.36, 0.12)
"""Width and height of the sentences' box, as parts of the displayed area."""

GREY_PIPELINE: Final = (
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction"),
)


def presentation_state(edition: Edition, image: ImageAnswer, findings: ImageFindings) -> Dataset:
    """Return how a viewer shows one image with what was found in it; without masses it says so in words.

    The image looks as its sender meant it: Modality LUT, first VOI LUT or window and polarity are the source's.

    Parameters
    ----------
    edition
        The answer and the names of its objects.
    image
        The source image.
    findings
        What was found in it.
    """
    answer, uids = edition.answer, edition.uids
    source = source_header(image.header)
    for keyword in GREY_PIPELINE:
        source.pop(keyword, None)  # highdicom copies all windows, of which dcmpschk takes one
    source.SamplesPerPixel = 1  # highdicom asks for it; readers take nothing but grey
    outlines = GraphicLayer("AI OUTLINES", 1, "Outlines by an algorithm", hd.color.CIELabColor.from_rgb(*COLOURS[1]))
    words = GraphicLayer("AI TEXT", 2, "What an algorithm found", hd.color.CIELabColor.from_rgb(*COLOURS[1]))
    sentences = GraphicAnnotation([source], words, text_objects=[_summary(answer, image, findings, uids)])
    masses = [GraphicAnnotation([source], outlines, **_masses(findings, uids))] if findings.masses else []
    target: Dataset = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[source],
        series_instance_uid=uids.series(KIND, image.uid),
        series_number=edition.series_number(ResultKind.GSPS, image),
        sop_instance_uid=uids.instance(KIND, image.uid),
        instance_number=1,
        content_label="AI OUTLINES",
        content_description="Masses, outlined by an algorithm. Research use only.",
        graphic_layers=[outlines, words] if masses else [words],
        graphic_annotations=[*masses, sentences],
        presentation_lut_transformation=hd.PresentationLUTTransformation("INVERSE" if _inverse(source) else "IDENTITY"),
        series_description=edition.series_description(ResultKind.GSPS, findings.view),
        specific_character_set=None,
        **equipment(answer, uids),
    )
    target.update(_modality_lut(image.header))
    if window := _voi_lut(image.header):
        target.SoftcopyVOILUTSequence = [window]
    [area] = target.DisplayedAreaSelectionSequence
    area.PresentationPixelAspectRatio = _aspect(image.header)
    # An area has two corners, and may be larger than its image (PS3.3 C.10.4).
    area.DisplayedAreaBottomRightHandCorner = [max(corner, 2) for corner in area.DisplayedAreaBottomRightHandCorner]
    target.Laterality = findings.view.laterality.value  # Type 2C, PS3.3 C.7.3.1
    finish(target, answer, uids, image.header)
    # The IOD's own names for them (PS3.3 C.11.10).
    target.PresentationCreationDate, target.PresentationCreationTime = target.ContentDate, target.ContentTime
    del target.ContentDate, target.ContentTime
    return target


def _masses(findings: ImageFindings, uids: ObjectUIDs) -> dict[str, Any]:
    """Return outlines and labels: in PIXEL units the corner of the first pixel is 0, 0 (PS3.3 C.10.5), as in contours."""
    rows, columns = findings.shape
    names = [tracking_identifier(findings.view, mass) for mass in findings.masses]
    tracking = [uids.tracking(findings.uid, mass.number) for mass in findings.masses]
    contours = [np.clip(thinned(mass.contour), 0, (columns, rows)) for mass in findings.masses]
    labels = _labels(findings.masses, contours, findings.shape)
    return {
        "graphic_objects": [
            GraphicObject("POLYLINE", contour, "PIXEL", tracking_id=name, tracking_uid=uid)
            for contour, name, uid in zip(contours, names, tracking, strict=True)
        ],
        "text_objects": [
            TextObject(text, "PIXEL", bounding_box=box, text_justification="LEFT", tracking_id=name, tracking_uid=uid)
            for (text, box), name, uid in zip(labels, names, tracking, strict=True)
        ],
    }


def _labels(
    masses: tuple[Mass, ...], contours: list[NDArray[np.float64]], shape: tuple[int, int]
) -> Iterator[tuple[str, Box]]:
    """Yield each mass's text and the box for it, beside its outline; the viewer chooses the size of the letters."""
    rows, columns = shape
    height = rows / 50
    texts = [f"Mass {mass.number} score {mass.suspicion}" for mass in masses]
    sizes = [(min(0.6 * height * len(text), columns / 2), height) for text in texts]
    boxes = [Box.around(contour) for contour in contours]
    yield from zip(texts, label_places(boxes, sizes, (columns, rows), height / 2), strict=True)


def _summary(answer: Answer, image: ImageAnswer, findings: ImageFindings, uids: ObjectUIDs) -> TextObject:
    """Return the sentences that every image gets, in the upper corner on the nipple's side."""
    sentences = [
        f"AI: {masses_in_words(len(findings.masses))}, image score {findings.score} (0-100, not a probability)",
        *([f"AI: not read: {', '.join(map(str, answer.missing))}"] if answer.missing else []),
        *([f"AI: {answer.hidden} less suspicious not shown in this exam"] if answer.hidden else []),
        f"{answer.model.name} {answer.model.version}, revision {answer.revision}",
        RESEARCH_USE_ONLY,
    ]
    along_row, _ = orientation(image.header) or ("", "")
    width, height = TEXT_BOX
    left = 1 - width if along_row.startswith("A") else 0.0
    return TextObject(
        plain("\r\n".join(sentences))[:1024],  # ST
        "DISPLAY",
        bounding_box=(left, 0.0, left + width, height),
        text_justification="LEFT",
        tracking_id=SUMMARY_IDENTIFIER,
        tracking_uid=uids.tracking(image.uid, 0),
    )


def _inverse(header: Dataset) -> bool:
    """Whether low values are bright: a presentation state overrides the Photometric Interpretation (PS3.4 N.2.1.4)."""
    return bool(
        header.get("PhotometricInterpretation") == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE"
    )


def _aspect(header: Dataset) -> list[int]:
    """Return Presentation Pixel Aspect Ratio, vertical to horizontal (PS3.3 C.10.4)."""
    aspect = pixel_aspect(header)
    return [1, 1] if aspect == 1 else [round(1000 * aspect), 1000]


def _modality_lut(header: Dataset) -> Dataset:
    """Return the Modality LUT Module (PS3.3 C.11.1) of a source; nothing when it has none."""
    module = Dataset()
    if lut := (header.get("ModalityLUTSequence") or [None])[0]:
        module.ModalityLUTSequence = [_lut(lut)]
        module.ModalityLUTSequence[0].ModalityLUTType = lut.get("ModalityLUTType") or "US"
    elif header.get("RescaleSlope") is not None and header.get("RescaleIntercept") is not None:
        module.RescaleIntercept, module.RescaleSlope = header.RescaleIntercept, header.RescaleSlope
        module.RescaleType = header.get("RescaleType") or "US"
    return module


def _voi_lut(header: Dataset) -> Dataset | None:
    """Return the first VOI LUT, else the first window, as `ai.pixels` does; None when there is neither."""
    lut = (header.get("VOILUTSequence") or [None])[0]
    item = Dataset()
    if lut is not None and "LUTDescriptor" in lut and "LUTData" in lut:
        item.VOILUTSequence = [_lut(lut)]
        return item
    centres, widths = (_values(header, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    if not centres or not widths:
        return None
    item.WindowCenter, item.WindowWidth = centres[0], widths[0]
    if header.get("VOILUTFunction") in ("SIGMOID", "LINEAR_EXACT"):
        item.VOILUTFunction = header.VOILUTFunction
    return item


def _values(header: Dataset, keyword: str) -> list[Any]:
    """Return the values of an attribute of one or more values."""
    value = header.get(keyword)
    if value is None:
        return []
    return list(value) if isinstance(value, MultiValue) else [value]


def _lut(lut: Dataset) -> Dataset:
    """Return a LUT whose VRs don't hang on the Pixel Representation, which a presentation state lacks."""
    entries, first, bits = (int(value) for value in lut.LUTDescriptor)
    data = lut.LUTData
    item = Dataset()
    # 65 536 entries are written as 0, and in a signed element more than 32 767 as two's complement (PS3.3 C.11.1.1).
    size = entries % (1 << 16)
    size -= (1 << 16) if first < 0 and size >= 1 << 15 else 0
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [size, first, bits])
    item.add_new("LUTData", "OW", data if isinstance(data, bytes) else np.asarray(data).astype("<u2").tobytes())
    return item
