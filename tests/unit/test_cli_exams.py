"""The command line: exams, conflicts, lanes."""

import json
from pathlib import Path
from typing import Any

import pytest

from config.settings import load_settings
from node.parts import Parts, open_parts
from node.results.facts import kept_facts
from storage.database import writing
from storage.exams import hold
from storage.files import InstanceStore
from storage.states import DeliveryState, ExamState, JobState
from tests.command_line import (
    a_config,
    a_destination,
    answered,
    config,
    contradicted,
    exam_of,
    fault_of,
    parts,
    run,
)
from tests.pacs import waiting_results
from tests.records import an_exam

__all__ = ["answered", "config", "contradicted", "parts"]

pytestmark = [
    # pynetdicom does not close the socket of a connection that was refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    # smp renames its encoders one day; the version is pinned.
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
]


def test_exams_lists_what_was_received_and_answered(config: Path, answered: str) -> None:
    shown = run("exams", "--config", config)
    assert shown.exit_code == 0
    assert answered in shown.output
    assert "answered" in shown.output
    [plain] = json.loads(run("exams", "--json", "--config", config).stdout)
    assert (plain["exam"], plain["state"], plain["status"], plain["revision"]) == (answered, "answered", "findings", 1)


def test_exams_can_be_restricted_to_a_state(config: Path, answered: str) -> None:
    assert json.loads(run("exams", "--state", "failed", "--json", "--config", config).stdout) == []
    assert run("exams", "--state", "nonsense", "--config", config).exit_code == 2


def test_show_tells_all_that_is_known(config: Path, answered: str) -> None:
    shown = run("show", answered[:4], "--config", config)
    assert shown.exit_code == 0
    for title in ("images", "masses", "jobs", "deliveries"):
        assert title in shown.output
    facts = json.loads(run("show", answered, "--json", "--config", config).stdout)
    assert facts["reasons"] == ["L CC missing"]
    assert [(image["view"], image["chosen"]) for image in facts["images"]] == [("R CC", True)]
    [job] = facts["jobs"]
    assert (job["state"], job["answer"]) == ("done", "findings")
    assert job["seconds"] == {"decode": 0.1, "read": 2.0, "total": 2.2}
    assert "2.20 s: decode 0.10" in shown.output
    assert {(d["destination"], d["state"]) for d in facts["deliveries"]} == {("pacs", "waiting"), ("ris", "waiting")}
    assert facts["conflicts"] == []
    assert facts["answer"]["status"] == "findings"
    model = facts["answer"]["model"]
    assert (
        f"Last answer: to revision 1, by {model['name']} {model['version']}, digest {model['digest'][:12]}"
        in shown.output
    )
    masses = [mass for image in facts["answer"]["images"] for mass in image["masses"]]
    assert all(f"{mass['long_axis']} x {mass['short_axis']} mm" in shown.output for mass in masses)


