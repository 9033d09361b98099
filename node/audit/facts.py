"""What happened, as it is noted at the moment, and the messages that come of it."""

import hashlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode

from sqlalchemy import Connection

from node.audit import codes
from node.audit.codes import Outcome
from node.audit.messages import Message, Object, Participant, Source, node, patient, queried, resource, study
from storage.audit import Entry, Subject, subject_of_exam, subjects, subjects_of_studies

NAMES: Final = re.compile(
    r"(^|\.)(\w*Name|\w*Physicians?\w*|0010(0010|1001|1005|1060)|0008(0090|1048|1050|1060|1070))$", re.IGNORECASE
)
"""Attributes of a query whose values are names of people (rule R14)."""
WITHHELD: Final = "*withheld*"
CONFIGURES: Final = frozenset({"pause", "resume"})
"""What people do to the node; all else that they do is done to an exam."""


@dataclass(frozen=True)
class Fact:
    """One thing that happened.

    Attributes
    ----------
    kind
        Which of the functions below makes messages of it.
    at
        When.
    data
        What is known of it, JSON types; UIDs, IDs, AE titles, addresses, and no names of patients.
    uid
        Random: a fact that is found twice after a crash makes one message.
    """

    kind: str
    at: datetime
    data: Mapping[str, Any]
    uid: str

    @classmethod
    def now(cls, kind: str, at: datetime, **data: Any) -> Self:
        """Return a fact that is new."""
        return cls(kind, at, data, secrets.token_hex(8))

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps({"kind": self.kind, "at": self.at.isoformat(), "uid": self.uid, **self.data}, default=str)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return what `to_json` has written.

        Raises
        ------
        ValueError, KeyError, TypeError
            When it is cut off or something else.
        """
        told = json.loads(line)
        kind, at, uid = told.pop("kind"), told.pop("at"), told.pop("uid")
        return cls(kind, datetime.fromisoformat(at), told, uid)


def compose(connection: Connection, found: Sequence[Fact], source: Source) -> list[Entry]:
    """Return the messages of facts; what belongs to one transfer is one message."""
    entries = []
    kinds: dict[str, list[Fact]] = {}
    for fact in found:
        kinds.setdefault(fact.kind, []).append(fact)
    for kind, facts in kinds.items():
        for members, message in MAKERS[kind](connection, facts, source) if kind in MAKERS else ():
            uid = hashlib.sha256(" ".join(sorted(fact.uid for fact in members)).encode() + message.event.value.encode())
            entries.append(Entry(uid.hexdigest(), message.to_xml(source)))
    return entries


Made = Iterator[tuple[Sequence[Fact], Message]]


def _transfers(
    facts: Sequence[Fact], about: Mapping[str, Subject], *keys: str
) -> Iterator[tuple[list[Fact], Any, list[Object]]]:
    """Yield the facts of one transfer of one study's instances, what they share, and the objects of their message."""
    groups: dict[tuple[Any, ...], list[Fact]] = {}
    for fact in facts:
        subject = about.get(fact.data["instance"])
        if subject:
            groups.setdefault(
                (*(fact.data.get(key, "") for key in keys), subject.study_uid, subject.patient_id), []
            ).append(fact)
    for (*shared, study_uid, patient_id), members in groups.items():
        classes = Counter(about[fact.data["instance"]].sop_class_uid for fact in members)
        yield members, shared, [study(study_uid, classes), patient(patient_id)]


