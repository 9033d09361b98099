"""Judges an SR document by the rows of its template: what dciodvfy and dsrdump do not check.

The rows stand in ``tests.template_rows``. A template row is a content item that may or shall be there; ``judge`` walks
a document, gives each content item the row that it fills, and tells in words what is missing, too much, of the wrong
kind, outside its value set or out of order, each with the row it offends.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from pydicom.dataset import Dataset
from pydicom.sr import coding
from pydicom.sr.coding import Code

INCLUDE = "INCLUDE"


@dataclass(frozen=True, eq=False)
class Place:
    """What the condition or the check of a row may look at.

    Attributes
    ----------
    parents
        Content items from the root down to the one above.
    counts
        Row number → number of items that fill it, in the same invocation of the template.
    document
        The whole document.
    headers
        SOP Instance UID → header of an image that the document names.
    """

    parents: tuple[Dataset, ...]
    counts: Mapping[str, int]
    document: Dataset
    headers: Mapping[str, Dataset]

    @property
    def parent(self) -> Dataset:
        """The content item above."""
        return self.parents[-1]


Condition = Callable[[Place], bool | None]
"""Whether a conditional row shall be there (True), shall not (False), or may (None)."""

Check = Callable[[Dataset, Place], str | None]
"""What is wrong with an item, beyond its value set."""


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a template table (PS3.16 6.1).

    Attributes
    ----------
    number
        As in the table, letters included.
    level
        Nesting Level: the number of ``>``.
    relationship
        Empty where it comes from the row that includes the template.
    value_type
        Value type, or INCLUDE.
    name
        Concept names that fit, None for any; of INCLUDE, the template.
    vm
        ``1``, ``1-n`` or ``2-n``.
    requirement
        M, MC, U or UC.
    values
        Codes of a CODE, units of a NUM; None for any.
    graphic_types
        Graphic Types of an SCOORD; empty for any.
    by_reference
        Whether the relationship is by reference (``R-``).
    """

    number: str
    level: int
    relationship: str
    value_type: str
    name: tuple[Code, ...] | str | None
    vm: str
    requirement: str
    values: tuple[Code, ...] | None = None
    condition: Condition | None = None
    check: Check | None = None
    graphic_types: tuple[str, ...] = ()
    by_reference: bool = False

    @cached_property
    def names(self) -> frozenset[tuple[str, str]]:
        """Keys of the concept names."""
        return frozenset(map(key, self.name)) if isinstance(self.name, tuple) else frozenset()

    @cached_property
    def value_set(self) -> frozenset[tuple[str, str]] | None:
        """Keys of the values; None for any."""
        return None if self.values is None else frozenset(map(key, self.values))


@dataclass(frozen=True, eq=False)
class Template:
    """A template table."""

    tid: str
    title: str
    rows: tuple[Row, ...]
    extensible: bool = False
    ordered: bool = True

    def cite(self, row: Row) -> str:
        """Return where the row stands."""
        return f"PS3.16 TID {self.tid} row {row.number}"

    def top(self) -> list[int]:
        """Return the indices of the rows at level 0."""
        return [index for index, row in enumerate(self.rows) if row.level == 0]

    def below(self, index: int) -> list[int]:
        """Return the indices of the rows one level below a row."""
        level, found = self.rows[index].level, []
        for later in range(index + 1, len(self.rows)):
            if self.rows[later].level <= level:
                break
            if self.rows[later].level == level + 1:
                found.append(later)
        return found


@dataclass(eq=False)
class Invocation:
    """A template as one content item invokes it for its children.

    Attributes
    ----------
    template
        The template.
    within
        The invocation whose row includes it, and the index of that row; None for the template of the item itself.
    indices
        Its rows at this level.
    """

    template: Template
    within: "tuple[Invocation, int] | None"
    indices: list[int]
    filled: Counter[str] = field(default_factory=Counter)
    order: list[int] = field(default_factory=list)

    def many(self) -> bool:
        """Tell whether it, or what it stands in, may be invoked more than once."""
        if self.within is None:
            return False
        outer, index = self.within
        return outer.template.rows[index].vm != "1" or outer.many()


