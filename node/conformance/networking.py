"""Networking: implementation model, application entity, network interfaces (PS3.2 A.4.1 to A.4.3)."""

from collections.abc import Iterator

from ai.words import counted
from config.settings import Proof, Settings
from node import scu
from node.commitment import LOOKS
from node.conformance.markdown import named, status, table
from node.conformance.statuses import received_statuses, rejections, returned_statuses
from node.delivery import BATCH
from node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.results.forms import FORMS, Form, forms_of
from node.service import DRAIN_SECONDS
from node.sop_classes import (
    ACCEPTED,
    LOSSY,
    STORAGE_COMMITMENT,
    STUDY_ROOT_FIND,
    UNCOMPRESSED,
    VERIFICATION,
    VERIFICATION_SYNTAXES,
)
from node.status import COMMITMENT_STATUSES, FAILURE_REASONS, error_comment, failure_reason

NONE_SENT = "(no destination of this configuration)"


def model(settings: Settings) -> Iterator[str]:
    """Yield the implementation model."""
    title = settings.dicom.ae_title
    yield "## 4 Networking"
    yield "### 4.1 Implementation Model"
    yield "#### 4.1.1 Application Data Flow"
    yield (
        "```text\n"
        "modality or PACS --- C-STORE ---> receive -> store and index -> assemble exams -> read\n"
        "                                                                                  |\n"
        "destinations <------ C-STORE ---- deliver <- outbox <- encode <------- findings --+\n"
        "```"
    )
    yield "#### 4.1.2 Functional Definition"
    yield (
        f"One application entity, `{title}`, is SCP and SCU. As SCP it answers C-ECHO and C-STORE at any time. Success "
        "is answered only after the instance is on the disk for good and indexed. As SCU it sends the answers of exams "
        "to each destination, one lane for each, and C-ECHOes a destination when a person asks for it."
    )
    yield "#### 4.1.3 Sequencing of Real-World Activities"
    exam = settings.exam
    yield (
        f"An exam with its four standard views is read {exam.complete_quiet:g} s after its last image, one that lacks "
        f"views after {exam.incomplete_quiet:g} s, and any one at the latest {exam.hard_cap:g} s after its first image. "
        "Its objects are then sent. An image that comes later leads to another revision of the answer."
    )


def entity(settings: Settings) -> Iterator[str]:
    """Yield the application entity's specification."""
    yield f"### 4.2 AE Specification: {settings.dicom.ae_title}"
    yield from _sop_classes(settings)
    yield from _association_policies(settings)
    yield from _initiation(settings)
    yield from _acceptance(settings)


def interfaces(settings: Settings) -> Iterator[str]:
    """Yield the network interfaces."""
    yield "### 4.3 Network Interfaces"
    yield (
        "TCP/IP of the operating system, by host name or address; tested with IPv4. "
        f"The node listens on `{settings.dicom.bind}`, TCP port {settings.dicom.port}. "
        "One physical network interface, or all of them, as the address says."
    )


def _sop_classes(settings: Settings) -> Iterator[str]:
    yield "#### 4.2.1 SOP Classes"
    yield "##### 4.2.1.1 Presentation contexts accepted as SCP"
    yield (
        "**Table 4.2-1.** Of the transfer syntaxes that a context proposes, the first one of this table's order is "
        "accepted. Any other SOP class or transfer syntax is rejected."
    )
    yield table(
        ("SOP Class", "SOP Class UID", "Transfer Syntax", "Transfer Syntax UID", "Role", "Extended Negotiation"),
        [
            (*named(sop_class), *named(syntax), *_role(sop_class))
            for sop_class, syntaxes in ACCEPTED.items()
            for syntax in syntaxes
        ],
    )
    lossy = ", ".join(named(syntax)[0] for syntax in LOSSY)
    yield f"Images in a lossy transfer syntax ({lossy}) are stored and answered with `not analysed`."
    yield "##### 4.2.1.2 Presentation contexts proposed as SCU"
    yield (
        "**Table 4.2-2.** Only the SOP classes of the objects at hand are proposed, each transfer syntax in a context "
        "of its own."
    )
    echo = [(VERIFICATION, syntax, "C-ECHO", "all, when asked for") for syntax in VERIFICATION_SYNTAXES]
    proofs = [
        (sop_class, syntax, service, _proving(settings, *ways))
        for sop_class, service, ways in (
            (STORAGE_COMMITMENT, "N-ACTION", (Proof.COMMITMENT, Proof.COMMITMENT_OR_FIND)),
            (STUDY_ROOT_FIND, "C-FIND", (Proof.FIND, Proof.COMMITMENT_OR_FIND)),
        )
        for syntax in UNCOMPRESSED
    ]
    sent = [(form.sop_class, syntax, form.name, _getting(settings, form)) for form in FORMS for syntax in UNCOMPRESSED]
    yield table(
        ("SOP Class", "SOP Class UID", "Transfer Syntax", "Transfer Syntax UID", "Role", "Sent as", "Destinations"),
        [
            (*named(sop_class), *named(syntax), "SCU", name, places)
            for sop_class, syntax, name, places in (*echo, *sent, *proofs)
        ],
    )


