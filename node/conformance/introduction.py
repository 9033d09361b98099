"""Cover, overview and introduction of the statement (PS3.2 A.0, A.1, A.3)."""

from collections.abc import Iterator
from typing import Final

from config.settings import Settings
from node.conformance.markdown import named, table
from node.identity import MANUFACTURER, MODEL_NAME, RESEARCH_USE_ONLY, VERSION
from node.results.forms import FORMS
from node.sop_classes import (
    ACCEPTED,
    DOCUMENTS,
    MAMMOGRAMS,
    OTHER_IMAGES,
    STORAGE_COMMITMENT,
    STUDY_ROOT_FIND,
    VERIFICATION,
)

GROUPS: Final = (
    ("Verification", (VERIFICATION,)),
    ("Transfer: mammograms", MAMMOGRAMS),
    ("Transfer: other images", OTHER_IMAGES),
    ("Transfer: documents", DOCUMENTS),
    ("Workflow Management", (STORAGE_COMMITMENT,)),
    ("Query/Retrieve", (STUDY_ROOT_FIND,)),
)


def cover(settings: Settings) -> Iterator[str]:
    """Yield title and identification."""
    yield f"# DICOM Conformance Statement: {MODEL_NAME} {VERSION}"
    yield f"**{RESEARCH_USE_ONLY}**"
    yield table(
        ("", ""),
        [
            ("Product", MODEL_NAME),
            ("Version", VERSION),
            ("Manufacturer", MANUFACTURER),
            ("Application entity of this configuration", settings.dicom.ae_title),
        ],
    )
    yield (
        "Printed by `mammonode conformance` from the configuration that it was given and from the tables that the "
        "program itself works with; structure after PS3.2 Annex A. The annexes describe objects that the program's own "
        "encoders made from a synthetic exam."
    )


def overview() -> Iterator[str]:
    """Yield the overview with the table of network services."""
    yield "## 1 Conformance Statement Overview"
    yield (
        f"{MODEL_NAME} receives screening mammograms by C-STORE, assembles four-view exams, reads each exam with a "
        "neural network that marks masses, and sends DICOM objects with the answer to its destinations by C-STORE. "
        "Every exam gets an answer: findings, no findings, partial, not analysed or failed."
    )
    yield "**Table 1-1 Network Services**"
    sent = {form.sop_class for form in FORMS} | {VERIFICATION, STORAGE_COMMITMENT, STUDY_ROOT_FIND}
    groups = [*GROUPS, ("Transfer: results", sorted(sent - set(ACCEPTED) - {STUDY_ROOT_FIND}))]
    yield table(
        ("Service", "SOP Class", "SOP Class UID", "User of Service (SCU)", "Provider of Service (SCP)"),
        [
            (service, *named(sop_class), _yes(sop_class in sent), _yes(sop_class in ACCEPTED))
            for service, classes in groups
            for sop_class in classes
        ],
    )
    yield (
        "As SCU, a class is proposed only where an object of it is to be sent: 4.2.1.2 says which ones this "
        "configuration sends. Media Storage is not supported."
    )


def introduction() -> Iterator[str]:
    """Yield revision, audience, remarks, terms and references."""
    yield "## 3 Introduction"
    yield "### 3.1 Audience"
    yield "Those who connect the node with modalities, PACS and workstations, with DICOM known to them."
    yield "### 3.2 Remarks"
    yield (
        "This statement does not guarantee that two systems work together; compare it with the other system's "
        "statement, and try. It was not certified by anybody, and nothing in it is a clinical claim. "
        f"{RESEARCH_USE_ONLY}"
    )
    yield "### 3.3 Terms"
    yield table(
        ("Term", "Means"),
        [
            ("exam", "the images of one patient's screening study that are read together"),
            ("answer", "what an exam gets: its status and its result objects"),
            ("revision", "number of an exam's answer; it grows when the exam's images change"),
            ("destination", "an application entity that answers go to, with an object mix of its own"),
            ("object mix", "kinds and forms of the objects that a destination gets"),
            ("fallback", "another form of an object, sent instead where the first is refused for good"),
        ],
    )
    yield (
        "Presence of attributes and content items: ALWAYS, with a value; VNAP, value not always present (zero length "
        "without one); ANAP, attribute or item not always present; EMPTY, always of zero length."
    )
    yield "### 3.4 References"
    yield "NEMA PS3, Digital Imaging and Communications in Medicine. IHE Radiology: AI Results (AIR), IOCM."


def _yes(value: bool) -> str:  # noqa: FBT001 (one value in, one word out)
    return "Yes" if value else "No"