@dataclass(frozen=True, eq=False)
class Slot:
    """A row that a child of a content item may fill."""

    invocation: Invocation
    index: int
    relationship: str

    @property
    def row(self) -> Row:
        """The row."""
        return self.invocation.template.rows[self.index]

    def cite(self) -> str:
        """Return where the row stands."""
        return self.invocation.template.cite(self.row)

    def fits(self, kind: "Kind") -> bool:
        """Tell whether an item is of the row's kind."""
        if kind.relationship != self.relationship or kind.by_reference is not self.row.by_reference:
            return False
        named = self.row.name is None or key(kind.name) in self.row.names
        return kind.by_reference or (kind.value_type == self.row.value_type and named)


@dataclass(frozen=True)
class Kind:
    """What tells content items apart: relationship, value type and concept name."""

    relationship: str
    value_type: str
    name: Code
    by_reference: bool

    @classmethod
    def of(cls, item: Dataset) -> "Kind":
        """Return the kind of an item."""
        return cls(
            str(item.get("RelationshipType")),
            str(item.get("ValueType", "by reference")),
            code_of(item, "ConceptNameCodeSequence"),
            "ReferencedContentItemIdentifier" in item,
        )


NO_CODE = Code("", "", "no code")


def code_of(item: Dataset, keyword: str) -> Code:
    """Return the code in a code sequence, or NO_CODE."""
    sequence = item.get(keyword)
    if not sequence:
        return NO_CODE
    code = sequence[0]
    value = next((code.get(each) for each in ("CodeValue", "LongCodeValue", "URNCodeValue") if each in code), "")
    return Code(str(value), str(code.get("CodingSchemeDesignator")), str(code.get("CodeMeaning")))


def key(code: Code) -> tuple[str, str]:
    """Return scheme and value, of SNOMED RT identifiers those of SNOMED CT."""
    if code.scheme_designator == "SRT":
        return "SCT", str(coding.snomed_mapping["SRT"].get(code.value, code.value))  # type: ignore[attr-defined]
    return code.scheme_designator, code.value


def told(code: Code) -> str:
    """Return a code as the standard writes it."""
    return code.meaning if code is NO_CODE else f'({code.value}, {code.scheme_designator}, "{code.meaning}")'


def children(item: Dataset) -> list[Dataset]:
    """Return the content items below an item."""
    return list(item.get("ContentSequence") or ())


def resolve(document: Dataset, identifier: Iterable[int]) -> tuple[Dataset, ...]:
    """Return the items from the root down to the one that a Referenced Content Item Identifier names; empty if none."""
    root, *positions = identifier
    if root != 1:
        return ()
    path = [document]
    for position in positions:
        below = children(path[-1])
        if not 1 <= position <= len(below):
            return ()
        path.append(below[position - 1])
    return tuple(path)