def _received(connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
    about = subjects(connection, (fact.data["instance"] for fact in facts))
    for members, (sender, address, _), objects in _transfers(facts, about, "sender", "address", "association"):
        participants = (
            Participant(sender, requestor=True, role=codes.SOURCE, ae_title=sender, address=address),
            _us(source, codes.DESTINATION),
        )
        yield members, Message(codes.INSTANCES_TRANSFERRED, "C", members[-1].at, participants, objects)


def _sent(connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
    about = subjects(connection, (fact.data["instance"] for fact in facts))
    keys = ("destination", "ae_title", "address", "outcome", "why")
    for members, (name, title, address, outcome, why), objects in _transfers(facts, about, *keys):
        participants = (
            _us(source, codes.SOURCE, requestor=True),
            Participant(name, requestor=False, role=codes.DESTINATION, ae_title=title, address=address),
        )
        if outcome == "":
            yield members, Message(codes.BEGIN_TRANSFERRING, "E", members[0].at, participants, objects)
        else:
            yield (
                members,
                Message(
                    *(codes.INSTANCES_TRANSFERRED, "R", members[-1].at, participants, objects),
                    outcome=Outcome(outcome),
                    description=why,
                ),
            )


def _retrieved(connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
    groups: dict[tuple[str, str, str], list[Fact]] = {}
    for fact in facts:
        groups.setdefault((fact.data["who"], fact.data["address"], fact.data["study"]), []).append(fact)
    about = subjects_of_studies(connection, {study_uid for _, _, study_uid in groups})
    for (who, address, study_uid), members in groups.items():
        participants = (
            _us(source, codes.SOURCE),
            Participant(who, requestor=True, role=codes.DESTINATION, address=address),
        )
        known = about.get(study_uid)
        objects = [study(study_uid), *([patient(known.patient_id)] if known else [])]
        yield members, Message(codes.INSTANCES_TRANSFERRED, "R", members[-1].at, participants, objects)


def _looked_at(connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
    groups: dict[tuple[str, str, str], list[Fact]] = {}
    for fact in facts:
        groups.setdefault((fact.data["who"], fact.data["address"], fact.data["exam"]), []).append(fact)
    for (who, address, exam), members in groups.items():
        if subject := subject_of_exam(connection, exam):
            participants = (Participant(who, requestor=True, address=address), _us(source))
            objects = (study(subject.study_uid), patient(subject.patient_id))
            yield members, Message(codes.INSTANCES_ACCESSED, "R", members[-1].at, participants, objects)


def _removed(connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
    for fact in facts:
        if subject := subject_of_exam(connection, fact.data["exam"]):
            objects = (study(subject.study_uid), patient(subject.patient_id))
            us, words = _us(source, requestor=True), f"{fact.data['what']}: {fact.data['why']}"
            yield [fact], Message(codes.STUDY_DELETED, "D", fact.at, [us], objects, description=words)


def _searched(_connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
    for fact in facts:
        who = Participant(fact.data["who"], requestor=True, role=codes.SOURCE, address=fact.data["address"])
        service = "UPS-RS" if fact.data["path"].startswith("/workitems") else "QIDO-RS"
        asked = queried(service, f"{fact.data['path']}?{without_names(fact.data['query'])}")
        yield [fact], Message(codes.QUERY, "E", fact.at, (who, _us(source, codes.DESTINATION)), [asked])


def without_names(query: str) -> str:
    """Return a query whose values do not name anybody."""
    pairs = parse_qsl(query, keep_blank_values=True)
    return urlencode([(key, WITHHELD if NAMES.search(key) and value else value) for key, value in pairs], safe="*,")


def _done(connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
    for fact in facts:
        what, who = (
            fact.data["what"],
            Participant(fact.data["who"], requestor=True, address=fact.data.get("address", "")),
        )
        words = " ".join(filter(None, (what, fact.data.get("destination"), fact.data.get("detail"))))
        subject = subject_of_exam(connection, fact.data["exam"]) if fact.data.get("exam") else None
        if subject:
            objects = (study(subject.study_uid), patient(subject.patient_id))
            event, action, kind = codes.PROCEDURE_RECORD, "U", None
        else:
            objects = (node(source.source_id, {"did": words}),)  # type: ignore[assignment]
            event, action, kind = codes.SECURITY_ALERT, "E", codes.SOFTWARE_CONFIGURATION
        yield [fact], Message(event, action, fact.at, (who, _us(source)), objects, kind, description=words)


def _configured(_connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
    for fact in facts:
        kind = codes.USER_SECURITY_CHANGED if fact.data.get("token") else codes.SOFTWARE_CONFIGURATION
        who = Participant(fact.data["who"], requestor=True)
        about = node(source.source_id, {"changed": fact.data["changed"]})
        told = {"description": fact.data["changed"]}
        yield [fact], Message(codes.SECURITY_ALERT, "E", fact.at, (who, _us(source)), [about], kind, **told)


def _alert(kind: codes.Code, outcome: Outcome) -> "Maker":
    def make(_connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
        groups: dict[tuple[str, str, str], list[Fact]] = {}
        for fact in facts:
            key = (fact.data.get("who", ""), fact.data.get("address", ""), fact.data["why"])
            groups.setdefault(key, []).append(fact)
        for (who, address, why), members in groups.items():
            participants = (_us(source), Participant(who, requestor=True, address=address))
            times = f", {len(members)} times" if len(members) > 1 else ""
            about = node(address or who or source.source_id, {"why": why})
            at, words = members[-1].at, f"{why}{times}"
            yield members, Message(codes.SECURITY_ALERT, "E", at, participants, [about], kind, outcome, words)

    return make


def _logged(kind: codes.Code, outcome: Outcome) -> "Maker":
    def make(_connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
        for fact in facts:
            who = Participant(fact.data["who"], requestor=True, address=fact.data["address"])
            told = (kind, outcome, fact.data.get("why", ""))
            yield [fact], Message(codes.USER_AUTHENTICATION, "E", fact.at, (who, _us(source)), (), *told)

    return make


def _application(kind: codes.Code) -> "Maker":
    def make(_connection: Connection, facts: Sequence[Fact], source: Source) -> Made:
        for fact in facts:
            launcher = Participant(fact.data["who"], requestor=True, role=codes.APPLICATION_LAUNCHER)
            participants = (_us(source, codes.APPLICATION), launcher)
            yield [fact], Message(codes.APPLICATION_ACTIVITY, "E", fact.at, participants, kind=kind)

    return make


def _used(_connection: Connection, facts: Sequence[Fact], _source: Source) -> Made:
    for fact in facts:
        who = Participant(fact.data["who"], requestor=True)
        yield [fact], Message(codes.AUDIT_LOG_USED, "R", fact.at, [who], [resource("urn:mammonode:audit")])


def _us(source: Source, role: codes.Code | None = None, *, requestor: bool = False) -> Participant:
    return Participant(f"{source.source_id}:{source.process}", requestor, role, source.ae_title)


Maker = Callable[[Connection, Sequence[Fact], Source], Made]
MAKERS: Final[Mapping[str, Maker]] = {
    "received": _received,
    "sent": _sent,
    "retrieved": _retrieved,
    "looked at": _looked_at,
    "removed": _removed,
    "searched": _searched,
    "done": _done,
    "configured": _configured,
    "caller refused": _alert(codes.NODE_AUTHENTICATION, Outcome.MINOR),
    "function refused": _alert(codes.RESTRICTED_FUNCTION, Outcome.MINOR),
    "messages lost": _alert(codes.RECORDING_STOPPED, Outcome.SERIOUS),
    "login": _logged(codes.LOGIN, Outcome.SUCCESS),
    "login failed": _logged(codes.LOGIN, Outcome.MINOR),
    "logout": _logged(codes.LOGOUT, Outcome.SUCCESS),
    "start": _application(codes.APPLICATION_START),
    "stop": _application(codes.APPLICATION_STOP),
    "trail used": _used,
}
"""By the kind of fact."""
