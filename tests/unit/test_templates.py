"""The row checker: our reports follow their templates, and whatever is taken from them or changed in them is noticed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import pytest
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from ai.exam import STANDARD_VIEWS, Laterality, View
from ai.findings import Match
from config.mix import FindingCodes, ObjectMix, ResultKind
from node.results.answer import Answer, AnswerStatus
from node.results.cad_items import coded
from tests.answers import FORMS, LEFT_CC, RIGHT, an_answer, an_unread_answer, encoded, phantom_headers, report_of
from tests.template_rows import TABLE
from tests.templates import children, code_of, judge

SCHEMES = {scheme: ObjectMix((ResultKind.CAD_SR,), finding_codes=scheme) for scheme in FindingCodes}


def matched(views: tuple[View, ...] = STANDARD_VIEWS) -> Answer:
    """Return an answer with one pair of matched masses; those of the left breast have no match."""
    answer = an_answer(read=views)
    assert answer.findings is not None
    return replace(answer, findings=replace(answer.findings, matches=(Match(Laterality.RIGHT, 1, 1),)))


def cad_of(answer: Answer, scheme: FindingCodes = FindingCodes.SCT) -> Dataset:
    return encoded(answer, SCHEMES[scheme])[0].dataset


def complaints(document: Dataset, answer: Answer | None = None) -> list[str]:
    headers = [image.header for image in answer.images] if answer else phantom_headers().values()
    return judge(document, TABLE, headers)


@pytest.mark.parametrize("scheme", FindingCodes)
@pytest.mark.parametrize("form", [*FORMS, "matched"])
def test_cad_report_follows_tid_4000(form: str, scheme: FindingCodes) -> None:
    answer = FORMS.get(form, matched)()
    assert complaints(cad_of(answer, scheme), answer) == []


@pytest.mark.parametrize("form", [*FORMS, "matched"])
def test_report_follows_tid_1500(form: str) -> None:
    answer = FORMS.get(form, matched)()
    assert complaints(report_of(answer), answer) == []


# Faults. Each changes one content item of a good document, looks, and puts it right again.

DOCUMENTS: dict[str, Callable[[], Dataset]] = {
    "CAD": cache(lambda: cad_of(matched(RIGHT))),
    "CAD partial": cache(lambda: cad_of(an_answer(read=RIGHT[:1], complete=False, not_read={LEFT_CC: "lossy"}))),
    "CAD failed": cache(
        lambda: cad_of(an_unread_answer(AnswerStatus.FAILED, phantom_headers()[LEFT_CC], reason="out of memory"))
    ),
    "SR": cache(lambda: report_of(an_answer(read=RIGHT[:1]))),
}


def walk(item: Dataset) -> Iterator[tuple[list[Dataset], int, Dataset]]:
    """Yield each content item with the list it stands in and its place there."""
    below = item.get("ContentSequence")
    for place, child in enumerate(below or ()):
        yield below, place, child
        yield from walk(child)


def name(item: Dataset) -> str:
    """Return the item's concept, or what else tells it apart."""
    code = code_of(item, "ConceptNameCodeSequence")
    return code.value or str(item.get("ValueType", "link"))


def unnoticed(
    document: Dataset, change: Callable[[list[Dataset], int, Dataset], Callable[[], None] | None]
) -> set[str]:
    """Return the concepts of items whose change is not complained of."""
    assert complaints(document) == []
    silent = set()
    for below, place, item in list(walk(document)):
        told = name(item)
        undo = change(below, place, item)
        if undo is None:
            continue
        if not complaints(document):
            silent.add(told)
        undo()
    assert complaints(document) == []
    return silent


def take_away(below: list[Dataset], place: int, item: Dataset) -> Callable[[], None]:
    del below[place]
    return lambda: below.insert(place, item)