def test_show_tells_what_scores_mean(config: Path, answered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def appraised(store: InstanceStore, path: str) -> dict[str, Any]:
        return {**(kept_facts(store, path) or {}), "appraisal": ["The left breast is UNCERTAIN."]}

    monkeypatch.setattr("node.results.facts.kept_facts", appraised)
    assert "\n  The left breast is UNCERTAIN.\n" in run("show", answered, "--config", config).output


def test_an_unknown_exam_is_refused_with_what_to_do(config: Path, answered: str) -> None:
    for command in ("show", "retry", "send"):
        assert "list them with mammonode exams" in fault_of(run(command, "ffffffffffffffff0", "--config", config))


def test_retry_queues_the_reading_again(config: Path, parts: Parts, answered: str) -> None:
    result = run("retry", answered, "--config", config)
    assert (result.exit_code, exam_of(parts, answered).state) == (0, ExamState.QUEUED)
    [job, former] = parts.queue.list_jobs(2)
    assert (job.state, job.revision, former.state) == (JobState.QUEUED, 2, JobState.DONE)
    assert f"as revision 2, judged anew, job {job.id} is queued" in result.output
    assert f": job {job.id} is queued again" in run("retry", answered, "--config", config).output
    assert len(parts.queue.list_jobs(9)) == 2


def test_retry_refuses_an_exam_that_still_awaits_images(config: Path, parts: Parts) -> None:
    exam = an_exam(parts.engine)
    assert "images are still awaited" in fault_of(run("retry", exam.uid, "--config", config))


def test_send_sends_again_what_was_refused_to_one_destination(config: Path, parts: Parts, answered: str) -> None:
    config.write_text(config.read_text(encoding="utf-8") + a_destination(104), encoding="utf-8")
    exam = exam_of(parts, answered)
    for delivery in parts.outbox.of_exam(exam.id):
        parts.outbox.refused(delivery, "no", 0x0122, exam.last_image_at)
    result = run("send", answered, "--destination", "pacs", "--config", config)
    assert result.exit_code == 0
    states = {(d.destination, d.state) for d in parts.outbox.of_exam(exam.id)}
    assert states == {("pacs", DeliveryState.WAITING), ("ris", DeliveryState.REFUSED)}


def test_send_that_finds_nothing_to_send_fails(config: Path, answered: str) -> None:
    result = run("send", answered, "--destination", "nobody", "--config", config)
    assert result.exit_code == 1
    assert "name no destination 'nobody'" in result.output
    assert "0 deliveries" in run("send", answered, "--config", config).output


def test_send_releases_a_held_exam_only_when_told_to(config: Path, parts: Parts, answered: str) -> None:
    exam = exam_of(parts, answered)
    with writing(parts.engine) as connection:
        hold(connection, exam.id, held=True)
    refused = run("send", answered, "--config", config)
    assert refused.exit_code == 1
    assert "--release" in refused.stderr
    assert exam_of(parts, answered).held
    assert run("send", answered, "--release", "--config", config).exit_code == 0
    assert not exam_of(parts, answered).held


@pytest.mark.parametrize("command", ["retry", "send"])
def test_what_cannot_be_recorded_is_not_done(
    command: str, config: Path, parts: Parts, answered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything() -> object:
        return exam_of(parts, answered), parts.queue.list_jobs(9), parts.outbox.of_exam(1)

    def fail(*_: object) -> None:
        raise LookupError

    before = everything()
    monkeypatch.setattr("node.cli.exams.record_done", fail)
    assert isinstance(run(command, answered, "--config", config).exception, LookupError)
    assert everything() == before


def test_conflicts_are_listed_until_they_are_decided(config: Path, parts: Parts, contradicted: str) -> None:
    [told] = json.loads(run("conflicts", "--json", "--config", config).stdout)
    assert (told["exam"], told["identity"], told["state"]) == (contradicted, True, "open")
    assert "PatientID" in told["differences"]
    accepted = run("conflicts", "accept", told["id"], "--config", config)
    assert accepted.exit_code == 0
    assert f"{contradicted}, revision 1: moved" in accepted.stdout
    assert "No conflicts" in run("conflicts", "--config", config).stdout
    assert run("conflicts", "accept", told["id"], "--config", config).exit_code == 1


@pytest.mark.parametrize("decision", ["accept", "reject"])
def test_a_decision_that_cannot_be_recorded_is_none(
    decision: str, config: Path, contradicted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr("node.cli.conflicts.record_done", fail)
    assert isinstance(run("conflicts", decision, "1", "--config", config).exception, LookupError)
    [told] = json.loads(run("conflicts", "--json", "--config", config).stdout)
    assert (told["exam"], told["state"]) == (contradicted, "open")


def test_conflicts_of_an_exam_are_listed_with_their_decision(config: Path, parts: Parts, contradicted: str) -> None:
    rejected = run("conflicts", "reject", "1", "--config", config)
    assert f"{contradicted}, revision 1: collecting." in rejected.stdout
    assert not exam_of(parts, contradicted).held
    [told] = json.loads(run("conflicts", contradicted[:6], "--json", "--config", config).stdout)
    assert told["state"] == "rejected"
    assert json.loads(run("show", contradicted, "--json", "--config", config).stdout)["conflicts"] == [told]


@pytest.mark.parametrize("words", [("accept",), ("reject", "x"), ("abc", "def")])
def test_conflicts_refuses_what_is_no_decision(config: Path, words: tuple[str, ...]) -> None:
    assert run("conflicts", *words, "--config", config).exit_code == 2


def test_releasing_an_exam_rejects_what_it_is_held_for(config: Path, contradicted: str) -> None:
    run("send", contradicted, "--release", "--config", config)
    [told] = json.loads(run("conflicts", contradicted, "--json", "--config", config).stdout)
    assert told["state"] == "rejected"


def test_lanes_tell_what_waits_for_whom_and_one_can_be_paused_and_resumed(tmp_path: Path) -> None:
    more = a_destination(104) + 'windows = ["00:00-23:59"]\nassociations = 2\n'
    config = a_config(tmp_path, more=more)
    parts = open_parts(load_settings(config))
    waiting = waiting_results(parts.store, parts.engine, ["pacs", "ris"])
    parts.engine.dispose()
    pacs, ris = json.loads(run("lanes", "--json", "--config", config).stdout)
    assert (pacs["destination"], pacs["paused"], pacs["associations"]) == ("pacs", None, 2)
    assert pacs["deliveries"]["waiting"] == len(waiting)
    assert (ris["destination"], ris["open"]) == ("ris", False)
    paused = run("lanes", "pause", "pacs", "--why", "migration", "--config", config)
    assert (paused.exit_code, "mammonode lanes resume pacs" in paused.output) == (0, True)
    assert "paused already" in run("lanes", "pause", "pacs", "--config", config).output
    shown = run("lanes", "--config", config)
    assert "paused since" in shown.output
    assert "migration" in shown.output
    assert "not in the settings" in shown.output
    [told, _] = json.loads(run("lanes", "--json", "--config", config).stdout)
    assert (told["paused"]["reason"], told["open"]) == ("migration", False)
    assert "Nothing is sent to pacs: paused since" in run("exams", "--config", config).output
    assert "pacs is resumed" in run("lanes", "resume", "pacs", "--config", config).output
    assert "was not paused" in run("lanes", "resume", "pacs", "--config", config).output


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_lanes_refuse_a_destination_that_is_not_in_the_settings(tmp_path: Path, command: str) -> None:
    result = run("lanes", command, "nobody", "--config", a_config(tmp_path, more=a_destination(104)))
    assert result.exit_code == 1
    assert "there are: pacs" in result.stderr
