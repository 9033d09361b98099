"""The Image Library of the Mammography CAD SR: what a reader of the report needs to place its findings (TID 4020)."""

import math
from collections.abc import Callable, Iterator
from datetime import date, time

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.valuerep import DA, TM

from config.mix import FindingCodes
from node.results import cad_codes as cad
from node.results.answer import ImageAnswer
from node.results.cad_items import HAS_ACQ_CONTEXT, HAS_CONCEPT_MOD, code, image, item, number, text
from node.results.source import orientation


def library_entry(relationship: str, answered: ImageAnswer, scheme: FindingCodes) -> Dataset:
    """Return an image with what its header tells; what the header leaves out is derived where the view is known.

    The spacing is the header's own and stands in micrometres, one of the two units of rows 11 and 12 and the only one
    of their first edition: a workstation that has another presentation of the same mammogram compares spacing and
    orientation with it before it draws (PS3.17 E.5).
    """
    header = answered.header
    return image(
        relationship,
        header,
        [
            *_view(answered, scheme),
            *_orientation(header),
            *_times(header),
            *_spacing(header),
        ],
    )


def _view(answered: ImageAnswer, scheme: FindingCodes) -> Iterator[Dataset]:
    """Yield laterality and view (rows 2 to 4)."""
    header, view = answered.header, answered.view
    side = cad.BREASTS.get(view.laterality if view else str(header.get("ImageLaterality")))
    if side:
        yield code(HAS_ACQ_CONTEXT, cad.IMAGE_LATERALITY, cad.in_scheme(side, scheme))
    given = (header.get("ViewCodeSequence") or [Dataset()])[0]
    shown = cad.known(given, cad.VIEW_CODES) or (cad.VIEWS[view.position] if view else None)
    if shown:
        modifiers = [cad.known(each, cad.MODIFIER_CODES) for each in given.get("ViewModifierCodeSequence") or ()]
        yield code(
            HAS_ACQ_CONTEXT,
            cad.IMAGE_VIEW,
            cad.in_scheme(shown, scheme),
            [
                code(HAS_CONCEPT_MOD, cad.IMAGE_VIEW_MODIFIER, cad.in_scheme(modifier, scheme))
                for modifier in modifiers
                if modifier
            ],
        )


def _orientation(header: Dataset) -> Iterator[Dataset]:
    """Yield the directions of rows and columns (rows 5 and 6)."""
    for name, direction in zip((cad.ORIENTATION_ROW, cad.ORIENTATION_COLUMN), orientation(header) or (), strict=False):
        yield text(HAS_ACQ_CONTEXT, name, direction)


def _times(header: Dataset) -> Iterator[Dataset]:
    """Yield dates and times of study and content as far as PS3.5 6.2 knows their form (rows 7 to 10)."""
    for keyword, name in (("StudyDate", cad.STUDY_DATE), ("StudyTime", cad.STUDY_TIME)):
        yield from _moment(header, keyword, name)
    for keyword, name in (("ContentDate", cad.CONTENT_DATE), ("ContentTime", cad.CONTENT_TIME)):
        yield from _moment(header, keyword, name)


def _moment(header: Dataset, keyword: str, name: Code) -> Iterator[Dataset]:
    parse: Callable[[str], date | time | None] = DA if keyword.endswith("Date") else TM
    try:
        moment = parse(str(header.get(keyword) or ""))
    except ValueError:
        return
    if isinstance(moment, time):
        written = f"{moment:%H%M%S.%f}" if moment.microsecond else f"{moment:%H%M%S}"
        yield item(HAS_ACQ_CONTEXT, "TIME", name, Time=written)
    elif moment is not None:
        yield item(HAS_ACQ_CONTEXT, "DATE", name, Date=f"{moment:%Y%m%d}")


def _spacing(header: Dataset) -> Iterator[Dataset]:
    """Yield the distances of columns and of rows (rows 11 and 12)."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        try:
            spacing = [float(value) for value in header.get(keyword) or ()]
        except (ValueError, TypeError):
            continue
        if len(spacing) == 2 and all(0 < value < math.inf for value in spacing):
            rows, columns = spacing
            for name, millimetres in ((cad.HORIZONTAL_SPACING, columns), (cad.VERTICAL_SPACING, rows)):
                yield number(HAS_ACQ_CONTEXT, name, round(1000 * millimetres, 3), cad.MICROMETRE)
            return