class _Judge:
    def __init__(self, document: Dataset, table: Mapping[str, Template], headers: Mapping[str, Dataset]) -> None:
        self.document, self.table, self.headers = document, table, headers
        self.complaints: list[str] = []

    def root(self, template: Template) -> None:
        row = template.rows[0]
        if self.document.get("ValueType") != row.value_type:
            self.complaints.append(f"{template.cite(row)}: the root is no {row.value_type}")
        name = code_of(self.document, "ConceptNameCodeSequence")
        if key(name) not in row.names:
            self.complaints.append(f"{template.cite(row)}: the root is {told(name)}")
        self.below(template, 0, (self.document,), "1")

    def below(self, template: Template, index: int, parents: tuple[Dataset, ...], path: str) -> None:
        """Judge the children of an item that fills a row."""
        own = Invocation(template, None, template.below(index))
        invocations = [own]
        slots = list(self.slots(own, "", invocations))
        filled: dict[int, Slot] = {}
        taken: Counter[Slot] = Counter()
        items = children(parents[-1])
        for number, kind in enumerate(map(Kind.of, items), start=1):
            slot = self.slot(kind, slots, taken)
            if slot is None:
                self.complain_of_stranger(kind, slots, template, f"{path}.{number}")
                continue
            filled[number], taken[slot] = slot, taken[slot] + 1
            self.count(slot)
        for invocation in invocations:
            self.judge_invocation(invocation, parents, path)
        for number, slot in filled.items():
            item = items[number - 1]
            place = Place(parents, slot.invocation.filled, self.document, self.headers)
            self.judge_value(item, slot, place, f"{path}.{number}")
            if not slot.row.by_reference:
                self.below(slot.invocation.template, slot.index, (*parents, item), f"{path}.{number}")

    def slots(self, invocation: Invocation, relationship: str, invocations: list[Invocation]) -> Iterator[Slot]:
        """Yield the rows that children may fill, those of included templates in their place."""
        for index in invocation.indices:
            row = invocation.template.rows[index]
            related = row.relationship or relationship
            if row.value_type != INCLUDE:
                yield Slot(invocation, index, related)
            elif str(row.name) in self.table:
                included = self.table[str(row.name)]
                inner = Invocation(included, (invocation, index), included.top())
                invocations.append(inner)
                yield from self.slots(inner, related, invocations)

    @staticmethod
    def slot(kind: Kind, slots: list[Slot], taken: Counter[Slot]) -> Slot | None:
        # A row for any concept is no way out for a concept that has a row of its own.
        known = any(key(kind.name) in slot.row.names for slot in slots)
        fitting = [slot for slot in slots if slot.fits(kind) and not (known and slot.row.name is None)]
        free = [slot for slot in fitting if not taken[slot] or slot.row.vm != "1" or slot.invocation.many()]
        return next(iter(free or fitting), None)

    @staticmethod
    def count(slot: Slot) -> None:
        """Count an item for its row, and for the rows that include the row's template."""
        invocation, index = slot.invocation, slot.index
        while True:
            invocation.filled[invocation.template.rows[index].number] += 1
            invocation.order.append(index)
            if invocation.within is None:
                return
            invocation, index = invocation.within

    def complain_of_stranger(self, kind: Kind, slots: list[Slot], template: Template, path: str) -> None:
        """Tell of an item that fills no row: a row of its name and another kind, or no row at all."""
        given = f"{kind.relationship} {kind.value_type}"
        for slot in slots:
            if key(kind.name) in slot.row.names:
                wanted = f"{slot.relationship} {slot.row.value_type}"
                self.complaints.append(f"{slot.cite()}: {path} {told(kind.name)} is {given}, not {wanted}")
                return
        if not template.extensible:
            self.complaints.append(f"PS3.16 TID {template.tid}: {path} {given} {told(kind.name)} has no row there")

    def judge_invocation(self, invocation: Invocation, parents: tuple[Dataset, ...], path: str) -> None:
        """Judge number and order of the items that fill the rows of a template at one place."""
        if invocation.within is not None and not invocation.filled:
            return
        place = Place(parents, invocation.filled, self.document, self.headers)
        for index in invocation.indices:
            row = invocation.template.rows[index]
            cite, number = invocation.template.cite(row), invocation.filled[row.number]
            wanted = row.condition(place) if row.condition else {"M": True}.get(row.requirement)
            if wanted and not number and self.needs(row, place):
                what = f"TID {row.name}" if row.value_type == INCLUDE else self.describe(row)
                self.complaints.append(f"{cite}: {path} lacks {what}")
            if wanted is False and number:
                self.complaints.append(f"{cite}: {path} has it, though its condition does not hold")
            if row.vm == "1" and row.value_type != INCLUDE and number > 1 and not invocation.many():
                self.complaints.append(f"{cite}: {path} has {number} of {self.describe(row)}, not one")
            if row.vm == "2-n" and number == 1:
                self.complaints.append(f"{cite}: {path} has only one of {self.describe(row)}")
        if invocation.template.ordered and not in_order(invocation):
            numbers = [invocation.template.rows[index].number for index in invocation.order]
            self.complaints.append(
                f"PS3.16 TID {invocation.template.tid}: below {path} the rows stand in the order {', '.join(numbers)}"
            )

    def needs(self, row: Row, place: Place) -> bool:
        """Tell whether a row that shall be there asks for an item: a template of optional rows alone asks for none."""
        if row.value_type != INCLUDE or row.name not in self.table:
            return True
        included = self.table[str(row.name)]
        empty = Place(place.parents, Counter(), place.document, place.headers)
        rows = [included.rows[index] for index in included.top()]
        return any((each.condition(empty) if each.condition else each.requirement == "M") for each in rows)

    @staticmethod
    def describe(row: Row) -> str:
        named = f" {told(row.name[0])}" if isinstance(row.name, tuple) and len(row.name) == 1 else ""
        return f"{row.relationship} {row.value_type}{named}".strip()

    def judge_value(self, item: Dataset, slot: Slot, place: Place, path: str) -> None:
        """Judge the value of an item against the row's value set."""
        wrong = self.wrong_reference(item, slot.row) if slot.row.by_reference else wrong_value(item, slot.row)
        if not wrong and slot.row.check:
            wrong = slot.row.check(item, place)
        if wrong:
            self.complaints.append(f"{slot.cite()}: {path} {wrong}")

    def wrong_reference(self, item: Dataset, row: Row) -> str | None:
        target = resolve(self.document, item.ReferencedContentItemIdentifier)
        return None if target and target[-1].get("ValueType") == row.value_type else f"refers to no {row.value_type}"


