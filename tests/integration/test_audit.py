"""The audit trail: every kind of message by the schema, a chain that shows tampering, a spool that survives, receivers."""

import base64
import json
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from socket import SHUT_RDWR, create_server
from typing import Any

import httpx2
import pytest
from lxml import etree
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation
from sqlalchemy import Connection, Engine, RowMapping, delete, insert, update
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

import storage.audit
from config.settings import Audit, Caller, Dicom, Http, Settings, Storage
from node.audit.commands import operator
from node.audit.facts import MAKERS, Fact, compose, without_names
from node.audit.hooks import Audited
from node.audit.messages import Source
from node.audit.receivers import Telling
from node.audit.spool import Spool
from node.audit.trail import Trail
from node.cli import app
from node.errors import AssociationRejected
from node.parts import Parts, open_parts
from node.scu import Item, Peer, Sender
from node.serving import Serving
from storage.audit import Entry, Link, append, digest_of, faults, head, kept
from storage.database import open_database, reading, writing
from storage.tables import audit, audit_head
from tests.authority import Authority
from tests.databases import PostgreSQLDatabases
from tests.doors import ORIGIN, Room, an_image
from tests.peers import eventually
from tests.records import NOON

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parents[1] / "audit_message.rng"))
SOURCE = Source("mammonode", "hospital", "MAMMONODE", "7")
NAME = "MARKED^NAME"
PATIENT = "PID-4711"


def codes(message: str) -> tuple[str, str, str]:
    """Return EventID, EventTypeCode ('' without) and EventOutcomeIndicator of a message, which is by the schema."""
    root = etree.fromstring(message)
    SCHEMA.assertValid(root)
    kind = root.find("EventIdentification/EventTypeCode")
    event = root.find("EventIdentification")
    return (
        event.find("EventID").get("csd-code"),
        "" if kind is None else kind.get("csd-code"),
        event.get("EventOutcomeIndicator"),
    )


