"""What the statement says of each object is what the encoders write: classes, attributes, content trees, codes."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from io import BytesIO
from typing import TypeVar

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, MammographyCADSRStorage, SegmentationStorage

from ai.exam import Laterality
from ai.findings import Match
from config.mix import FindingCodes, ObjectMix, ReportClass, ResultKind, SegmentationType
from node.results.answer import Answer, Predecessor
from node.results.encode import ENCODERS, ResultObject, to_bytes
from node.results.reasons import SCHEME, Reason
from tests.answers import FORMS, INSTALLATION, LEFT_CC, MODEL, RIGHT, an_answer, encoded
from tests.statements import Row, section, table, tables

Name = TypeVar("Name")

ALL = ObjectMix(tuple(ENCODERS))
MIXES = (
    ALL,
    replace(
        ALL, segmentation=SegmentationType.LABELMAP, report=ReportClass.COMPREHENSIVE, finding_codes=FindingCodes.SRT
    ),
    replace(ALL, segmentation=SegmentationType.FRACTIONAL, threshold=80),
)
WITH_ALL_KINDS = "superseding, with pairs"
ANSWERS: dict[str, Callable[[], Answer]] = {**FORMS, WITH_ALL_KINDS: lambda: superseding(an_answer())}


def superseding(answer: Answer) -> Answer:
    """Return an answer that follows another one and pairs masses."""
    assert answer.findings
    study = str(answer.images[0].header.StudyInstanceUID)
    found = replace(answer.findings, matches=tuple(Match(side, 1, 1) for side in Laterality))
    former = [
        Predecessor(study, f"1.2.{number}", str(sop_class), f"1.2.{number}.1")
        for number, sop_class in enumerate((ComprehensiveSRStorage, MammographyCADSRStorage, SegmentationStorage))
    ]
    return replace(
        answer,
        revision=3,
        findings=found,
        predecessors=tuple(former[:2]),
        superseded=tuple(former[2:]),
        changes=("Supersedes the answer to revision 2: the same findings.",),
    )


@cache
def objects(name: str) -> tuple[ResultObject, ...]:
    """Return the objects of an answer as they are sent, fallbacks among them; of all mixes for the richest answer."""
    answer = ANSWERS[name]()
    made = [each for mix in (MIXES if name == WITH_ALL_KINDS else MIXES[:1]) for each in encoded(answer, mix)]
    return tuple(
        replace(each, dataset=dcmread(BytesIO(to_bytes(each.dataset))))
        for one in made
        for each in (one, one.fallback)
        if each is not None
    )


@dataclass(frozen=True)
class Described:
    """What the statement says of a kind.

    Attributes
    ----------
    properties
        Name → value.
    attributes
        Path of attribute names → row.
    items
        Paths of content items: relationship, value type, concept name → row.
    text
        The whole section.
    """

    properties: dict[str, str]
    attributes: dict[tuple[str, ...], Row]
    items: dict[tuple[tuple[str, str, str], ...], Row]
    text: str


@cache
def described(kind: ResultKind) -> Described:
    """Return what the statement says of a kind."""
    numbers = [row["Form"].split(",")[0] for row in table(section("8.1.1"), "Form")]
    text = section(f"8.1.{3 + list(dict.fromkeys(numbers)).index(kind)}")
    assert f" {kind}: " in text.splitlines()[0]
    [properties, *others] = tables(text)
    rows = [*table(section("8.1.2"), "Tag"), *others[0]]
    trees = others[1] if len(others) > 1 else []
    return Described(
        {row["Property"]: row["Value"] for row in properties},
        dict(_nested(rows, "Attribute", lambda row: row["Attribute"].lstrip(">"))),
        dict(_nested(trees, "Nesting", _node)),
        text,
    )


def _node(row: Row) -> tuple[str, str, str]:
    return row["Relationship"], row["Value Type"], row["Concept Name"]


def _nested(rows: list[Row], column: str, name: Callable[[Row], Name]) -> Iterator[tuple[tuple[Name, ...], Row]]:
    """Yield each row with its path, from the number of > before it."""
    path: list[Name] = []
    for row in rows:
        depth = row[column].count(">")
        path[depth:] = [name(row)]
        yield tuple(path), row


@pytest.mark.parametrize("name", ANSWERS)
def test_each_object_is_of_a_form_that_the_statement_lists(name: str) -> None:
    rows = table(section("8.1.1"), "Form")
    for made in objects(name):
        dataset = made.dataset
        template = (
            f"TID {dataset.ContentTemplateSequence[0].TemplateIdentifier}"
            if "ContentTemplateSequence" in dataset
            else ""
        )
        assert [
            row
            for row in rows
            if row["Form"].split(",")[0] == made.kind
            and row["SOP Class UID"] == made.sop_class_uid
            and row["Modality"] == dataset.Modality
            and row["Root template"] == template
            and dataset.get("SegmentationType", row["Form"]) in row["Form"]
        ]
        properties = described(made.kind).properties
        assert made.sop_class_uid in properties["SOP Class"]
        assert dataset.Modality in properties["Modality"].split("; ")
        assert str(dataset.file_meta.TransferSyntaxUID) in properties["Transfer Syntax of the file"].split()
        assert (template or "none") in properties["Root template"].split("; ")


def test_every_form_that_the_statement_lists_is_made() -> None:
    made = {
        (each.kind, each.sop_class_uid, each.dataset.get("SegmentationType", "")) for each in objects(WITH_ALL_KINDS)
    }
    for row in table(section("8.1.1"), "Form"):
        kind, _, choice = row["Form"].partition(", ")
        assert (kind, row["SOP Class UID"], choice if kind == "SEG" else "") in made


@pytest.mark.parametrize("name", ANSWERS)
def test_every_attribute_is_listed_with_its_vr_and_as_present_as_it_is(name: str) -> None:
    for made in objects(name):
        listed = described(made.kind).attributes
        for path, items in _levels([made.dataset], ()):
            here = {inner[-1]: row for inner, row in listed.items() if inner[:-1] == path}
            for item in items:
                elements = {element.name: element for element in item}
                assert set(elements) <= set(here), f"{made.kind} {path}: {set(elements) - set(here)}"
                for attribute, row in here.items():
                    where = f"{made.kind} {path} {attribute}"
                    element = elements.get(attribute)
                    assert element is not None or row["Presence"] == "ANAP", where
                    if element is not None:
                        assert row["Tag"] == str(element.tag), where
                        assert element.VR in row["VR"].split(" or "), where
                        assert not (element.is_empty and row["Presence"] == "ALWAYS"), where
                        assert element.is_empty or row["Presence"] != "EMPTY", where


@pytest.mark.parametrize("name", ANSWERS)
def test_an_attribute_has_one_of_the_values_that_are_listed(name: str) -> None:
    for made in objects(name):
        listed = described(made.kind).attributes
        for path, items in _levels([made.dataset], ()):
            for element in (element for item in items for element in item if not element.is_empty):
                told = listed[*path, element.name]["Value"]
                if re.fullmatch(r"`[^`]*`( or `[^`]*`)*", told):
                    values = element.value if element.VM > 1 else [element.value]
                    text = " ".join("\\".join(map(str, values)).split())
                    assert text in _filled_in(told), f"{made.kind} {path} {element.name}: {told}"


def _filled_in(told: str) -> list[str]:
    """Return the listed values with the model and the installation of the tests."""
    for word, value in {
        "MODEL": MODEL.name,
        "VERSION": MODEL.version,
        "DIGEST": MODEL.digest,
        "INSTALLATION": INSTALLATION,
    }.items():
        told = re.sub(rf"\b{word}\b", value, told)
    return re.findall(r"`([^`]*)`", told)


@pytest.mark.parametrize("name", ANSWERS)
def test_every_content_item_is_listed_in_its_place(name: str) -> None:
    for made in objects(name):
        if "ContentSequence" not in made.dataset:
            continue
        listed = described(made.kind).items
        for path, inner in _items(made.dataset, ()):
            assert path in listed, f"{made.kind}: {path}"
            present = {(*path, _node_of(item)) for item in inner}
            required = {below for below, row in listed.items() if below[:-1] == path and row["Presence"] == "ALWAYS"}
            assert required <= present, f"{made.kind} {path}: {required - present}"


@pytest.mark.parametrize("name", ANSWERS)
def test_every_code_stands_in_the_section_of_its_kind(name: str) -> None:
    """Values too: what is coded anywhere in an object is printed, with its scheme and meaning."""
    for made in objects(name):
        text = described(made.kind).text
        for code in _codes(made.dataset):
            printed = f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'
            nested = f"| `{code.CodeValue}` |" in text and f"| `{code.CodeMeaning}` |" in text
            assert printed in text or printed in section("8.1.2") or nested, f"{made.kind}: {printed}"


@pytest.mark.parametrize("name", ANSWERS)
def test_no_private_code_is_written_that_the_statement_does_not_list_for_the_kind(name: str) -> None:
    listed = {(row["Code Value"], row["Code Meaning"]): row["In"].split(", ") for row in table(section("8.3"), "In")}
    for made in objects(name):
        for code in _codes(made.dataset):
            if code.CodingSchemeDesignator.startswith("99"):
                assert code.CodingSchemeDesignator == SCHEME
                assert made.kind in listed[code.CodeValue, code.CodeMeaning]


def test_every_reason_that_can_be_given_is_listed_for_the_report() -> None:
    sentences = {
        Reason.FAILED: "reading failed",
        Reason.LOSSY: "lossy compression",
        Reason.MODIFIED: "view modifier: Magnification",
        Reason.QUALITY: "quality control image",
        Reason.OTHER: "an odd sentence",
    }
    for reason, sentence in sentences.items():
        answer = an_answer(read=RIGHT, complete=False, not_read={LEFT_CC: sentence})
        [report] = [made.dataset for made in encoded(answer) if made.kind is ResultKind.SR]
        written = {code.CodeValue for code in _codes(report) if code.CodingSchemeDesignator == SCHEME}
        assert reason.coded.value in written
    told = {row["Code Value"]: row["In"] for row in table(section("8.3"), "In")}
    assert all(told[reason.coded.value] == "SR" for reason in Reason)


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_modules_are_those_of_the_iod(kind: ResultKind) -> None:
    """Against highdicom's tables of PS3.3: every mandatory module, none of another IOD, none too few for what is written."""
    # A release of highdicom without these tables fails here: the lists would be judged by nothing.
    standard = import_module("highdicom._standard_utils")
    listed = {module.lower().replace(" ", "-") for module in described(kind).properties["Modules"].split(", ")}
    attributes = standard.get_module_attribute_map()
    for made in objects(WITH_ALL_KINDS):
        if made.kind is not kind:
            continue
        iod = standard.get_iod_module_map()[standard.get_sop_class_iod_map()[made.sop_class_uid]]
        usage = {module["key"]: module["usage"] for module in iod}
        assert {module for module, how in usage.items() if how == "M"} <= listed <= set(usage)
        covered = {each["keyword"] for module in listed for each in attributes[module] if not each["path"]}
        written = {element.keyword for element in made.dataset}
        assert written <= covered, written - covered


