"""The commands that list what the node holds, purge, and the doctor, whose file has no patients' data."""

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import BasicTextSRStorage
from sqlalchemy import Engine, insert, select, update
from typer.testing import CliRunner, Result

from config.settings import Caller, Destination, Dicom, Settings, Storage
from node.audit.commands import operator
from node.audit.facts import Fact, compose
from node.audit.messages import Source
from node.cli import app
from node.doctor import examine
from node.errors import HandshakeFailed
from node.intake import utc_now
from node.logs import configure
from node.tls import Fault
from storage.audit import append
from storage.database import open_database, reading, writing
from storage.senders import Context, News, add_news
from storage.states import DeliveryState
from storage.tables import HeaderText, actions, deliveries, exams, instances, jobs, lanes, metadata, results, tokens
from tests.doors import Room, a_room, an_image
from tests.pacs import waiting_results

MARK = "QZXMARKED"
PATIENT_ID = "PID-QZX-0815"
Run = Callable[..., Result]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """The database of the settings below."""
    from storage.database import migrate

    opened = open_database(f"sqlite:///{tmp_path / 'store' / 'mammonode.sqlite'}")
    migrate(opened)
    return opened


@pytest.fixture
def room(tmp_path: Path, engine: Engine) -> Room:
    """A store with an image, four results that wait for a destination, and a sender that is not known."""
    found = a_room(tmp_path, engine)
    image = an_image(PatientName=f"{MARK}^ANNA", PatientID=PATIENT_ID, StudyDescription=MARK)
    found.receive(image)
    waiting_results(found.store, engine, ["pacs"])
    refused = News(utc_now(), contexts=(Context("CT Image Storage", ("Implicit VR Little Endian",), None),))
    refused.tally.associations_refused = 1
    refused.tally.refuse("association rejected: calling AE title not recognised")
    with writing(engine) as connection:
        add_news(connection, {("STRANGER", "192.0.2.9"): refused})
    return found


@pytest.fixture
def run(tmp_path: Path, room: Room) -> Run:
    config = tmp_path / "mammonode.toml"
    config.write_text(
        f'[storage]\nfolder = "{tmp_path / "store"}"\n[dicom]\ncallers = [{{ ae_title = "MG1" }}]\n'
        '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 1\n'
    )

    configure(stream=sys.stderr)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(config)])

    return invoke


def listed(run: Run, *arguments: str) -> Any:
    assert run(*arguments).exit_code == 0
    return json.loads(run(*arguments, "--json").stdout)


def test_what_the_node_holds_is_listed(run: Run, room: Room) -> None:
    [job] = listed(run, "jobs")
    assert job["state"] in {"queued", "running", "done"}
    assert listed(run, "jobs", job["exam"]) == [job]
    assert listed(run, "jobs", "--state", "dead") == []
    waiting = listed(run, "deliveries", "--state", "waiting", "--destination", "pacs")
    assert len(waiting) == len(room_results(room))
    assert [row["delivery"] for row in waiting] == sorted((row["delivery"] for row in waiting), reverse=True)
    assert listed(run, "deliveries", "--limit", "1") == waiting[:1]
    assert listed(run, "deliveries", job["exam"]) == waiting
    assert listed(run, "deliveries", "--destination", "other") == []
    [place] = listed(run, "destinations")
    assert (place["destination"], place["where"], place["waiting"]) == ("pacs", "PACS at 127.0.0.1:1", len(waiting))
    [sender] = listed(run, "senders")
    assert (sender["sender"], sender["in callers"], sender["refused associations"]) == ("STRANGER", False, 1)
    [sender] = listed(run, "senders", "--contexts")
    assert sender["contexts"][0]["abstract_syntax"] == "CT Image Storage"
    assert run("jobs", "nothing").exit_code == 1


