"""Annexes: the content of every object that is sent, and the codes in it (PS3.2 A.8)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from config.mix import ResultKind
from node.conformance.attributes import Row, attribute_rows
from node.conformance.examples import INSTALLATION, MODEL, Example, examples
from node.conformance.markdown import coded, named, table
from node.conformance.modules import MODULES
from node.conformance.rules import RULES, TITLES
from node.conformance.terminology import private_codes
from node.conformance.trees import tree_lines
from node.conformance.usage import usage
from node.results.edition import REPORTS, SERIES
from node.results.forms import FALLBACK_REPORT, FALLBACK_SEGMENTATION, FORMS
from node.results.reasons import SCHEME

ATTRIBUTES: Final = ("Attribute", "Tag", "VR", "Presence", "Value")
ITEMS: Final = ("Nesting", "Relationship", "Value Type", "Concept Name", "Presence", "Value")

KINDS: Final = tuple(dict.fromkeys(form.kind for form in FORMS))


def annexes() -> Iterator[str]:
    """Yield the annexes."""
    made: dict[ResultKind, list[Example]] = {kind: [] for kind in KINDS}
    for example in examples():
        made[example.form.kind].append(example)
    rows = {kind: attribute_rows(of_kind) for kind, of_kind in made.items()}
    common = _common(rows)
    yield "## 8 Annexes"
    yield "### 8.1 IOD Contents"
    yield (
        "Read from objects that the encoders made of a synthetic exam: findings in all forms of size, none, partial, not "
        "analysed, failed, superseding; from images with every optional attribute and from images with none."
    )
    yield from _rules()
    yield "#### 8.1.2 Attributes of all objects"
    yield (
        "**Table 8.1-3.** What every object has. Besides, attributes of the Patient, General Study and Patient Study "
        f"Modules that the source image has are copied. `{MODEL.name}`, `{MODEL.version}`, `{MODEL.digest}` and "
        f"`{INSTALLATION}` stand here for name, version and digest of the model and for the installation's identifier."
    )
    yield table(ATTRIBUTES, (line for row in common for line in row.lines()))
    sections: dict[ResultKind, str] = {}
    for number, kind in enumerate(KINDS, start=3):
        own = [row for row in rows[kind] if row not in common]
        sections[kind] = "\n\n".join(_kind(f"8.1.{number}", kind, made[kind], own))
        yield sections[kind]
    yield from usage(f"8.1.{3 + len(KINDS)}")
    yield "### 8.2 Data Dictionary of Private Attributes"
    yield "No private attribute is written."
    yield from _terminology(sections)
    yield "### 8.4 Grayscale Image Consistency"
    yield "The node displays nothing. Presentation states keep the grey scale of their images."
    yield "### 8.5 Standard Extended, Specialized and Private SOP Classes"
    yield "None."
    yield "### 8.6 Private Transfer Syntaxes"
    yield "None."


def _rules() -> Iterator[str]:
    yield "#### 8.1.1 Rules for all objects"
    yield table(("Rule", "Content"), RULES)
    yield "**Table 8.1-1.** Kinds, their forms, and what is sent where a form is refused."
    fallbacks: Mapping[ResultKind, str] = {ResultKind.SEG: FALLBACK_SEGMENTATION, ResultKind.SR: FALLBACK_REPORT}
    yield table(
        ("Form", "SOP Class", "SOP Class UID", "Modality", "IOD", "Root template", "Fallback"),
        [
            (
                form.name,
                *named(form.sop_class),
                form.modality,
                f"PS3.3 {form.section}",
                f"TID {form.template}" if form.template else "",
                fallback if (fallback := fallbacks.get(form.kind)) and fallback != form.choice else "",
            )
            for form in FORMS
        ],
    )
    yield "**Table 8.1-2.** Series."
    yield table(
        ("Kind", "Series Number of the first object", "Series Description begins", "Series over revisions"),
        [(kind, *SERIES[kind], "stays" if kind in REPORTS else "a new one for each object") for kind in KINDS],
    )


def _common(rows: Mapping[ResultKind, Sequence[Row]]) -> list[Row]:
    """Return the rows that are the same in objects of every kind."""
    first, *others = rows.values()
    return [row for row in first if all(row in other for other in others)]


def _kind(number: str, kind: ResultKind, made: Sequence[Example], rows: Sequence[Row]) -> Iterator[str]:
    forms = [form for form in FORMS if form.kind is kind]
    yield f"#### {number} {kind}: {TITLES[kind].title}"
    yield TITLES[kind].words
    yield table(
        ("Property", "Value"),
        [
            ("SOP Class", "; ".join(dict.fromkeys(" ".join(named(form.sop_class)) for form in forms))),
            ("Modality", "; ".join(dict.fromkeys(form.modality for form in forms))),
            ("Transfer Syntax of the file", "; ".join(dict.fromkeys(_syntax(each) for each in made))),
            (
                "Root template",
                "; ".join(dict.fromkeys(f"TID {form.template}" if form.template else "none" for form in forms)),
            ),
            ("Modules", ", ".join(MODULES[kind])),
        ],
    )
    yield f"Attributes of {kind}, besides those of Table 8.1-3:"
    yield table(ATTRIBUTES, (line for row in rows for line in row.lines()))
    if any("ContentSequence" in each.dataset for each in made):
        yield f"Content tree of {kind}:"
        yield table(ITEMS, tree_lines([each.dataset for each in made]))


def _syntax(example: Example) -> str:
    return " ".join(named(example.dataset.file_meta.TransferSyntaxUID))


def _terminology(sections: Mapping[ResultKind, str]) -> Iterator[str]:
    yield "### 8.3 Coded Terminology and Templates"
    yield (
        "Codes are of SNOMED CT (SCT; in the Mammography CAD SR SNOMED RT, SRT, where the object mix says so), DCM, UCUM, "
        f"UMLS and, where the standard has none, of the private scheme {SCHEME}. Templates: Table 8.1-1 and the content "
        "trees of 8.1."
    )
    yield f"**Table 8.3-1.** Private codes, Coding Scheme Designator {SCHEME}."
    yield table(
        ("Code Value", "Coding Scheme Designator", "Code Meaning", "In"),
        [
            (
                code.value,
                code.scheme_designator,
                code.meaning,
                ", ".join(kind for kind, text in sections.items() if coded(code) in text) or "no object at present",
            )
            for code in private_codes()
        ],
    )