def told(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return [each.message for each in kept(connection)]


# --- messages


def test_every_kind_of_fact_makes_a_message_by_the_schema(room: Room) -> None:
    image = an_image(PatientName=NAME, PatientID=PATIENT)
    exam = room.receive(image).exam_uid
    who: dict[str, Any] = {"who": "radio\x0blogist <&>", "address": "192.0.2.7"}
    uid, study = str(image.SOPInstanceUID), str(image.StudyInstanceUID)
    where = {"destination": "pacs", "ae_title": "PACS", "address": "pacs.example.org"}
    facts = {
        "received": {"instance": uid, "sender": "MODALITY", "address": "192.0.2.8", "association": "a1"},
        "sent": {"instance": uid, **where, "outcome": "8", "why": "refused with A700H"},
        "retrieved": {**who, "study": study},
        "looked at": {**who, "exam": exam},
        "removed": {"exam": exam, "what": "sources", "why": "older than 30 days"},
        "searched": {**who, "path": "/studies", "query": f"PatientName={NAME}&PatientID={PATIENT}"},
        "done": {**who, "what": "retry", "exam": exam, "destination": None, "detail": "revision 1"},
        "configured": {"who": "root", "changed": "dicom.callers"},
        "caller refused": {**who, "why": "calling AE title not recognised"},
        "function refused": {**who, "why": "POST /exams/{exam}/retry"},
        "messages lost": {"why": "3 facts did not fit"},
        "login": who,
        "login failed": {**who, "who": "", "why": "wrong credentials"},
        "logout": who,
        "start": {"who": "root"},
        "stop": {"who": "root"},
        "trail used": {"who": "root"},
    }
    assert set(facts) == set(MAKERS)
    with reading(room.engine) as connection:
        made = {kind: compose(connection, [Fact.now(kind, NOON, **data)], SOURCE) for kind, data in facts.items()}
        began = compose(connection, [Fact.now("sent", NOON, instance=uid, **where, outcome="", why="")], SOURCE)
        asked = compose(connection, [Fact.now("searched", NOON, **who, path="/workitems", query="")], SOURCE)
        lane = compose(connection, [Fact.now("done", NOON, **who, what="pause", destination="pacs")], SOURCE)
    assert {kind: codes(entry.message) for kind, [entry] in made.items()} == {
        "received": ("110104", "", "0"),
        "sent": ("110104", "", "8"),
        "retrieved": ("110104", "", "0"),
        "looked at": ("110103", "", "0"),
        "removed": ("110105", "", "0"),
        "searched": ("110112", "", "0"),
        "done": ("110111", "", "0"),
        "configured": ("110113", "110131", "0"),
        "caller refused": ("110113", "110126", "4"),
        "function refused": ("110113", "110132", "4"),
        "messages lost": ("110113", "110133", "8"),
        "login": ("110114", "110122", "0"),
        "login failed": ("110114", "110122", "4"),
        "logout": ("110114", "110123", "0"),
        "start": ("110100", "110120", "0"),
        "stop": ("110100", "110121", "0"),
        "trail used": ("110101", "", "0"),
    }
    assert codes(began[0].message) == ("110102", "", "0")
    assert codes(lane[0].message) == ("110113", "110131", "0")
    assert 'ParticipantObjectID="UPS-RS"' in asked[0].message
    assert 'ParticipantObjectID="QIDO-RS"' in made["searched"][0].message
    everything = "".join(entry.message for [entry] in made.values())
    assert PATIENT in everything
    assert f'UID="{DigitalMammographyXRayImageStorageForPresentation}" NumberOfInstances="1"' in everything
    query = etree.fromstring(made["searched"][0].message).findtext(".//ParticipantObjectQuery")
    assert b"PatientID=PID-4711" in base64.b64decode(query)
    assert "MARKED" not in everything + base64.b64decode(query).decode()


def test_names_in_queries_are_withheld_under_every_spelling() -> None:
    for key in ("PatientName", "patientname", "00100010", "ReferringPhysicianName", "OperatorsName", "00080090"):
        assert without_names(f"{key}=DOE*&limit=5") == f"{key}=*withheld*&limit=5"


def test_instances_of_one_transfer_are_one_message(room: Room) -> None:
    first, second = an_image(), an_image(SOPInstanceUID="1.2.3.4")
    for image in (first, second):
        room.receive(image)
    facts = [
        Fact.now(
            "received", NOON, instance=str(image.SOPInstanceUID), sender="MG1", address="192.0.2.8", association=by
        )
        for image, by in ((first, "a"), (second, "a"), (second, "b"))
    ]
    with reading(room.engine) as connection:
        messages = [entry.message for entry in compose(connection, facts, SOURCE)]
    assert ['NumberOfInstances="2"' in message for message in messages] == [True, False]


# --- the chain


def a_chain(engine: Engine, number: int = 5) -> Link:
    with writing(engine) as connection:
        return append(connection, [Entry(f"uid{each}", f"<m n='{each}'/>") for each in range(number)], NOON)


def found(engine: Engine, anchor: Link | None = None) -> list[str]:
    with reading(engine) as connection:
        return list(faults(connection, anchor))


def test_a_chain_that_was_left_alone_is_whole_and_takes_each_message_once(engine: Engine) -> None:
    last = a_chain(engine)
    assert found(engine, last) == []
    with writing(engine) as connection:
        again = append(connection, [Entry("uid4", "<again/>"), Entry("uid5", "<new/>")], NOON)
    assert again.number == 6
    assert found(engine, last) == []


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (update(audit).where(audit.c.number == 3).values(message="<other/>"), "record 3 was changed, or"),
        (
            update(audit).where(audit.c.number == 3).values(recorded_at=NOON + timedelta(seconds=1)),
            "record 3 was changed, or",
        ),
        (delete(audit).where(audit.c.number.in_([2, 3])), "records 2 to 3 are missing"),
        (delete(audit).where(audit.c.number > 3), "records 4 to 5 are missing at the end"),
        (update(audit_head).values(number=4), "the last record is not the one that was added last"),
    ],
)
def test_what_was_changed_taken_out_or_cut_off_shows(engine: Engine, harm: Any, fault: str) -> None:
    a_chain(engine)
    with writing(engine) as connection:
        connection.execute(harm)
    assert [each for each in found(engine) if each.startswith(fault)]


