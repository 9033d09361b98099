"""The mass map of one image as a Parametric Map (PS3.3 A.75), with what IHE AIR asks of one."""

import hashlib
from typing import Final

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from ai.findings import ImageFindings
from config.mix import ResultKind
from node.results import codes
from node.results.answer import ImageAnswer
from node.results.edition import Edition
from node.results.equipment import equipment, finish
from node.results.geometry import add_geometry, grid_geometry
from node.results.source import plain, source_header

LABEL: Final = "MASS_MAP"
EXPLANATION: Final = "Output of the mass network, 0 to 1, not a calibrated probability"
"""LUT Explanation (LO, 64 characters)."""


def parametric_map(edition: Edition, image: ImageAnswer, findings: ImageFindings) -> Dataset:
    """Return how sure the reader is, everywhere in an image, that a mass is there.

    Parameters
    ----------
    edition
        The answer and the names of its objects.
    image
        The source image.
    findings
        What was found in it; with a map.

    Returns
    -------
    Dataset
        32-bit floats from 0 to 1 on the map's own grid, whose pixel measures make it cover the source. Plane
        orientation and position are a viewers' convention for images without a Frame of Reference, not anatomy.
    """
    answer, uids = edition.answer, edition.uids
    values = np.asarray(findings.probability, np.float32)
    # Measured: the map's last bits change with the number of CPU threads, the masses do not. So it names itself alone.
    name = f"{ResultKind.PMAP} {hashlib.sha256(values.tobytes()).hexdigest()}"
    model = f"{plain(answer.model.name)} {plain(answer.model.version)}"[:40]
    geometry = grid_geometry(image.header, findings.shape, (values.shape[0], values.shape[1]))
    source = source_header(image.header)
    # The IOD demands a Frame of Reference (Type 1, PS3.3 C.7.4.1): one of its own, which joins it to nothing else.
    source.FrameOfReferenceUID = uids.dimensions("PMAP frame of reference", image.uid)
    source.ImagePositionPatient, source.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    source.PixelSpacing, source.SliceThickness = [1, 1], 1
    target = hd.pm.ParametricMap(
        source_images=[source],
        pixel_array=values[None],
        pixel_measures=geometry.measures,
        plane_orientation=geometry.orientation,
        plane_positions=[geometry.position],
        series_instance_uid=uids.series(name, image.uid),
        series_number=edition.series_number(ResultKind.PMAP, image),
        sop_instance_uid=uids.instance(name, image.uid),
        instance_number=1,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                lut_label=LABEL,
                lut_explanation=EXPLANATION,
                unit=codes.NO_UNIT,
                value_range=(0.0, 1.0),
                quantity_definition=codes.MASS_MAP,
            )
        ],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label=LABEL,
        content_description=f"Mass map of {model}. Research use only.",
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        image_flavor=hd.pm.ImageFlavorValues.STATIC,
        series_description=edition.series_description(ResultKind.PMAP, findings.view),
        specific_character_set=None,
        **equipment(answer, uids),
    )
    target.ContentCreatorName = None  # Type 2, PS3.3 Table 10-12
    # Measured: without the anatomy DCMQI 1.5.7 ends with a segmentation fault.
    anatomy = Dataset()
    anatomy.FrameLaterality = findings.view.laterality.value
    anatomy.AnatomicRegionSequence = [hd.sr.CodedConcept.from_code(codes.BREAST)]
    target.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    add_geometry(target, image.header, findings.shape)
    for sequence in (target.DimensionOrganizationSequence, target.DimensionIndexSequence):
        for item in sequence:
            item.DimensionOrganizationUID = uids.dimensions(name, image.uid)
    finish(target, answer, uids, image.header)
    return target