def test_what_was_refused_is_told_in_the_list_of_exams(run: Run, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert [exam["not_got"] for exam in listed(run, "exams")] == [{}, {}]
    with writing(room.engine) as connection:
        connection.execute(update(deliveries).values(state=DeliveryState.EXPIRED))
    kinds = sorted({row["kind"] for row in listed(run, "deliveries")})
    assert {"pacs": kinds} in [exam["not_got"] for exam in listed(run, "exams")]
    assert f"pacs has not got {', '.join(kinds)}" in run("exams").stdout


def test_what_strangers_call_themselves_is_shown_and_tells_the_terminal_nothing(
    run: Run, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    now, who = utc_now(), {"[/b]": "[/b]", "[red]X": "[red]X", "\x1b]0;X\x07": r"\x1b]0;X\x07"}
    facts = [Fact.now("caller refused", now, who=name, address="192.0.2.7", why="unknown") for name in list(who)[:2]]
    with writing(room.engine) as connection:
        add_news(connection, {(name, "192.0.2.7"): News(now) for name in who})
        append(connection, compose(connection, facts, Source("node", "", "NODE", "1")), now)
    senders, audit = run("senders"), run("audit", "list")
    assert (senders.exit_code, audit.exit_code) == (0, 0)
    assert [name for name in who.values() if name not in senders.stdout] == []
    assert [fact.data["who"] for fact in facts if fact.data["who"] not in audit.stdout] == []


def room_results(room: Room) -> list[int]:
    with reading(room.engine) as connection:
        return list(connection.execute(select(deliveries.c.id)).scalars())


def test_purge_tells_first_and_keeps_to_the_rules_of_retention(run: Run, room: Room) -> None:
    long_ago = utc_now() - timedelta(days=40)
    with writing(room.engine) as connection:
        answered = exams.c.id.in_(select(jobs.c.exam_id))
        connection.execute(update(exams).values(last_image_at=long_ago))
        connection.execute(update(exams).where(answered).values(state="answered"))
        connection.execute(update(jobs).values(state="done"))
    # The destination does not have it yet; the other exam still collects.
    kept = {"destination": "pacs", "kind": "SR", "state": "waiting", "exams": 1}
    assert kept in json.loads(run("purge", "--days", "30", "--results", "--json").stdout)["kept"]
    assert json.loads(run("purge", "--days", "50", "--results", "--json").stdout)["kept"] == []
    assert "Nothing may be removed" in run("purge", "--days", "30", "--results", "--yes").output
    assert "Nothing may be removed" in run("purge", "--days", "30", "--yes").output
    with writing(room.engine) as connection:
        sent = {"state": DeliveryState.SENT, "sent_at": long_ago, "finished_at": long_ago}
        connection.execute(update(deliveries).values(sent))
    before = room.files()
    assert len(listed(run, "purge", "--days", "30", "--results")["exams"]) == 1
    assert listed(run, "purge", "--days", "50", "--results") == {
        "exams": [],
        "objects_of_no_exam": 0,
        "files_removed": 0,
        "kept": [],
    }
    assert room.files() == before
    done = json.loads(run("purge", "--days", "30", "--results", "--yes", "--json").stdout)
    assert len(before) - len(room.files()) == done["files_removed"] >= len(room_results(room))
    assert json.loads(run("audit", "list", "--json").stdout)[0]["outcome"].startswith("purge: results of 1 exam ")


def test_purge_tells_which_deliveries_keep_exams(run: Run, room: Room) -> None:
    with writing(room.engine) as connection:
        connection.execute(update(exams).values(last_image_at=utc_now() - timedelta(days=40), state="answered"))
        connection.execute(update(jobs).values(state="done"))
        connection.execute(update(deliveries).values(state=DeliveryState.COMMITTED))
        segmentations = select(results.c.uid).where(results.c.kind == "SEG")
        refused = deliveries.c.result_uid.in_(segmentations)
        connection.execute(update(deliveries).where(refused).values(state=DeliveryState.REFUSED))
    told = run("purge", "--days", "30", "--results", "--yes")
    line = "Kept: 1 exam, for SEG to pacs refused: mammonode deliveries --state refused --destination pacs\n"
    assert line in told.stderr
    assert "mammonode send EXAM" in told.stderr
    assert told.stderr.count("Kept") == 1
    number = len(listed(run, "deliveries", "--state", "refused"))
    assert listed(run, "waive", "--destination", "pacs")["waived"] == 0
    done = run("waive", "--destination", "pacs", "--why", "it takes no SEG", "--yes")
    assert done.stdout == f"Waived {number} deliveries of 1 exam: {number} SEG to pacs refused.\n"
    assert "for SEG to pacs refused" not in run("purge", "--days", "30", "--results").stderr
    assert len(listed(run, "purge", "--days", "30", "--results")["exams"]) == 1


def test_waive_tells_first_and_keeps_who_did_it_and_why(run: Run, room: Room) -> None:
    exam = listed(run, "deliveries")[0]["exam"]
    assert "Nothing may be waived" in run("waive", exam, "--state", "refused").output
    with writing(room.engine) as connection:
        connection.execute(update(deliveries).values(state=DeliveryState.REFUSED, message="not supported"))
    total, one = len(room_results(room)), ("waive", exam[:6], "--kind", "SR")
    told = listed(run, *one)
    assert told == {
        "waived": 0,
        "found": [{"exam": exam, "destination": "pacs", "kind": "SR", "state": "refused", "deliveries": 1}],
    }
    assert "1 delivery of 1 exam: 1 SR to pacs refused; nothing was waived. Add --why and --yes" in run(*one).stderr
    assert len(listed(run, "deliveries", "--state", "refused")) == total
    for refused in (("waive", "--yes", "--why", "x"), (*one, "--yes"), (*one, "--yes", "--why", " ")):
        assert run(*refused).exit_code == 2
    done = json.loads(run(*one, "--yes", "--why", "no reports", "--json").stdout)
    assert done == told | {"waived": 1}
    [waived] = listed(run, "deliveries", "--state", "waived")
    assert waived["message"] == f"not supported; waived by {operator()}: no reports"
    assert json.loads(run("audit", "list", "--json").stdout)[0]["outcome"].startswith(
        "waive 1 SR to pacs refused: no re"
    )
    with reading(room.engine) as connection:
        [action] = connection.execute(select(actions.c.what, actions.c.who, actions.c.detail))
    assert tuple(action) == ("waive", operator(), "1 SR to pacs refused: no reports")
    assert run(*one, "--yes", "--why", "again").stdout.startswith("Nothing may be waived")
    assert run("send", exam).exit_code == 0
    assert listed(run, "deliveries", "--state", "waived") == []


def test_what_is_waived_and_cannot_be_recorded_is_not_waived(
    run: Run, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LookupError

    with writing(room.engine) as connection:
        connection.execute(update(deliveries).values(state=DeliveryState.REFUSED))
    monkeypatch.setattr("node.cli.waive.record_done", fail)
    assert isinstance(run("waive", "--destination", "pacs", "--why", "x", "--yes").exception, LookupError)
    assert listed(run, "deliveries", "--state", "waived") == []


def test_send_leaves_alone_what_a_destination_is_not_to_get_any_more(run: Run, tmp_path: Path) -> None:
    exam = listed(run, "deliveries")[0]["exam"]
    with (tmp_path / "mammonode.toml").open("a") as settings:
        settings.write('objects = ["SR"]\n')
    done = run("send", exam)
    assert (done.exit_code, "1 delivery waits" in done.stdout) == (0, True)
    assert "Left alone, for the settings do not name them any more: SEG to pacs." in done.stderr


def test_purge_tells_of_objects_that_belong_to_no_exam(run: Run, room: Room) -> None:
    room.receive(an_image(SOPClassUID=BasicTextSRStorage, SOPInstanceUID="1.2.99", Modality="SR", Rows=None))
    with writing(room.engine) as connection:
        connection.execute(update(instances).values(received_at=utc_now() - timedelta(days=40)))
    before = room.files()
    assert "0 exams and 1 object of no exam; nothing was removed." in run("purge", "--days", "30").output
    assert "Nothing may be removed" in run("purge", "--days", "30", "--results").output
    assert room.files() == before
    assert "Removed 1 file of 0 exams and 1 object of no exam." in run("purge", "--days", "30", "--yes").output
    outcome = json.loads(run("audit", "list", "--json").stdout)[0]["outcome"]
    assert outcome == "purge: images of 0 exams and 1 object of no exam older than 30 days"


def test_an_age_that_no_calendar_has_is_a_fault_of_the_command(run: Run) -> None:
    assert run("purge", "--days", "1000000").exit_code == 2


def exam_with_results(room: Room) -> str:
    with reading(room.engine) as connection:
        found = connection.execute(select(exams.c.uid).where(exams.c.id.in_(select(jobs.c.exam_id))))
        return str(found.scalar_one())


def test_nothing_is_sent_again_to_who_is_not_in_the_settings(run: Run, room: Room) -> None:
    exam = exam_with_results(room)
    [one, *_] = room_results(room)
    with writing(room.engine) as connection:
        connection.execute(update(deliveries).values(state=DeliveryState.COMMITTED))
        connection.execute(update(deliveries).where(deliveries.c.id == one).values(destination="old-pacs"))
    refused = run("send", exam, "--destination", "old-pacs")
    assert (refused.exit_code, "'old-pacs'" in refused.output) == (1, True)
    sent = run("send", exam)
    assert (sent.exit_code, "any more: old-pacs." in sent.output) == (0, True)
    with reading(room.engine) as connection:
        states = dict(connection.execute(select(deliveries.c.destination, deliveries.c.state).distinct()).all())
    assert states == {"old-pacs": DeliveryState.COMMITTED, "pacs": DeliveryState.WAITING}


def test_a_hold_that_ends_with_nothing_to_send_is_told_to_have_ended(run: Run, room: Room) -> None:
    exam = exam_with_results(room)
    with writing(room.engine) as connection:
        connection.execute(update(exams).values(held=True))
        connection.execute(update(deliveries).values(state=DeliveryState.RECALLED))
    released = run("send", exam, "--release")
    assert (released.exit_code, "is held no more, and 0 deliveries" in released.output) == (0, True)
    assert run("send", exam).exit_code == 1


def test_the_doctors_file_has_no_mark_that_was_planted_everywhere(tmp_path: Path, room: Room) -> None:
    said = f"{MARK} {PATIENT_ID}"
    with writing(room.engine) as connection:
        connection.execute(insert(lanes).values(destination="pacs", paused_at=utc_now(), paused_by=said, reason=said))
        row = {"name": said, "digest": "0" * 64, "scopes": ["read"], "created_at": utc_now()}
        connection.execute(insert(tokens).values(row))
        connection.execute(insert(actions).values(what="retry", who=said, detail=said, done_at=utc_now()))
        connection.execute(update(deliveries).values(attempts=3, state="refused", status_code=0xC001))
        connection.execute(update(jobs).values(attempts=3, error=f"ValueError: {said}"))
        strange = News(utc_now(), contexts=(Context(said, (said,), None),))
        strange.tally.refuse("association rejected: calling AE title not recognised")
        add_news(connection, {(said, "192.0.2.10"): strange})
        # Whatever came from a header, wherever it is kept: keys and addresses are what the file is about.
        for table in metadata.sorted_tables:
            columns = [
                column.name
                for column in table.columns
                if isinstance(column.type, HeaderText)
                and not column.primary_key
                and column.name not in {"error", "issuer"}
            ]
            if columns:
                connection.execute(update(table).values(dict.fromkeys(columns, said)))
    entry = {"MAMMONODE_EVENT": "job failed", "MAMMONODE_EXAM": "ab12", "MAMMONODE_MESSAGE": said, "MESSAGE": said}
    lines = [json.dumps(entry | {"PRIORITY": "3"}), json.dumps({"MESSAGE": said, "MAMMONODE_EVENT": said}), said]
    settings = Settings(
        dicom=Dicom(callers=(Caller(ae_title="MG1"),)),
        storage=Storage(folder=tmp_path / "store", database=f"sqlite:///{tmp_path / 'store' / 'mammonode.sqlite'}"),
        destinations=(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1),),
    )
    told = examine(settings, utc_now(), lambda: "\n".join(lines))
    text = json.dumps(told, default=str)
    assert MARK not in text
    assert PATIENT_ID not in text
    assert told["journal"] == [{"at": "", "unit": "", "priority": "3", "event": "job failed", "exam": "ab12"}]
    assert told["jobs"]["last_failures"][0]["error"] == "ValueError"
    assert {each["status"] for each in told["deliveries"]["last_failures"]} == {"C001H"}
    assert "CT Image Storage" in [context for each in told["senders"] for context in each["contexts_not_taken"]]
    assert "no UID" in [context for each in told["senders"] for context in each["contexts_not_taken"]]
    assert told["settings"]["storage"]["database"] == "**********"
    assert told["database"] == {"kind": "sqlite", "schema_is_current": True}
    assert told["versions"]["pynetdicom"]
    assert not [name for name, part in told.items() if isinstance(part, str) and "Error" in part]


def test_the_doctor_tells_why_a_result_is_not_sent_in_our_words_alone(tmp_path: Path, room: Room) -> None:
    said = f"{HandshakeFailed(f'{MARK}: {Fault.EXPIRED}')}"
    with writing(room.engine) as connection:
        connection.execute(update(deliveries).values(attempts=3, message=said))
    line = {"MAMMONODE_EVENT": "destination does not answer", "MAMMONODE_CAUSE": said, "PRIORITY": "4"}
    settings = Settings(storage=Storage(folder=tmp_path / "store"))
    told = examine(settings, utc_now(), lambda: json.dumps(line))
    causes = [told["journal"][0]["cause"], *(each["cause"] for each in told["deliveries"]["last_failures"])]
    assert len(causes) > 1
    assert all(cause == sorted([str(HandshakeFailed()), Fault.EXPIRED]) for cause in causes)
    assert MARK not in json.dumps(told, default=str)
    assert set(told["newest"]) == {"unknown", "gone", "looked_at"}


def test_the_doctor_writes_one_file_for_its_owner_and_none_over_another(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "ticket.json"
    assert run("doctor", str(target)).exit_code == 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert json.loads(target.read_text())["exams"]["by_state"]
    assert run("doctor", str(target)).exit_code == 1


def test_the_doctor_tells_what_it_can_when_the_database_is_gone(tmp_path: Path) -> None:
    settings = Settings(storage=Storage(folder=tmp_path, database="postgresql://me:s3cret@127.0.0.1:1/x"))
    told = examine(settings, utc_now(), lambda: "")
    assert "s3cret" not in json.dumps(told, default=str)
    assert "database" in told["database"].lower()
    assert told["model"]["name"] == settings.reader.model