OPTIONAL = {
    # Tracking Identifier or Tracking UID: one is enough. Outline, axes, area, digest. One of several images.
    "CAD": {"112039", "112040", "111041", "103339001", "103340004", "42798000", "111002", "link"},
    "CAD partial": {"112039", "112040", "111041", "103339001", "103340004", "42798000", "111002"},
    "CAD failed": {"111002"},
    "SR": {
        *("121049", "121013", "121014", "121015", "121016", "121058", "111028", "126200", "260753009"),
        *("110910", "110911", "111044", "111043", "111026", "111066"),
        *("112039", "112040", "276214006", "121071", "363698007", "272741003", "122405", "111002", "111000"),
        # One of several measurements.
        *("image-score", "breast-score", "exam-score", "finding-score", "42798000", "103339001", "103340004"),
        *("370129005", "111017", "125007", "126010", "C0034375", "121106"),
    },
}
"""What a document may leave out, one at a time."""


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_mandatory_item_is_missed(kind: str) -> None:
    assert unnoticed(DOCUMENTS[kind](), take_away) == OPTIONAL[kind]


def relate_otherwise(below: list[Dataset], place: int, item: Dataset) -> Callable[[], None]:
    former = item.RelationshipType
    item.RelationshipType = "HAS OBS CONTEXT" if former != "HAS OBS CONTEXT" else "CONTAINS"

    def undo() -> None:
        item.RelationshipType = former

    return undo


def type_otherwise(below: list[Dataset], place: int, item: Dataset) -> Callable[[], None] | None:
    if "ValueType" not in item:
        return None
    former = item.ValueType
    item.ValueType = "PNAME"

    def undo() -> None:
        item.ValueType = former

    return undo


def name_otherwise(below: list[Dataset], place: int, item: Dataset) -> Callable[[], None] | None:
    if "ConceptNameCodeSequence" not in item:
        return None
    former = item.ConceptNameCodeSequence
    item.ConceptNameCodeSequence = [coded(Code("wrong", "99TEST", "Wrong concept"))]

    def undo() -> None:
        item.ConceptNameCodeSequence = former

    return undo


def add_a_stranger(below: list[Dataset], place: int, item: Dataset) -> Callable[[], None] | None:
    if "ReferencedContentItemIdentifier" in item:
        return None
    stranger = Dataset()
    stranger.RelationshipType, stranger.ValueType, stranger.TextValue = "HAS PROPERTIES", "TEXT", "?"
    stranger.ConceptNameCodeSequence = [coded(Code("121106", "DCM", "Comment"))]
    former = item.get("ContentSequence")
    item.ContentSequence = [*(former or ()), stranger]

    def undo() -> None:
        if former is None:
            del item.ContentSequence
        else:
            item.ContentSequence = former

    return undo


@pytest.mark.parametrize("kind", ["CAD", "CAD partial", "CAD failed"])
@pytest.mark.parametrize("change", [relate_otherwise, type_otherwise, name_otherwise])
def test_nothing_in_a_cad_report_may_be_of_another_kind(
    kind: str, change: Callable[[list[Dataset], int, Dataset], Callable[[], None] | None]
) -> None:
    assert unnoticed(DOCUMENTS[kind](), change) == set()


@pytest.mark.parametrize("change", [relate_otherwise, type_otherwise])
def test_nothing_in_a_report_may_be_of_another_kind(
    change: Callable[[list[Dataset], int, Dataset], Callable[[], None] | None],
) -> None:
    # A row without a concept name, in a template that may be extended, can't be told from an extension.
    anything = {"image-score", "breast-score", "exam-score", "finding-score", "42798000", "103339001", "103340004"}
    anything |= {"111017", "121106", "260753009"}
    assert unnoticed(DOCUMENTS["SR"](), change) <= anything


def test_only_extensible_templates_take_strangers() -> None:
    extensible = {"IMAGE", "121049", "42798000", "103339001", "103340004", "111001", "111002", "111003"}
    extensible |= {"111027", "111031", "111044", "111043", "111060", "111061", "111018", "111019", "111026", "111066"}
    extensible |= {"112039", "112040"}
    assert unnoticed(DOCUMENTS["CAD"](), add_a_stranger) == extensible