def _role(sop_class: str) -> tuple[str, str]:
    return ("SCP, SCU", "SCP/SCU Role Selection") if sop_class == STORAGE_COMMITMENT else ("SCP", "None")


def _proving(settings: Settings, *ways: Proof) -> str:
    return ", ".join(place.name for place in settings.destinations if place.proof in ways) or NONE_SENT


def _getting(settings: Settings, form: Form) -> str:
    """Return the destinations that get a form, those that get it as a fallback marked."""
    places = []
    for destination in settings.destinations:
        forms = forms_of(destination.mix, form.kind)
        if form in forms:
            places.append(destination.name + (" (fallback)" if forms[0] != form else ""))
    return ", ".join(places) or NONE_SENT


def _association_policies(settings: Settings) -> Iterator[str]:
    dicom = settings.dicom
    yield "#### 4.2.2 Association Policies"
    yield "**Table 4.2-3.** General."
    yield table(
        ("Parameter", "Value"),
        [
            ("Application context name", "1.2.840.10008.3.1.1.1"),
            ("Maximum PDU size received, as acceptor", scu.MAXIMUM_PDU_SIZE),
            ("Maximum PDU size received, as initiator", scu.MAXIMUM_PDU_SIZE),
            ("Simultaneous associations, as acceptor", dicom.maximum_associations),
            ("Simultaneous associations, as initiator", _initiated(settings)),
            ("Outstanding asynchronous operations", "1 (not negotiated)"),
            ("Network timeout (no message)", f"{dicom.network_timeout:g} s"),
            ("ACSE timeout (establishing, releasing)", f"{dicom.acse_timeout:g} s"),
            ("DIMSE timeout (one message)", f"{dicom.dimse_timeout:g} s"),
            ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
        ],
    )
    yield (
        "Extended negotiation: none, in either direction, but for the SCP/SCU Role Selection of Storage Commitment that "
        "a requestor proposes: both roles are accepted. SOP Class Extended, Asynchronous Operations Window and User "
        "Identity items of a requestor, and Role Selection of other classes, are not answered, so that the defaults hold."
    )


def _initiated(settings: Settings) -> str:
    number = sum(destination.associations for destination in settings.destinations)
    several = [f"{d.name}: {d.associations}" for d in settings.destinations if d.associations > 1]
    return f"{number}, one for each destination" + (f" ({', '.join(several)})" if several else "")


def _initiation(settings: Settings) -> Iterator[str]:
    delivery = settings.delivery
    yield "#### 4.2.3 Association Initiation Policy"
    yield "##### 4.2.3.1 Activity: send results"
    yield (
        f"A lane opens an association when objects are due for its destination, sends at most {BATCH} of them, one after "
        "the other, and releases it. The exam with the highest suspicion score comes first, then the one that has waited "
        "longest. The objects of an exam are sent in the order of the object mix (4.4.1), where a lane has one "
        "association at a time, and its answers in the order of their revisions, however many it has. What waits of an "
        "earlier answer once the destination has accepted something of a later one is not sent. Nothing is sent outside "
        "of a destination's windows, or while its lane is paused (`mammonode lanes`)."
    )
    yield (
        f"What is tried again: {delivery.quick_retries} quick retries, whose waits double from "
        f"{delivery.first_retry:g} s up to {delivery.slowest_retry:g} s, then one every {delivery.slowest_retry:g} s, "
        f"until {counted(delivery.give_up_days, 'day')} after the first attempt. A destination may have numbers of its own (4.4.1). A "
        "person can send again with `mammonode send`."
    )
    yield (
        "**Table 4.2-4.** C-STORE responses received, and what comes of them. A SOP class whose contexts are all rejected "
        "counts as 0122H."
    )
    yield received_statuses()
    yield (
        "The fallbacks (4.4.1, 8.1.1): a Segmentation of another type is replaced by BINARY, a Comprehensive 3D SR by "
        "a Comprehensive SR. Both forms and what was said of them are kept."
    )
    yield "##### 4.2.3.2 Activity: ask for proof of delivery"
    yield from _proof(settings)
    yield "##### 4.2.3.3 Activity: verify"
    yield "`mammonode echo` and `mammonode check` send C-ECHO to the destinations. Status 0000H counts as an answer."


