"""Content trees of example documents as rows (PS3.3 C.17.3)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from node.conformance.markdown import coded
from node.conformance.terminology import family

SHOWN_VALUES: Final = 6
SHOWN_CHARACTERS: Final = 160

WORDS: Final = {
    "IMAGE": "reference to an image",
    "COMPOSITE": "reference to an object that is no image",
    "UIDREF": "name-based UID, see 8.1.1",
    "DATE": "of the image",
    "TIME": "of the image",
}


@dataclass(frozen=True)
class Node:
    """A content item, as it stands in a place of the tree.

    Attributes
    ----------
    relationship, value_type
        Relationship to its parent, empty for the root; value type, empty for a by-reference relationship.
    concept
        Concept name as it is printed, or empty. To pydicom an SRT code equals its SCT code.
    """

    relationship: str
    value_type: str
    concept: str


def tree_lines(roots: Sequence[Dataset]) -> Iterator[tuple[str, ...]]:
    """Yield the content items of documents of one template: those in one place and of one concept make one line.

    Nesting, relationship, value type, concept name, presence in its parent, value.
    """
    yield from _lines([roots], 0)


def node_of(item: Dataset) -> Node:
    """Return where an item belongs."""
    name = item.get("ConceptNameCodeSequence")
    concept = coded(code_of(name[0])) if name else ""
    return Node(str(item.get("RelationshipType", "")), str(item.get("ValueType", "")), concept)


def code_of(item: Dataset) -> Code:
    """Return the code of a code sequence's item."""
    return Code(str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.CodeMeaning))


def shortened(text: str) -> str:
    """Return a text, or the beginning of a long one."""
    words = " ".join(text.split())
    return words if len(words) <= SHOWN_CHARACTERS else f"{words[:SHOWN_CHARACTERS]} ..."


def _lines(siblings: Sequence[Sequence[Dataset]], depth: int) -> Iterator[tuple[str, ...]]:
    """Yield lines for the children of several parents."""
    nodes = _in_order([[node_of(item) for item in items] for items in siblings])
    for node in nodes:
        found = [[item for item in items if node_of(item) == node] for items in siblings]
        items = [item for each in found for item in each]
        presence = "ALWAYS" if all(found) else "ANAP"
        yield ">" * depth, node.relationship, node.value_type, node.concept, presence, _value(items)
        yield from _lines([item.get("ContentSequence") or [] for item in items], depth + 1)


def _in_order(rows: Iterable[Sequence[Node]]) -> list[Node]:
    """Return all nodes once; one that the first row lacks comes after the one that it follows in its own."""
    order: list[Node] = []
    for row in rows:
        place = 0
        for node in row:
            if node not in order:
                order.insert(place, node)
            place = order.index(node) + 1
    return order


def _value(items: Sequence[Dataset]) -> str:
    values = dict.fromkeys(part for item in items for part in _values(item))
    codes_only = all("ConceptCodeSequence" in item or "MeasuredValueSequence" in item for item in items)
    if len(values) > SHOWN_VALUES and not codes_only:
        return f"for example {next(iter(values))}"
    return " or ".join(values)


def _values(item: Dataset) -> Iterator[str]:
    match item.get("ValueType"):
        case "CODE":
            yield from (coded(code) for code in family(code_of(item.ConceptCodeSequence[0])))
        case "NUM":
            measured = item.MeasuredValueSequence[0]
            yield f"number, {coded(code_of(measured.MeasurementUnitsCodeSequence[0]))}"
        case "TEXT":
            yield f"`{shortened(item.TextValue)}`"
        case "SCOORD":
            yield item.GraphicType
        case "CONTAINER" if "ContentTemplateSequence" in item:
            yield f"TID {item.ContentTemplateSequence[0].TemplateIdentifier}"
        case None:
            yield "by reference"
        case kind:
            yield WORDS.get(str(kind), "")
