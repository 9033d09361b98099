"""Audit messages as XML, by the schema of PS3.15 A.5.1.1. They tell patients by their ID, as A.5.3 asks; never by name."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Final
from xml.etree import ElementTree as ET

from node.audit.codes import NODE_ID, PATIENT_NUMBER, SOP_CLASS_UID, STUDY_UID, URI, Code, Outcome

NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document can hold, escaped or not; a sender's header may."""
NOT_TOLD: Final = "not told"
"""In place of a patient's name, which the schema wants and the profile leaves open (rule R14)."""

HOST, ADDRESS, ADDRESS_OF_URI = "1", "2", "5"
PERSON, SYSTEM, OTHER = "1", "2", "4"
PATIENT, REPORT, MASTER_FILE, SECURITY_USER, SECURITY_RESOURCE, JOB = "1", "3", "5", "11", "13", "20"
QUERIED = "24"


@dataclass(frozen=True)
class Source:
    """Who reports: this node.

    Attributes
    ----------
    source_id, site_id
        AuditSourceID and AuditEnterpriseSiteID; no site where it is ''.
    ae_title
        Of the node.
    process
        Its process id.
    """

    source_id: str
    site_id: str
    ae_title: str
    process: str


@dataclass(frozen=True)
class Participant:
    """An ActiveParticipant: a person, a program, a machine.

    Attributes
    ----------
    user
        UserID.
    requestor
        Whether it has caused the event.
    role
        RoleIDCode; None without.
    ae_title
        Where it is an application entity.
    address
        Its network address or name; '' when not known.
    """

    user: str
    requestor: bool
    role: Code | None = None
    ae_title: str = ""
    address: str = ""


@dataclass(frozen=True)
class Object:
    """A ParticipantObjectIdentification: what the event is about.

    Attributes
    ----------
    identifier, kind
        ParticipantObjectID and ParticipantObjectIDTypeCode.
    type_code, role
        As of the schema.
    name
        ParticipantObjectName; where there is a query, that stands in its place.
    query
        ParticipantObjectQuery, not yet encoded.
    details
        ParticipantObjectDetail by type, not yet encoded.
    instances
        Number of instances by SOP class.
    """

    identifier: str
    kind: Code
    type_code: str
    role: str
    name: str = ""
    query: bytes | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    instances: Mapping[str, int] = field(default_factory=dict)


def study(uid: str, instances: Mapping[str, int] | None = None) -> Object:
    """Return a study, and how many of its instances the event is about, by SOP class."""
    return Object(uid, STUDY_UID, SYSTEM, REPORT, uid, instances=instances or {})


def patient(patient_id: str) -> Object:
    """Return a patient, by ID only."""
    return Object(patient_id or NOT_TOLD, PATIENT_NUMBER, PERSON, PATIENT, NOT_TOLD)


def queried(service: str, query: str) -> Object:
    """Return a query: its SOP class or service, and what was asked."""
    return Object(service, SOP_CLASS_UID, SYSTEM, QUERIED, query=query.encode())


def node(identifier: str, details: Mapping[str, str] | None = None) -> Object:
    """Return a machine or program that a security alert is about."""
    return Object(identifier, NODE_ID, SYSTEM, SECURITY_RESOURCE, identifier, details=details or {})


def resource(uri: str) -> Object:
    """Return what has a URI, such as the trail itself."""
    return Object(uri, URI, SYSTEM, SECURITY_RESOURCE, uri)


@dataclass(frozen=True)
class Message:
    """An audit message.

    Attributes
    ----------
    event, action
        EventID and EventActionCode.
    at
        When it happened.
    participants
        At least one.
    objects
        What it is about.
    kind
        EventTypeCode; None without.
    outcome, description
        EventOutcomeIndicator, and in words.
    """

    event: Code
    action: str
    at: datetime
    participants: Sequence[Participant]
    objects: Sequence[Object] = ()
    kind: Code | None = None
    outcome: Outcome = Outcome.SUCCESS
    description: str = ""

    def to_xml(self, source: Source) -> str:
        """Return the message as one line of XML, without a declaration."""
        root = ET.Element("AuditMessage")
        event = _add(
            root,
            "EventIdentification",
            EventActionCode=self.action,
            EventDateTime=self.at.isoformat(timespec="milliseconds"),
            EventOutcomeIndicator=self.outcome.value,
        )
        _coded(event, "EventID", self.event)
        if self.kind:
            _coded(event, "EventTypeCode", self.kind)
        if self.description:
            _add(event, "EventOutcomeDescription").text = _plain(self.description)
        for participant in self.participants:
            _participant(root, participant)
        told = {"AuditSourceID": source.source_id}
        reporter = _add(
            root,
            "AuditSourceIdentification",
            **({"AuditEnterpriseSiteID": source.site_id} if source.site_id else {}),
            **told,
        )
        _add(reporter, "AuditSourceTypeCode", **{"csd-code": "4"})
        for each in self.objects:
            _object(root, each)
        return ET.tostring(root, encoding="unicode")


def _participant(root: ET.Element, participant: Participant) -> None:
    told = {"UserID": participant.user or NOT_TOLD}
    if participant.ae_title:
        told["AlternativeUserID"] = f"AETITLES={participant.ae_title}"
    told["UserIsRequestor"] = "true" if participant.requestor else "false"
    if participant.address:
        told["NetworkAccessPointID"] = participant.address
        told["NetworkAccessPointTypeCode"] = _kind_of(participant.address)
    found = _add(root, "ActiveParticipant", **told)
    if participant.role:
        _coded(found, "RoleIDCode", participant.role)


def _kind_of(address: str) -> str:
    if "://" in address:
        return ADDRESS_OF_URI
    try:
        ip_address(address)
    except ValueError:
        return HOST
    return ADDRESS


def _object(root: ET.Element, each: Object) -> None:
    found = _add(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=each.identifier,
        ParticipantObjectTypeCode=each.type_code,
        ParticipantObjectTypeCodeRole=each.role,
    )
    _coded(found, "ParticipantObjectIDTypeCode", each.kind)
    if each.query is None:
        _add(found, "ParticipantObjectName").text = _plain(each.name)
    else:
        _add(found, "ParticipantObjectQuery").text = base64.b64encode(each.query).decode()
    for name, value in each.details.items():
        _add(found, "ParticipantObjectDetail", type=name, value=base64.b64encode(value.encode()).decode())
    if each.instances:
        description = _add(found, "ParticipantObjectDescription")
        for sop_class, number in each.instances.items():
            _add(description, "SOPClass", UID=sop_class, NumberOfInstances=str(number))


def _coded(parent: ET.Element, name: str, code: Code) -> None:
    _add(parent, name, **{"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning})


def _add(parent: ET.Element, name: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, name, {key: _plain(value) for key, value in attributes.items()})


def _plain(text: str) -> str:
    return NOT_XML.sub("\ufffd", text.replace("\n", " "))
