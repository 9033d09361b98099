"""The answer as JSON types: the same facts as in the DICOM objects, for programs and for the node's own memory."""

import json
from collections.abc import Mapping
from typing import Any, Final

from ai.calibration import Level
from ai.checks import Check
from ai.findings import ExamFindings, ImageFindings, Mass
from node.faults import described
from node.identity import RESEARCH_USE_ONLY, VERSION
from node.obtaining import obtain
from node.results.answer import Answer
from node.results.appraisal import appraisal, percent
from node.results.reasons import Reason
from node.results.uids import ObjectUIDs
from node.telemetry import logger
from storage.files import InstanceStore

log = logger("results")

FACTS: Final = "JSON"
"""Kind under which the facts are kept; they go to no destination."""


def facts(answer: Answer, uids: ObjectUIDs) -> dict[str, Any]:
    """Return the answer as JSON types, without patient data.

    Lengths are in the unit that stands beside them, coordinates in pixels from the top left corner of the image, scores
    from 0 to 100 and not probabilities (rule R4); a span is the lowest and the highest score that parts of the model give,
    each alone; a probability of cancer is told where it may be, in percent. A pixel's aspect is its height over its width.
    """
    from ai.pixels import pixel_aspect  # noqa: PLC0415 (OpenCV, which the doors do without)

    found = answer.findings
    images = []
    for image in answer.images:
        read = answer.findings_of(image)
        images.append(
            {
                "uid": image.uid,
                "view": str(image.view) if image.view else None,
                "not_read": image.not_read,
                "not_read_codes": [why.code for why in Reason.named_in([image.not_read])] if image.not_read else [],
                **({"pixel_aspect": round(pixel_aspect(image.header), 4), **image_facts(read, uids)} if read else {}),
            }
        )
    return {
        "exam": answer.exam,
        "study": uids.study,
        "revision": answer.revision,
        "created_at": answer.created_at.isoformat(),
        "status": answer.status.value,
        "reasons": list(answer.reasons),
        "reason_codes": [why.code for why in Reason.named_in(answer.reasons)],
        "changes": list(answer.changes),
        "supersedes": [former.instance_uid for former in answer.predecessors],
        "missing": [str(view) for view in answer.missing],
        **exam_facts(found),
        "appraisal": appraisal(answer),
        "prevalence": answer.prevalence if answer.likelihood else None,
        "probability": percent(answer, Level.EXAM, found.score) if found else None,
        "images": images,
        "model": {"name": answer.model.name, "version": answer.model.version, "digest": answer.model.digest},
        "notes": list(answer.model.notes),
        "software": VERSION,
        "use": RESEARCH_USE_ONLY,
    }


def kept_facts(store: InstanceStore, path: str) -> Mapping[str, Any] | None:
    """Return the facts that were kept under a path; None where they were removed, or cannot be read: nothing stands on them.

    Raises
    ------
    storage.errors.BucketUnavailable
        When nothing can be had.
    """
    try:
        told: Mapping[str, Any] = json.loads(obtain(store, path).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.error("kept answer cannot be read", path=path, cause=described(error))  # noqa: TRY400 (the cause says it)
        return None
    return told


def exam_facts(found: ExamFindings | None) -> dict[str, Any]:
    """Return what was found in the exam as a whole."""
    if found is None:
        return {"score": None, "span": None, "breasts": {}, "matches": []}
    return {
        "score": found.score,
        "span": _span(found.span),
        "breasts": {breast.laterality.value: breast.score for breast in found.breasts},
        "matches": [{"breast": m.laterality.value, "cc": m.cc, "mlo": m.mlo} for m in found.matches],
    }


def image_facts(image: ImageFindings, uids: ObjectUIDs | None = None) -> dict[str, Any]:
    """Return what was found in an image; Tracking UIDs only where the objects' names are known."""
    masses = []
    for mass in image.masses:
        tracking = {"tracking_uid": uids.tracking(image.uid, mass.number)} if uids else {}
        masses.append({**mass_facts(mass), **tracking})
    return {
        "rows": image.shape[0],
        "columns": image.shape[1],
        "score": image.score,
        "span": _span(image.span),
        "warnings": list(image.warnings),
        "warning_codes": [check.code for check in Check.named_in(image.warnings)],
        "masses": masses,
    }


def _span(span: tuple[int, int] | None) -> list[int] | None:
    """Return the lowest and the highest score that parts of the model give, as JSON has it."""
    return list(span) if span else None


def mass_facts(mass: Mass) -> dict[str, Any]:
    """Return one mass: its outline to a hundredth of a pixel."""
    size = mass.size
    return {
        "number": mass.number,
        "suspicion": mass.suspicion,
        "box_xywh": list(mass.box),
        "area": round(size.area, 2),
        "long_axis": round(size.long_axis, 2),
        "short_axis": round(size.short_axis, 2),
        "unit": size.unit.value,
        "spacing": size.rule.value if size.rule else None,
        "contour": [[round(float(x), 2), round(float(y), 2)] for x, y in mass.contour],
    }