def _levels(items: list[Dataset], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Dataset]]]:
    """Yield the items of every sequence that the statement opens, with its path; content trees and codes apart."""
    yield path, items
    names = {element.name: element.keyword for item in items for element in item if element.VR == "SQ"}
    for name, keyword in names.items():
        inner = [each for item in items if keyword in item for each in item[keyword].value]
        if keyword != "ContentSequence" and inner and not all(_is_code(each) for each in inner):
            yield from _levels(inner, (*path, name))


def _items(
    item: Dataset, path: tuple[tuple[str, str, str], ...]
) -> Iterator[tuple[tuple[tuple[str, str, str], ...], list[Dataset]]]:
    here = (*path, _node_of(item))
    inner = list(item.get("ContentSequence") or ())
    yield here, inner
    for each in inner:
        yield from _items(each, here)


def _node_of(item: Dataset) -> tuple[str, str, str]:
    concept = ""
    if names := item.get("ConceptNameCodeSequence"):
        [name] = names
        concept = f'({name.CodeValue}, {name.CodingSchemeDesignator}, "{name.CodeMeaning}")'
    return item.get("RelationshipType", ""), item.get("ValueType", ""), concept


def _is_code(item: Dataset) -> bool:
    return "CodeValue" in item and not any(element.VR == "SQ" for element in item)


def _codes(dataset: Dataset) -> Iterator[Dataset]:
    """Yield every code of an object, however deep."""
    if "CodeValue" in dataset:
        yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _codes(item)
