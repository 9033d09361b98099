"""Findings of one image as a Segmentation, in the form that OHIF, DCMQI and dciodvfy all take (PS3.3 A.51)."""

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai.exam import View
from ai.findings import ImageFindings, Mass, ModelIdentity
from config.mix import ResultKind, SegmentationType
from node.identity import MANUFACTURER
from node.results import codes
from node.results.answer import ImageAnswer
from node.results.drawing import COLOURS
from node.results.edition import Edition
from node.results.equipment import equipment, finish
from node.results.geometry import add_geometry
from node.results.source import plain, source_header
from node.results.uids import ObjectUIDs


def segmentation(edition: Edition, image: ImageAnswer, findings: ImageFindings, form: SegmentationType) -> Dataset:
    """Return the masses of one image as a Segmentation with one segment for each.

    Parameters
    ----------
    edition
        The answer and the names of its objects.
    image
        The source image.
    findings
        What was found in it; at least one mass.
    form
        How the masks are coded. A LABELMAP has one label per pixel: where masks overlap, the pixel goes to the more
        suspicious mass, and a mass that others cover keeps its segment without pixels (PS3.3 C.8.20.2.4). FRACTIONAL
        has 0 or the maximum: whether the mass occupies the pixel, and no probability (rule R4).

    Returns
    -------
    Dataset
        Rows and columns are those of the source. Plane orientation and position are a viewers' convention for images
        without a Frame of Reference, not anatomy.
    """
    answer, uids = edition.answer, edition.uids
    target = hd.seg.Segmentation(
        source_images=[source_header(image.header)],
        pixel_array=_labels(findings) if form is SegmentationType.LABELMAP else _masks(findings),
        segmentation_type=form.value,
        fractional_type="OCCUPANCY",
        max_fractional_value=255,
        segment_descriptions=[_segment(mass, findings, answer.model, uids) for mass in findings.masses],
        series_instance_uid=uids.series(f"SEG {form}", image.uid),
        series_number=edition.series_number(ResultKind.SEG, image),
        sop_instance_uid=uids.instance(f"SEG {form}", image.uid),
        instance_number=1,
        content_label="MASSES",
        content_description="Masses, outlined by an algorithm. Research use only.",
        series_description=edition.series_description(ResultKind.SEG, findings.view),
        specific_character_set=None,
        **equipment(answer, uids),
    )
    if form is SegmentationType.BINARY and target.Rows * target.Columns < 8:
        # highdicom 0.28.2 begins a new byte with each frame of so small an image; bits go on (PS3.5 8.1.1).
        packed = np.packbits(_masks(findings).transpose(3, 0, 1, 2), bitorder="little").tobytes()
        target.PixelData = packed + b"\0" * (len(packed) % 2)
    target.ContentCreatorName = None  # Type 2, PS3.3 Table 10-12
    add_geometry(target, image.header, findings.shape)
    for sequence in (target.DimensionOrganizationSequence, target.DimensionIndexSequence):
        for item in sequence:
            item.DimensionOrganizationUID = uids.dimensions(f"SEG {form}", image.uid)
    finish(target, answer, uids, image.header)
    return target


def tracking_identifier(view: View, mass: Mass) -> str:
    """Return the name under which a mass stands in Segmentation and report."""
    return f"{view} mass {mass.number}"


def _masks(findings: ImageFindings) -> NDArray[np.uint8]:
    """Return the masks as highdicom takes them, shape (1, rows, columns, masses); each lies in one piece of memory."""
    masks = np.zeros((len(findings.masses), 1, *findings.shape), np.uint8)
    for plane, mass in zip(masks[:, 0], findings.masses, strict=True):
        plane[mass.window] = mass.mask
    return masks.transpose(1, 2, 3, 0)


def _labels(findings: ImageFindings) -> NDArray[np.uint16]:
    """Return the masses' numbers as one label map, shape (1, rows, columns); the first mass is the most suspicious."""
    labels = np.zeros((1, *findings.shape), np.uint16)
    for mass in reversed(findings.masses):
        labels[0][mass.window][mass.mask] = mass.number
    return labels


def _segment(mass: Mass, findings: ImageFindings, model: ModelIdentity, uids: ObjectUIDs) -> hd.seg.SegmentDescription:
    side = findings.view.laterality
    segment = hd.seg.SegmentDescription(
        segment_number=mass.number,
        segment_label=f"Mass {mass.number} {side} score {mass.suspicion}",
        segmented_property_category=codes.MORPHOLOGY,
        segmented_property_type=codes.MASS,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=plain(model.name)[:64],
            version=plain(model.version)[:64],
            family=codes.ALGORITHM_FAMILY,
            source=MANUFACTURER,
            parameters={"digest": model.digest},
        ),
        tracking_id=tracking_identifier(findings.view, mass),
        tracking_uid=uids.tracking(findings.uid, mass.number),
        anatomic_regions=[codes.BREAST],
        display_color=hd.color.CIELabColor.from_rgb(*COLOURS[(mass.number - 1) % len(COLOURS)]),
    )
    segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [hd.sr.CodedConcept.from_code(codes.SIDE[side])]
    return segment