def test_a_chain_that_grows_while_it_is_looked_at_is_whole(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    last = a_chain(engine)

    def rows(connection: Connection, after: int) -> Sequence[RowMapping]:
        found = read_rows(connection, after)
        if not found and after == last.number:
            with writing(engine) as other:
                append(other, [Entry("meanwhile", "<m/>")], NOON)
        return found

    read_rows = storage.audit._rows  # noqa: SLF001 (between the rows and the head nothing else can be put)
    monkeypatch.setattr("storage.audit._rows", rows)
    assert found(engine, last) == []


def test_a_record_that_was_put_behind_the_last_one_shows(engine: Engine) -> None:
    last = a_chain(engine)
    row = {"number": 6, "uid": "forged", "recorded_at": NOON, "message": "<forged/>"}
    digest = digest_of(last.digest, 6, "forged", NOON, "<forged/>")
    with writing(engine) as connection:
        connection.execute(insert(audit).values(**row, digest=digest))
    assert found(engine) == ["the last record is not the one that was added last"]


def test_a_chain_made_anew_does_not_have_the_link_that_was_noted_elsewhere(engine: Engine) -> None:
    noted = a_chain(engine)
    with writing(engine) as connection:
        connection.execute(delete(audit))
        connection.execute(update(audit_head).values(number=0, digest=""))
        append(connection, [Entry(f"uid{each}", "<forged/>") for each in range(5)], NOON)
    assert found(engine) == []
    assert found(engine, noted) == ["record 5 is not the one whose digest was noted"]


def test_two_that_append_at_once_make_one_chain(engine: Engine) -> None:
    def add(name: str) -> None:
        for number in range(10):
            with writing(engine) as connection:
                append(connection, [Entry(f"{name}{number}", "<m/>")], NOON)

    threads = [threading.Thread(target=add, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found(engine) == []
    with reading(engine) as connection:
        assert head(connection).number == 20


# --- the spool


def a_trail(room: Room, most: int = 1 << 20) -> Trail:
    return Trail(Spool(room.store.root / "audit", most), room.engine, Settings, lambda: NOON)


def test_what_a_killed_process_has_left_is_added_once(room: Room) -> None:
    a_trail(room).note("start", who="root")
    [left] = (room.store.root / "audit").iterdir()
    with left.open("a") as file:
        file.write('{"kind": "stop", "at": "2026-')
    whole = left.read_bytes()
    later = a_trail(room)
    assert later.drain() == 1
    assert list((room.store.root / "audit").iterdir()) == []
    left.write_bytes(whole)  # as if the crash had come between the commit and the removal
    assert later.drain() == 1
    assert [codes(message)[1] for message in told(room.engine)] == ["110120"]


def test_nothing_waits_for_the_trail_and_what_did_not_fit_is_counted(room: Room) -> None:
    trail = a_trail(room, most=600)
    image = an_image()
    with capture_logs() as logs:
        receipt = Audited(room.intake, trail).receive(room.incoming(image), None, ORIGIN)
        for _ in range(9):
            trail.note("start", who="root")
    assert receipt.instance_uid == image.SOPInstanceUID
    assert [line["event"] for line in logs if line["log_level"] == "critical"] == ["audit messages lost"]
    trail.drain()
    assert [codes(message) for message in told(room.engine)].count(("110113", "110133", "8")) == 1


def test_what_was_lost_is_counted_however_full_the_place_is_and_told_once(tmp_path: Path) -> None:
    spool, numbers = Spool(tmp_path / "audit", most=300), []
    fact = Fact.now("start", NOON, who="root")

    def told(number: int) -> Fact:
        numbers.append(number)
        return fact

    kept = sum(spool.put(fact) for _ in range(9))
    spool.put_what_was_lost(told)
    spool.put_what_was_lost(told)
    assert 0 < kept < 9
    assert numbers == [9 - kept]
    assert sum(len(facts) for _, facts in spool.batches()) == kept + 1


# --- receivers


@dataclass
class SyslogServer:
    """A syslog server over TLS (RFC 5425) that keeps what it is sent."""

    port: int
    messages: list[str] = field(default_factory=list)
    connection: ssl.SSLSocket | None = None

    def hang_up(self) -> None:
        """Close the connection that is open, and see that the other side has it."""
        assert self.connection
        self.connection.shutdown(SHUT_RDWR)
        self.connection = None

    def serve(self, connection: ssl.SSLSocket) -> None:
        self.connection = connection
        with connection, connection.makefile("rb") as stream:
            while length := b"".join(iter(lambda: stream.read(1), b" ")) if stream.peek(1) else b"":
                self.messages.append(stream.read(int(length)).decode())


@contextmanager
def a_syslog_server(authority: Authority) -> Iterator[SyslogServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.signed("syslog"))
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    with create_server(("127.0.0.1", 0)) as listening:
        server = SyslogServer(listening.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    plain, _ = listening.accept()
                    server.serve(context.wrap_socket(plain, server_side=True))
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server


def test_receivers_are_told_everything_once_and_in_order_when_they_are_there(engine: Engine, tmp_path: Path) -> None:
    a_chain(engine, 3)
    authority = Authority(tmp_path, "ours")
    file = tmp_path / "audit.log"
    with a_syslog_server(authority) as server:
        keys = {"ca": str(authority.path), "certificate": str(authority.signed("node"))}
        there = Audit(syslog_host="127.0.0.1", syslog_port=server.port, file=str(file), **keys)
        settings = [there.model_copy(update={"syslog_port": 1})]
        telling = Telling(engine, lambda: settings[0])
        with capture_logs() as logs:
            assert not telling.tell()
            assert not telling.tell()
            assert telling.waiting() == {"syslog": 3, "file": 0}
            settings[0] = there
            assert telling.tell()
        assert [line["event"] for line in logs] == ["audit messages not taken", "audit messages taken again"]
        with writing(engine) as connection:
            append(connection, [Entry("late", "<late/>")], NOON)
        assert telling.tell()
        assert telling.waiting() == {"syslog": 0, "file": 0}
        assert eventually(lambda: len(server.messages) == 4)
        telling.start()
        telling.stop()
    assert server.messages[0].startswith("<85>1 ")
    assert [message.rpartition("\ufeff")[2] for message in server.messages] == [
        *(f"<m n='{number}'/>" for number in range(3)),
        "<late/>",
    ]
    assert len(file.read_text(encoding="utf-8").splitlines()) == 4


def test_a_server_that_has_hung_up_is_called_anew_before_it_is_told(engine: Engine, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    with a_syslog_server(authority) as server:
        keys = {"ca": str(authority.path), "certificate": str(authority.signed("node"))}
        telling = Telling(engine, lambda: Audit(syslog_host="127.0.0.1", syslog_port=server.port, **keys))
        for number in range(3):
            with writing(engine) as connection:
                append(connection, [Entry(f"uid{number}", f"<m n='{number}'/>")], NOON)
            assert telling.tell()
            assert eventually(lambda: len(server.messages) == number + 1)  # noqa: B023
            server.hang_up()
        telling.start()
        telling.stop()


# --- a node


def test_a_node_keeps_who_sent_asked_and_was_refused(tmp_path: Path) -> None:
    settings = Settings(
        dicom=Dicom(port=0, callers=(Caller(ae_title="MODALITY"),)),
        http=Http(port=0),
        storage=Storage(folder=tmp_path / "data", max_used_percent=100, min_free_gb=0),
    )
    node = Serving(settings)
    node.open()
    path = tmp_path / "image.dcm"
    image = an_image(PatientName=NAME, PatientID=PATIENT)
    image.save_as(path, enforce_file_format=True)
    door = Peer("node", "MAMMONODE", "127.0.0.1", node.dicom_port)
    try:
        assert [each.status for each in Sender(Dicom(ae_title="MODALITY")).send(door, [Item.of(path)])] == [0]
        with pytest.raises(AssociationRejected):
            list(Sender(Dicom(ae_title="STRANGER")).send(door, [Item.of(path)]))
        with httpx2.Client(base_url=f"http://127.0.0.1:{node.web_port}", timeout=60) as client:
            assert client.get("/dicom-web/studies", params={"PatientName": "MARKED*"}).status_code in {200, 204}
            assert client.get("/dicom-web/studies", headers={"Authorization": "Bearer mmn_wrong"}).status_code == 401
            assert client.post("/login", data={"token": "mmn_wrong"}).status_code in {401, 403}
        node.use(settings.model_copy(update={"audit": Audit(site_id="hospital")}))
        expected = {
            ("110100", "110120", "0"),  # start
            ("110104", "", "0"),  # received
            ("110113", "110126", "4"),  # the stranger
            ("110112", "", "0"),  # the query
            ("110114", "110122", "4"),  # the wrong token
            ("110113", "110131", "0"),  # the settings
        }

        def found() -> set[tuple[str, str, str]]:
            node.trail.drain()
            return {codes(message) for message in told(node.parts.engine)}

        # Whom the door refuses it tells so before it notes it.
        assert eventually(lambda: expected <= found()), expected - found()
    finally:
        node.close()
    everything = "".join(told(node.parts.engine))
    assert PATIENT in everything
    assert "MARKED" not in everything
    node.parts.engine.dispose()


def test_the_commands_look_at_the_trail_verify_it_and_are_in_it_themselves(tmp_path: Path) -> None:
    config = tmp_path / "mammonode.toml"
    config.write_text(f'[storage]\nfolder = "{tmp_path / "data"}"\n')

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(config)])

    added = run("tokens", "add", "viewer", "--scope", "read")
    verified = run("audit", "verify")
    assert verified.exit_code == 0, verified.output
    noted = verified.output.rpartition("Last link: ")[2].strip()
    assert run("audit", "list").exit_code == 0
    rows = json.loads(run("audit", "list", "--json").stdout)
    assert [row["event"] for row in rows] == ["Security Alert", "Audit Log Used", "Audit Log Used"]
    assert {row["who"] for row in rows} == {operator()}
    first = json.loads(run("audit", "list", "--json", "--after", "0", "--limit", "1").stdout)
    assert [row["number"] for row in first] == [1]
    messages = run("audit", "list", "--xml").output.splitlines()
    assert codes(messages[0]) == ("110113", "110137", "0")
    assert codes(messages[-1]) == ("110101", "", "0")
    assert added.stdout.strip() not in "".join(messages)
    assert run("audit", "verify", "--anchor", noted).exit_code == 0
    assert run("audit", "verify", "--anchor", "5").exit_code == 2
    engine = open_database(f"sqlite:///{tmp_path / 'data' / 'mammonode.sqlite'}")
    with engine.begin() as connection:
        connection.execute(delete(audit).where(audit.c.number == 2))
    engine.dispose()
    broken = run("audit", "verify")
    assert broken.exit_code == 1
    assert "records 2 to 2 are missing" in broken.output


def test_the_trail_can_be_looked_at_where_the_database_takes_no_writes(
    tmp_path: Path, postgresql_databases: PostgreSQLDatabases, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Parts] = []

    def opening(settings: Settings) -> Parts:
        opened.append(open_parts(settings))
        return opened[-1]

    monkeypatch.setattr("node.cli.audit.open_parts", opening)
    config, url = tmp_path / "mammonode.toml", postgresql_databases.fresh()
    standby = f"{url}&options=-cdefault_transaction_read_only%3Don"
    config.write_text(f'[storage]\nfolder = "{tmp_path / "data"}"\ndatabase = "{standby}"\n')
    for command in (["verify", "--json"], ["list", "--json"]):
        looked = CliRunner().invoke(app, ["audit", *command, "--config", str(config)])
        assert looked.exit_code == 0, looked.output
    engine = open_database(url)
    settings = Settings(storage=Storage(folder=tmp_path / "data"))
    assert Trail(Spool(tmp_path / "data" / "audit"), engine, lambda: settings, lambda: NOON).drain() == 2
    assert [codes(message)[0] for message in told(engine)] == ["110101"] * 2
    for each in (engine, *(parts.engine for parts in opened)):
        each.dispose()
