"""Content items of an SR tree as plain data sets (PS3.3 C.17.3), by-reference links included, which highdicom lacks."""

from collections.abc import Iterable
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import ArrayLike
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

CONTAINS = "CONTAINS"
HAS_ACQ_CONTEXT = "HAS ACQ CONTEXT"
HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
HAS_PROPERTIES = "HAS PROPERTIES"
INFERRED_FROM = "INFERRED FROM"
SELECTED_FROM = "SELECTED FROM"


def coded(code: Code) -> Dataset:
    """Return the item of a code sequence (PS3.3 Table 8.8-1)."""
    return hd.sr.CodedConcept.from_code(code)


def item(
    relationship: str, value_type: str, name: Code | None, children: Iterable[Dataset] = (), **values: Any
) -> Dataset:
    """Return a content item with its value attributes."""
    target = Dataset()
    target.RelationshipType, target.ValueType = relationship, value_type
    if name is not None:
        target.ConceptNameCodeSequence = [coded(name)]
    for keyword, value in values.items():
        setattr(target, keyword, value)
    if children := list(children):
        target.ContentSequence = children
    return target


def container(relationship: str, name: Code, children: Iterable[Dataset]) -> Dataset:
    """Return a heading with the items below it."""
    return item(relationship, "CONTAINER", name, children, ContinuityOfContent="SEPARATE")


def code(relationship: str, name: Code, value: Code, children: Iterable[Dataset] = ()) -> Dataset:
    """Return a coded value."""
    return item(relationship, "CODE", name, children, ConceptCodeSequence=[coded(value)])


def text(relationship: str, name: Code, value: str) -> Dataset:
    """Return a text."""
    return item(relationship, "TEXT", name, TextValue=value)


def uid(relationship: str, name: Code, value: str) -> Dataset:
    """Return a UID."""
    return item(relationship, "UIDREF", name, UID=value)


def number(relationship: str, name: Code, value: float, unit: Code) -> Dataset:
    """Return a number of at most ten significant digits, so that it fits a Decimal String (16 bytes)."""
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = f"{value:.10g}", [coded(unit)]
    return item(relationship, "NUM", name, MeasuredValueSequence=[measured])


def image(relationship: str, header: Dataset, children: Iterable[Dataset] = ()) -> Dataset:
    """Return a reference to an image; such items need no concept name (PS3.3 C.17.3)."""
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item(relationship, "IMAGE", None, children, ReferencedSOPSequence=[reference])


def coordinates(
    relationship: str, name: Code, graphic_type: str, points: ArrayLike, children: Iterable[Dataset]
) -> Dataset:
    """Return points of an image, shape (n, 2), x and y, from the top left corner of its first pixel (PS3.3 C.18.6.1.2)."""
    data = [float(value) for value in np.asarray(points, np.float64).ravel()]
    return item(relationship, "SCOORD", name, children, GraphicType=graphic_type, GraphicData=data)


def by_reference(relationship: str, path: Iterable[int]) -> Dataset:
    """Return a link to another item of the tree.

    Parameters
    ----------
    relationship
        How the item above is related to it.
    path
        Positions from the root, which is 1, down to the item (PS3.3 C.17.3.2.5).
    """
    target = Dataset()
    target.RelationshipType, target.ReferencedContentItemIdentifier = relationship, list(path)
    return target