def in_order(invocation: Invocation) -> bool:
    """Tell whether the items stand in the order of the rows; one that may be repeated starts anew at its first row."""
    order = invocation.order
    if not invocation.many():
        return order == sorted(order)
    starts = [place for place, index in enumerate(order) if index == invocation.indices[0]]
    runs = [order[start:stop] for start, stop in pairwise([*starts, len(order)])]
    return starts[:1] == [0] and all(run == sorted(run) for run in runs)


def wrong_value(item: Dataset, row: Row) -> str | None:
    """Return what is wrong with an item's value, or None."""
    if row.value_type == "CODE":
        code = code_of(item, "ConceptCodeSequence")
        allowed = code is not NO_CODE and (row.value_set is None or key(code) in row.value_set)
        return None if allowed else f"{told(code)} is not in the value set"
    if row.value_type == "NUM":
        measured = item.get("MeasuredValueSequence") or ()
        unit = code_of(measured[0], "MeasurementUnitsCodeSequence") if measured else NO_CODE
        allowed = unit is not NO_CODE and (row.value_set is None or key(unit) in row.value_set)
        return None if allowed else f"has the unit {told(unit)}"
    if row.value_type == "SCOORD" and row.graphic_types and item.get("GraphicType") not in row.graphic_types:
        return f"Graphic Type {item.get('GraphicType')} is not one of {', '.join(row.graphic_types)}"
    attributes = VALUE.get(row.value_type)
    return None if not attributes or any(item.get(each) for each in attributes) else f"the {row.value_type} is empty"


VALUE: Mapping[str, tuple[str, ...]] = {
    "TEXT": ("TextValue",),
    "UIDREF": ("UID",),
    "DATE": ("Date",),
    "TIME": ("Time",),
    "IMAGE": ("ReferencedSOPSequence",),
    "SCOORD": ("GraphicData",),
}
"""Attributes that hold the value of a content item (PS3.3 C.17.3)."""


def judge(document: Dataset, table: Mapping[str, Template], headers: Iterable[Dataset] = ()) -> list[str]:
    """Return what is wrong with a document, in words; nothing when it follows its template.

    Parameters
    ----------
    document
        An SR document that names its root template.
    table
        TID → template. Included templates that are not in it are never invoked, rows that require them aside.
    headers
        Headers of the images that the document names, for the rows that depend on them.
    """
    named = document.ContentTemplateSequence[0]
    if named.MappingResource != "DCMR" or named.TemplateIdentifier not in table:
        return [f"the root template is {named.TemplateIdentifier} of {named.MappingResource}"]
    judged = _Judge(document, table, {str(header.SOPInstanceUID): header for header in headers})
    judged.root(table[named.TemplateIdentifier])
    return judged.complaints
