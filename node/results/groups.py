"""Measurement groups of the report, every one with a SCOORD: one per image and one per mass (TID 1410, rule R3)."""

import highdicom as hd
import numpy as np
from highdicom.sr import PlanarROIMeasurementsAndQualitativeEvaluations as Group
from numpy.typing import NDArray
from pydicom.sr.coding import Code

from ai.calibration import Level
from ai.checks import Check
from ai.exam import View
from ai.findings import ImageFindings, Mass
from node.identity import MANUFACTURER
from node.results import codes
from node.results.answer import Answer, ImageAnswer
from node.results.appraisal import percent
from node.results.geometry import thinned
from node.results.reasons import Reason
from node.results.seg import tracking_identifier
from node.results.source import plain
from node.results.uids import ObjectUIDs

SUMMARY_IDENTIFIER = "Image summary, not a finding"


def measurement_groups(answer: Answer, uids: ObjectUIDs) -> list[Group]:
    """Return the groups of an answer: the masses by falling suspicion, then each image's summary.

    OHIF opens a report on the image of its first group, and reaches no other where each view is a series of its own.
    """
    found = [(image, findings) for image in answer.images if (findings := answer.findings_of(image))]
    masses = [(image, findings.view, mass) for image, findings in found for mass in findings.masses]
    masses.sort(key=lambda each: each[2].suspicion, reverse=True)
    return [
        *(_mass_group(answer, image, view, mass, uids) for image, view, mass in masses),
        *(_image_group(answer, image, answer.findings_of(image), uids) for image in answer.images),
    ]


def border(rows: int, columns: int) -> NDArray[np.float64]:
    """Return the image's border as a closed polyline through the centres of its corner pixels, shape (5, 2), x and y."""
    left, top, right, bottom = 0.5, 0.5, columns - 0.5, rows - 0.5
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])


def _image_group(answer: Answer, image: ImageAnswer, found: ImageFindings | None, uids: ObjectUIDs) -> Group:
    # A header without rows or columns has one pixel here: R3 wants a region for every image.
    outline = border(int(image.header.get("Rows") or 1), int(image.header.get("Columns") or 1))
    not_read = [image.not_read] if image.not_read else []
    name = SUMMARY_IDENTIFIER if found else f"NOT READ: {plain(image.not_read or '')}"
    return Group(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=uids.tracking(image.uid, 0), identifier=name),
        referenced_region=_region(image, outline),
        algorithm_id=_algorithm(answer) if found else None,
        finding_sites=_sites(image.view),
        measurements=_scores(answer, found) if found else None,
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(codes.SUMMARY, codes.SUMMARY_OF[answer.status]),
            *(hd.sr.QualitativeEvaluation(codes.REASON, why.coded) for why in Reason.named_in(not_read)),
            *(
                hd.sr.QualitativeEvaluation(codes.WARNING, codes.WARNING_OF[check])
                for check in Check.named_in(found.warnings if found else ())
            ),
        ],
    )


def _mass_group(answer: Answer, image: ImageAnswer, view: View, mass: Mass, uids: ObjectUIDs) -> Group:
    return Group(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=uids.tracking(image.uid, mass.number), identifier=tracking_identifier(view, mass)
        ),
        referenced_region=_region(image, thinned(mass.contour)),
        finding_type=codes.MASS,
        finding_category=codes.MORPHOLOGY,
        finding_sites=_sites(view),
        algorithm_id=_algorithm(answer),
        measurements=[
            *_sizes(mass),
            _score(codes.FINDING_SCORE, mass.suspicion),
            *_probability(answer, Level.FINDING, mass.suspicion),
        ],
    )


def _region(image: ImageAnswer, outline: NDArray[np.float64]) -> hd.sr.ImageRegion:
    source = hd.sr.SourceImageForRegion(image.header.SOPClassUID, image.header.SOPInstanceUID)
    return hd.sr.ImageRegion("POLYLINE", outline, source)


def _sites(view: View | None) -> list[hd.sr.FindingSite] | None:
    return [hd.sr.FindingSite(codes.BREAST, laterality=codes.SIDE[view.laterality])] if view else None


def _algorithm(answer: Answer) -> hd.sr.AlgorithmIdentification:
    """Return who read, with what its probabilities assume (TID 4019)."""
    model = answer.model
    assumed = [f"prevalence={answer.prevalence:g}"] if answer.likelihood else []
    return hd.sr.AlgorithmIdentification(
        plain(model.name),
        plain(model.version),
        parameters=[f"digest={model.digest}", *assumed],
        family=codes.ALGORITHM_FAMILY,
        manufacturer=MANUFACTURER,
    )


def _scores(answer: Answer, found: ImageFindings) -> list[hd.sr.Measurement]:
    """Return the scores of the image, of its breast and of the exam; a probability is the image's."""
    scores = [_score(codes.IMAGE_SCORE, found.score), *_probability(answer, Level.IMAGE, found.score)]
    if answer.findings:
        scores += [
            _score(codes.BREAST_SCORE, breast.score)
            for breast in answer.findings.breasts
            if breast.laterality is found.view.laterality
        ]
        scores.append(_score(codes.EXAM_SCORE, answer.findings.score))
    return scores


def _score(name: Code, value: int) -> hd.sr.Measurement:
    return hd.sr.Measurement(name=name, value=value, unit=codes.NO_UNIT)


def _probability(answer: Answer, level: Level, score: int) -> list[hd.sr.Measurement]:
    """Return a score as a probability, where one may be told (rule R4)."""
    value = percent(answer, level, score)
    return [] if value is None else [hd.sr.Measurement(name=codes.PROBABILITY, value=value, unit=codes.PERCENT)]


def _sizes(mass: Mass) -> list[hd.sr.Measurement]:
    """Return area and axes; the method says where the millimetres come from (rule R11)."""
    size = mass.size
    method = codes.SPACING[size.rule] if size.rule else None
    length, surface = codes.LENGTH[size.unit], codes.SURFACE[size.unit]
    values = (
        (codes.AREA, size.area, surface),
        (codes.LONG_AXIS, size.long_axis, length),
        (codes.SHORT_AXIS, size.short_axis, length),
    )
    return [
        hd.sr.Measurement(name=name, value=round(value, 2), unit=unit, method=method) for name, value, unit in values
    ]