def _proof(settings: Settings) -> Iterator[str]:
    yield (
        "Where a destination's `proof` is not `none`, what it accepted is `sent` until it is `committed` (Storage "
        "Commitment Push Model, PS3.4 J) or `verified` (found by C-FIND, Study Root, level IMAGE)."
    )
    yield (
        f"Storage Commitment: an N-ACTION under a new Transaction UID names at most {BATCH} instances, on an association "
        "of its own, which stays open for the N-EVENT-REPORT for "
        f"{settings.delivery.commitment_wait:g} s; later the report is taken on an association that the destination "
        "opens under its AE title, with or without Role Selection. A report may leave instances out and be repeated; an "
        "instance in both of its lists has failed. What is not reported on within `proof_timeout` is asked for again "
        "(`commitment`), or by C-FIND (`commitment-or-find`), until the destination's days are over."
    )
    yield "**Table 4.2-4a.** Failure Reasons received, and what comes of them."
    yield table(
        ("Failure Reason", "Meaning", "Behaviour"),
        [
            *((status(reason), words, verdict.value) for reason, (words, verdict) in FAILURE_REASONS.items()),
            ("any other", "", failure_reason(0xFFFF)[1].value),
        ],
    )
    yield (
        "Sent again counts as an attempt of 4.2.3.1. With `commitment-or-find`, 0122H is followed by C-FIND. A C-FIND "
        "asks for the instances of one series of ours: Query/Retrieve Level, Study, Series and SOP Instance UID. What is "
        f"not found {LOOKS} times is sent again."
    )
    yield (
        "**Table 4.2-4b.** N-EVENT-REPORT and N-ACTION (4.2.4.2) responses returned; success only when the message is "
        "noted for good."
    )
    yield table(
        ("Status", "Reason", "Explanation"),
        [(status(code), f"`{kind.__name__}`", error_comment(kind)) for kind, code in COMMITMENT_STATUSES],
    )


def _acceptance(settings: Settings) -> Iterator[str]:
    dicom = settings.dicom
    called = "must be" if dicom.require_called_ae else "need not be"
    yield "#### 4.2.4 Association Acceptance Policy"
    yield "##### 4.2.4.1 Activity: receive"
    yield f"The called AE title {called} `{dicom.ae_title}`. " + (
        "Any calling AE title is accepted."
        if dicom.allow_unknown_callers
        else "The calling AE title must be one of 4.4.1, and come from its address where that is stated."
    )
    yield "**Table 4.2-5.** Associations rejected (PS3.8 9.3.4)."
    yield rejections()
    yield "**Table 4.2-6.** C-STORE responses returned. Nothing is kept of an instance that is refused."
    yield returned_statuses()
    yield (
        "Storage is of level 2 (full): all attributes are kept as they were sent, in the transfer syntax in which they "
        "were sent. No element is coerced. An instance whose SOP Instance UID is known is answered with success: an "
        "equal one changes nothing, a different one is set aside, and the first one stays in force. An object of the "
        "node itself that comes back is stored, and neither read nor sent on."
    )
    yield "##### 4.2.4.2 Activity: answer for safe keeping"
    yield (
        "Storage Commitment Push Model (PS3.4 J): an N-ACTION is answered when it is noted for good. The report names "
        "every instance as committed that is indexed under the SOP class asked for and whose file is there in its "
        "size; others fail with 0112H (no such object instance) or 0119H (class/instance conflict). A Transaction UID "
        "that is in use for something else fails as a whole with 0131H; the same request again is reported on again. "
        "The optional Storage Media File-Set and Retrieve AE Title attributes are neither read nor sent."
    )
    yield (
        "The N-EVENT-REPORT is sent on the association of the request when its peer waits there in silence, else on a "
        "new one, as SCP by Role Selection, to the host and port that the sender has in the configuration (4.4.1). One "
        "that is not answered with 0000H is sent again, by the numbers of `[delivery]`. Refused requests get a status of "
        "Table 4.2-4b."
    )
    yield (
        f"When the node stops, no new association is accepted, and those that are open get {DRAIN_SECONDS:g} s before "
        "they are aborted."
    )
