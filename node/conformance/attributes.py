"""Attributes of example objects as rows: tag, presence and where the value comes from (PS3.2 A.8.1)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from node.conformance.examples import PIXELS, Example
from node.conformance.markdown import coded, named
from node.conformance.terminology import family
from node.conformance.trees import code_of

ALWAYS: Final = "ALWAYS"
EMPTY: Final = "EMPTY"
VNAP: Final = "VNAP"
ANAP: Final = "ANAP"
"""Value not always present (attribute of zero length), attribute not always present (PS3.2 A.8.1)."""

UID_RULE: Final = "name-based UID, see 8.1.1"
FROM_SOURCE: Final = "as in the source image"
DATES: Final = "when the answer was made"

WORDS: Final = {
    **dict.fromkeys(("InstanceCreationDate", "SeriesDate", "ContentDate", "PresentationCreationDate"), DATES),
    **dict.fromkeys(("InstanceCreationTime", "SeriesTime", "ContentTime", "PresentationCreationTime"), DATES),
    "ContributionDateTime": DATES,
    "DeviceSerialNumber": "random identifier of the installation",
    "SeriesDescription": "words of the object mix, view, revision, research use only",
    "SeriesNumber": "see 8.1.1",
    "ReferencedSOPClassUID": "of the object that is referred to",
    "ReferencedSOPInstanceUID": "of the object that is referred to",
    "ContentSequence": "see the content tree",
    "PixelData": "the pixels",
    "FloatPixelData": "the map",
    "EncapsulatedDocument": "the document",
    "EncapsulatedDocumentLength": "its length",
    "GraphicData": "the points, see 8.1.1",
    "NumberOfGraphicPoints": "their number",
    **dict.fromkeys(("LUTDescriptor", "LUTData"), FROM_SOURCE),
    "ModalityLUTType": f"{FROM_SOURCE} or `US`",
    **dict.fromkeys(("BoundingBoxTopLeftHandCorner", "BoundingBoxBottomRightHandCorner"), "place of the text"),
    "DisplayedAreaBottomRightHandCorner": "columns and rows of the image",
    "PresentationPixelAspectRatio": "by the image's spacings, else by its Pixel Aspect Ratio",
    "RecommendedDisplayCIELabValue": "one of five colours, by the number of the mass",
    "GraphicLayerRecommendedDisplayCIELabValue": "a colour",
    "PixelSpacing": "in mm, see 8.1.1; 1 where the source has no spacing",
}
"""Values that examples cannot tell of."""

SIZES: Final = ("Rows", "Columns")
OF_PICTURE: Final = "of the picture"
REVISION: Final = "revision of the answer"

SEPARATOR: Final = "\\"
"""Between values (PS3.5 6.2)."""

SHOWN_VALUES: Final = 6
"""More different values than these are told by one of them."""


@dataclass(frozen=True)
class Row:
    """One attribute; ``rows`` are those of its items."""

    keyword: str
    name: str
    tag: str
    vr: str
    presence: str
    value: str
    rows: tuple["Row", ...] = ()

    def lines(self, depth: int = 0) -> Iterable[tuple[str, ...]]:
        """Yield table lines, those of items behind one ``>`` for each level (PS3.3 5.4)."""
        yield f"{'>' * depth}{self.name}", self.tag, self.vr, self.presence, self.value
        for row in self.rows:
            yield from row.lines(depth + 1)


class Item(NamedTuple):
    """An object or an item of it, and the source that the object inherits from."""

    dataset: Dataset
    source: Dataset


def attribute_rows(made: Iterable[Example]) -> tuple[Row, ...]:
    """Return the attributes of objects of one kind, without File Meta Information."""
    return _rows([Item(each.dataset, each.source) for each in made])


def _rows(items: Sequence[Item]) -> tuple[Row, ...]:
    tags = sorted({element.tag for item in items for element in item.dataset})
    return tuple(_row([(item, item.dataset.get(tag)) for item in items]) for tag in tags)


def _row(found: Sequence[tuple[Item, DataElement | None]]) -> Row:
    elements = [(item.source, element) for item, element in found if element is not None]
    first = elements[0][1]
    empty = [element.is_empty for _, element in elements]
    presence = EMPTY if all(empty) else VNAP if any(empty) else ALWAYS
    value = WORDS.get(first.keyword, "")
    rows: tuple[Row, ...] = ()
    if not value and first.VR == "SQ":
        items = [Item(item, source) for source, element in elements for item in element.value]
        codes = [code for item in items if (code := _code(item.dataset))]
        if items and len(codes) == len(items):
            value = " or ".join(dict.fromkeys(coded(member) for code in codes for member in family(code)))
        else:
            rows = _rows(items)
    elif not value:
        value = _values([(source, element) for source, element in elements if not element.is_empty])
    return Row(
        first.keyword,
        first.name,
        str(first.tag),
        " or ".join(sorted({element.VR for _, element in elements})),
        presence if len(elements) == len(found) else ANAP,
        value,
        rows,
    )


def _values(elements: Sequence[tuple[Dataset, DataElement]]) -> str:
    """Return the values that an attribute has, those that it has only where the source has the same apart."""
    alike: dict[str, bool] = {}
    for source, element in elements:
        text = _text(element)
        told = _text(source.get(element.tag))
        same = element.keyword not in PIXELS and text in (told, told.partition(SEPARATOR)[0])
        alike[text] = same and alike.get(text, True)
    inherited = [FROM_SOURCE] if any(alike.values()) else []
    own = dict.fromkeys(_own(text, elements[0][1]) for text, same in alike.items() if not same)
    if own and elements[0][1].keyword in SIZES:
        own = {OF_PICTURE: None}
    elif len(own) > 1 and elements[0][1].keyword == "InstanceNumber":
        own = {REVISION: None}
    elif len(own) > SHOWN_VALUES or (len(own) > 1 and elements[0][1].VR not in {"CS", "US", "IS", "LO", "UI"}):
        own = {f"for example {next(iter(own))}": None}
    return " or ".join([*inherited, *own])


def _own(text: str, element: DataElement) -> str:
    if element.VR != "UI":
        return f"`{text}`"
    return UID_RULE if text.startswith("2.25.") else " ".join(named(text))


def _text(element: DataElement | None) -> str:
    if element is None or element.is_empty:
        return ""
    values = element.value if element.VM > 1 else [element.value]
    return SEPARATOR.join(map(str, values))


def _code(item: Dataset) -> Code | None:
    """Return the code of an item that is nothing else (PS3.3 8.8)."""
    if "CodeValue" not in item or any(element.VR == "SQ" for element in item):
        return None
    return code_of(item)