def code_otherwise(below: list[Dataset], place: int, item: Dataset) -> Callable[[], None] | None:
    """Give a CODE another value, a NUM another unit, an SCOORD another type, a link another target."""
    wrong = [coded(Code("wrong", "99TEST", "Wrong code"))]
    keyword = {"CODE": "ConceptCodeSequence", "SCOORD": "GraphicType"}.get(item.get("ValueType", ""))
    target = item
    if item.get("ValueType") == "NUM":
        target, keyword = item.MeasuredValueSequence[0], "MeasurementUnitsCodeSequence"
    elif "ReferencedContentItemIdentifier" in item:
        keyword = "ReferencedContentItemIdentifier"
    if keyword is None:
        return None
    former = target.get(keyword)
    other = {"GraphicType": "MULTIPOINT", "ReferencedContentItemIdentifier": [1, 3]}.get(keyword, wrong)
    setattr(target, keyword, other)
    return lambda: setattr(target, keyword, former)


def test_values_outside_their_sets_are_noticed() -> None:
    # Outline takes every Graphic Type.
    assert unnoticed(DOCUMENTS["CAD"](), code_otherwise) == {"111041"}
    assert unnoticed(DOCUMENTS["CAD failed"](), code_otherwise) == set()
    free = {"121058", "276214006", "121071", "363698007", "370129005", "111017"}
    free |= {"image-score", "breast-score", "exam-score", "finding-score", "42798000", "103339001", "103340004"}
    assert unnoticed(DOCUMENTS["SR"](), code_otherwise) == free


def swap(below: list[Dataset], place: int, item: Dataset) -> Callable[[], None] | None:
    """Exchange an item with the next one."""
    if place + 1 == len(below) or name(item) == name(below[place + 1]):
        return None

    def exchange() -> None:
        below[place], below[place + 1] = below[place + 1], below[place]

    exchange()
    return exchange


def test_order_is_significant_in_a_cad_report() -> None:
    # Long and short axis are two invocations of the same row.
    assert unnoticed(DOCUMENTS["CAD"](), swap) == {"103339001"}
    assert unnoticed(DOCUMENTS["CAD failed"](), swap) == set()


def repeat(below: list[Dataset], place: int, item: Dataset) -> Callable[[], None]:
    below.append(item)

    def undo() -> None:
        del below[-1]

    return undo


def test_what_is_there_once_is_not_there_twice() -> None:
    many = {"IMAGE", "link", "111034", "111002", "103340004", "103339001", "42798000", "111059", "111015"}
    many |= {"111022", "111004"}
    assert unnoticed(DOCUMENTS["CAD"](), repeat) <= many


@pytest.mark.parametrize(
    ("where", "link", "told"),
    [
        ("Outline", [1, 2, 2], "is not the Center's image"),
        ("Outline", [1, 9], "refers to no IMAGE"),
        ("Center", [2, 2, 1], "refers to no IMAGE"),
    ],
)
def test_links_lead_to_the_finding_s_image(where: str, link: list[int], told: str) -> None:
    document = cad_of(an_answer())
    concept = {"Center": "111010", "Outline": "111041"}[where]
    item = next(item for _, _, item in walk(document) if name(item) == concept)
    children(item)[0].ReferencedContentItemIdentifier = link
    assert [each for each in complaints(document) if told in each and "TID 4021" in each]


def test_complaints_name_the_row_and_the_place() -> None:
    document = cad_of(an_answer())
    del document.ContentSequence[0]
    assert complaints(document)[0] == "PS3.16 TID 4000 row 2: 1 lacks TID 1204"


def test_another_root_is_noticed() -> None:
    document = cad_of(an_answer())
    document.ConceptNameCodeSequence = [coded(Code("112000", "DCM", "Chest CAD Report"))]
    assert complaints(document) == ['PS3.16 TID 4000 row 1: the root is (112000, DCM, "Chest CAD Report")']
    document.ContentTemplateSequence[0].TemplateIdentifier = "4100"
    assert complaints(document) == ["the root template is 4100 of DCMR"]
