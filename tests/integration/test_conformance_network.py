"""What the statement says of associations, tried on the wire: contexts both ways, negotiation, rejections, responses."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000MC,
    MPEG2MPML,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundImageStorage,
    VLPhotographicImageStorage,
)
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from config.settings import Dicom
from node.errors import ContextsRejected
from node.scp import StorageSCP
from node.scu import Item, Sender
from node.sop_classes import STORAGE_COMMITMENT
from storage.database import open_database
from tests.databases import SQLiteDatabases
from tests.doors import NO_ROOM, Room, a_destination, a_room, an_image, an_open_door
from tests.pacs import a_pacs
from tests.peers import eventually
from tests.statements import Row, section, table

pytestmark = pytest.mark.sqlite_alone

NOT_LISTED = (EnhancedCTImageStorage, MRImageStorage, UltrasoundImageStorage, VLPhotographicImageStorage)
NEVER_LISTED = (MPEG2MPML, JPEG2000MC, HTJ2K)
"""Transfer syntaxes that no SOP class is accepted in."""

MOST_CONTEXTS = 120
"""An association has 128 at most (PS3.8 7.1.1.13)."""


def associate(
    door: StorageSCP,
    contexts: Sequence[tuple[str, list[str]]],
    *,
    calling: str = "MODALITY",
    called: str = "MAMMONODE",
    extended: Sequence[object] = (),
) -> Association:
    entity = AE(calling)
    return entity.associate(
        "127.0.0.1",
        door.port,
        contexts=[build_context(sop_class, syntaxes) for sop_class, syntaxes in contexts],
        ae_title=called,
        ext_neg=list(extended),  # type: ignore[arg-type]
    )


def accepted_rows() -> list[Row]:
    return table(section("4.2.1.1"), "Transfer Syntax UID")


def test_the_door_accepts_exactly_the_contexts_that_are_listed(door: StorageSCP) -> None:
    listed = {(row["SOP Class UID"], row["Transfer Syntax UID"]) for row in accepted_rows()}
    classes = sorted({sop_class for sop_class, _ in listed} | set(NOT_LISTED))
    syntaxes = sorted(
        {syntax for _, syntax in listed}
        | {DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, *NEVER_LISTED}
    )
    # Each that is listed alone; those that are not, of one class together: one that is taken shows.
    contexts = [(sop_class, [syntax]) for sop_class, syntax in sorted(listed)]
    others = {each: [syntax for syntax in syntaxes if (each, syntax) not in listed] for each in classes}
    contexts += [(each, unlisted) for each, unlisted in others.items() if unlisted]
    accepted = set()
    for begin in range(0, len(contexts), MOST_CONTEXTS):
        association = associate(door, contexts[begin : begin + MOST_CONTEXTS])
        assert association.is_established
        accepted |= {(str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in association.accepted_contexts}
        association.release()
    assert accepted == listed


def test_of_the_proposed_transfer_syntaxes_the_first_listed_one_is_accepted(door: StorageSCP) -> None:
    order: dict[str, list[str]] = {}
    for row in accepted_rows():
        order.setdefault(row["SOP Class UID"], []).append(row["Transfer Syntax UID"])
    association = associate(door, [(sop_class, syntaxes[::-1]) for sop_class, syntaxes in order.items()])
    accepted = {str(cx.abstract_syntax): str(cx.transfer_syntax[0]) for cx in association.accepted_contexts}
    association.release()
    assert accepted == {sop_class: syntaxes[0] for sop_class, syntaxes in order.items()}


def test_the_node_names_itself_and_its_pdu_size_as_the_statement_does(door: StorageSCP) -> None:
    told = {row["Parameter"]: row["Value"] for row in table(section("4.2.2"), "Parameter")}
    association = associate(door, [(CTImageStorage, [ExplicitVRLittleEndian])])
    acceptor = association.acceptor
    association.release()
    assert acceptor.primitive
    assert str(acceptor.primitive.application_context_name) == told["Application context name"]
    assert str(acceptor.maximum_length) == told["Maximum PDU size received, as acceptor"]
    assert str(acceptor.implementation_class_uid) == told["Implementation Class UID"]
    assert acceptor.implementation_version_name == told["Implementation Version Name"]


def test_extended_negotiation_is_not_answered(door: StorageSCP) -> None:
    assert "Extended negotiation: none" in section("4.2.2")
    others = [row for row in accepted_rows() if row["SOP Class UID"] != STORAGE_COMMITMENT]
    assert {row["Extended Negotiation"] for row in others} == {"None"}
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = UID(CTImageStorage), True, True
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 5
    user = UserIdentityNegotiation()
    user.user_identity_type, user.primary_field, user.positive_response_requested = 1, b"somebody", True
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = UID(CTImageStorage), b"\x02"
    association = associate(door, [(CTImageStorage, [ExplicitVRLittleEndian])], extended=(role, window, user, extended))
    assert association.is_established
    acceptor = association.acceptor
    association.release()
    assert not acceptor.role_selection
    assert acceptor.asynchronous_operations == (1, 1)
    assert not acceptor.user_identity
    assert not acceptor.sop_class_extended


@pytest.mark.parametrize("roles", [(True, True), (False, True), (True, False)])
def test_role_selection_of_storage_commitment_is_answered_as_it_was_proposed(
    door: StorageSCP, roles: tuple[bool, bool]
) -> None:
    [selection] = {row["Extended Negotiation"] for row in accepted_rows() if row["SOP Class UID"] == STORAGE_COMMITMENT}
    assert selection == "SCP/SCU Role Selection"
    role = SCP_SCU_RoleSelectionNegotiation()
    (role.scu_role, role.scp_role), role.sop_class_uid = roles, STORAGE_COMMITMENT
    association = associate(door, [(STORAGE_COMMITMENT, [ExplicitVRLittleEndian])], extended=(role,))
    [context] = association.accepted_contexts
    association.release()
    assert (context.as_scu, context.as_scp) == roles


def test_associations_are_rejected_with_what_is_listed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = [(str(CTImageStorage), [str(ExplicitVRLittleEndian)])]
    seen = []
    with an_open_door(room, maximum_associations=1) as door:
        seen.append(rejection(associate(door, contexts, called="OTHER")))
        assert eventually(lambda: door.associations == 0)
        seen.append(rejection(associate(door, contexts, calling="STRANGER")))
        assert eventually(lambda: door.associations == 0)
        with monkeypatch.context() as patch:
            patch.setattr(door, "_refusal", lambda *_: 1 / 0)
            seen.append(rejection(associate(door, contexts)))
        assert eventually(lambda: door.associations == 0)
        first = associate(door, contexts)
        assert first.is_established
        seen.append(rejection(associate(door, contexts)))
        first.release()
    listed = table(section("4.2.4.1"), "Reason/Diag.")
    assert seen == [(int(row["Result"]), int(row["Source"]), int(row["Reason/Diag."])) for row in listed]


def rejection(association: Association) -> tuple[int | None, int | None, int | None]:
    """Return result, source and reason of a rejected association."""
    assert association.is_rejected
    answer = association.acceptor.primitive
    assert answer
    return answer.result, answer.result_source, answer.diagnostic


def test_a_response_has_the_status_and_the_error_comment_that_are_listed(
    tmp_path: Path, sqlite_databases: SQLiteDatabases
) -> None:
    engine = open_database(sqlite_databases.fresh())
    image = an_image()
    with an_open_door(a_room(tmp_path, engine, NO_ROOM)) as door:
        association = associate(door, [(image.SOPClassUID, [ExplicitVRLittleEndian])])
        answer = association.send_c_store(image)
        association.release()
    engine.dispose()
    [row] = [row for row in table(section("4.2.4.1"), "Error Comment") if row["Reason"] == "`DiskLow`"]
    assert f"{answer.Status:04X}H" == row["Status"]
    # Trailing spaces of a Long String are padding (PS3.5 6.2).
    assert answer.ErrorComment.rstrip() == row["Error Comment"].strip("`").rstrip()


def test_the_node_proposes_exactly_the_contexts_that_are_listed() -> None:
    rows = table(section("4.2.1.2"), "Sent as")
    services = {"C-ECHO", "N-ACTION", "C-FIND"}
    objects = {row["SOP Class UID"] for row in rows if row["Sent as"] not in services}
    sender = Sender(Dicom())
    with a_pacs(classes=()) as (pacs, port):
        assert sender.echo(a_destination(port)).answered
        list(sender.send(a_destination(port), [Item(Path("not-read.dcm"), sop_class) for sop_class in objects]))
        sender.ask_commitment(a_destination(port), Dataset(), lambda *_: 0, 0)
        with pytest.raises(ContextsRejected):
            sender.find(a_destination(port), [])
    [echo, store, *proofs] = pacs.proposed
    for service, [(sop_class, syntaxes)] in zip(("N-ACTION", "C-FIND"), proofs, strict=True):
        assert [(row["SOP Class UID"], row["Transfer Syntax UID"]) for row in rows if row["Sent as"] == service] == [
            (sop_class, syntax) for syntax in syntaxes
        ]
    [(verification, syntaxes)] = echo
    listed = [(row["SOP Class UID"], row["Transfer Syntax UID"]) for row in rows if row["Sent as"] == "C-ECHO"]
    assert [(verification, syntax) for syntax in syntaxes] == listed
    assert all(len(syntaxes) == 1 for _, syntaxes in store)  # each in a context of its own
    assert {(sop_class, syntaxes[0]) for sop_class, syntaxes in store} == {
        (row["SOP Class UID"], row["Transfer Syntax UID"]) for row in rows if row["Sent as"] not in services
    }
