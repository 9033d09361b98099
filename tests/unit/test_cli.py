"""The command line: what each command prints, for people and for scripts, and its exit status."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import CliRunner, Result

from ai.exam import STANDARD_VIEWS
from config.settings import Settings, Storage, load_settings
from node import cli
from node.cli import app
from node.demo.run import run_demo
from node.faults import KNOWN_FAULTS
from node.intake import Intake
from node.parts import Parts, open_parts
from storage.database import reading, writing
from storage.exams import find_exam, hold
from storage.holding import held
from storage.states import DeliveryState, ExamState, JobState
from tests.builders import altered, own_result_header
from tests.doors import ROOM_ENOUGH, Room, phantom_images
from tests.drawn import a_breast, a_data_set
from tests.logs import logging_as_it_was
from tests.models import a_quick_model
from tests.pacs import a_free_port, a_pacs, waiting_results
from tests.records import an_exam

__all__ = ["logging_as_it_was"]

pytestmark = [
    # pynetdicom does not close the socket of a connection that was refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    # smp renames its encoders one day; the version is pinned.
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def fault_of(result: Result) -> str:
    """Return the known fault with which a command ended."""
    assert isinstance(result.exception, KNOWN_FAULTS), result.exception
    return str(result.exception)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that reads in a quarter of the time."""
    return a_quick_model(tmp_path_factory.mktemp("model") / "quick").folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return a_config(tmp_path)


def a_config(folder: Path, storage: str = "max_used_percent = 100\nmin_free_gb = 0", more: str = "") -> Path:
    path = folder / "mammonode.toml"
    path.write_text(f'[storage]\nfolder = "{folder / "store"}"\n{storage}\n{more}', encoding="utf-8")
    return path


def a_destination(port: int) -> str:
    return f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'


@pytest.fixture
def parts(config: Path) -> Iterator[Parts]:
    opened = open_parts(load_settings(config))
    yield opened
    opened.engine.dispose()


@pytest.fixture
def answered(parts: Parts) -> str:
    """An answered exam, whose results wait for two destinations; its id."""
    waiting_results(parts.store, parts.engine, ["pacs", "ris"])
    return str(exam_of(parts, "").uid)


def exam_of(parts: Parts, uid: str) -> Any:
    with reading(parts.engine) as connection:
        return find_exam(connection, uid)


# --- check and echo


def test_check_says_that_all_is_well(tmp_path: Path) -> None:
    with a_pacs() as (_, port):
        door = f"[dicom]\nport = {a_free_port()}\n[http]\nport = {a_free_port()}\n"
        result = run("check", "--config", a_config(tmp_path, more=door + a_destination(port)))
    assert result.exit_code == 0, result.output
    for name in ("settings", "database", "disk", "model", "DICOM door", "HTTP door", "destination pacs"):
        assert f"ok   {name}: " in result.output
    assert "dicom.ae_title = 'MAMMONODE'" in result.output


def test_check_says_when_a_destination_that_commits_could_not_report_to_us(tmp_path: Path) -> None:
    with a_pacs() as (_, port):
        path = a_config(tmp_path, more=a_destination(port) + 'proof = "commitment"\n')
        assert "add PACS to callers in [dicom]" in run("echo", "--config", path).output
        known = '[dicom]\ncallers = [{ ae_title = "PACS" }]\n'
        path = a_config(tmp_path, more=known + a_destination(port) + 'proof = "commitment"\n')
        assert "add PACS" not in run("echo", "--config", path).output


def test_check_says_for_every_failure_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        more = '[reader]\nmodel = "absent"\n' + a_destination(a_free_port())
        taken = stranger.getsockname()[1]
        more = (
            f'[dicom]\nport = {taken}\n[http]\nbind = "127.0.0.2"\nport = {taken}\ncertificate = "absent.pem"\n{more}'
        )
        path = a_config(
            tmp_path, f'database = "postgresql://me:s3cret@127.0.0.1:{a_free_port()}/x"\nmin_free_gb = 1e9', more
        )
        monkeypatch.setattr("node.doors.SOON", 0.2)
        result = run("check", "--json", "--config", path)
    assert result.exit_code == 1
    assert "s3cret" not in result.output
    told = json.loads(result.stdout)
    assert told["settings"]["reader"]["model"] == "absent"
    checks = {check["check"]: check for check in told["checks"]}
    assert [name for name, check in checks.items() if check["ok"]] == ["settings", "clock"]
    for name, remedy in (
        ("database", "storage.database"),
        ("disk", "storage.min_free_gb"),
        ("model", "mammonode models"),
        ("DICOM door", "ss -ltnp"),
        ("HTTP door", "in [http]"),
        ("destination pacs", "does it know MAMMONODE"),
    ):
        assert remedy in checks[name]["remedy"]


def test_check_names_every_fault_of_the_settings(tmp_path: Path) -> None:
    result = run("check", "--config", a_config(tmp_path, "", "[dicom]\nprot = 1\nport = -1"))
    assert result.exit_code == 1
    assert "dicom.prot: unknown key; did you mean dicom.port?" in result.output
    assert "dicom.port: " in result.output
    assert "-> correct this key" in result.output


def test_echo_tells_who_answers(tmp_path: Path) -> None:
    with a_pacs() as (_, port):
        result = run("echo", "pacs", "--config", a_config(tmp_path, more=a_destination(port)))
    assert result.exit_code == 0
    assert "ok   destination pacs" in result.output
    assert ", gets SEG, SR\n" in result.output


def test_echo_fails_when_one_does_not_answer(tmp_path: Path) -> None:
    result = run("echo", "--json", "--config", a_config(tmp_path, more=a_destination(a_free_port())))
    assert result.exit_code == 1
    assert [check["ok"] for check in json.loads(result.stdout)["checks"]] == [False]


def test_echo_refuses_a_destination_that_is_not_in_the_settings(config: Path) -> None:
    assert run("echo", "nobody", "--config", config).exit_code == 1


# --- exams


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
    assert [(job["state"], job["answer"]) for job in facts["jobs"]] == [("done", "findings")]
    assert {(d["destination"], d["state"]) for d in facts["deliveries"]} == {("pacs", "waiting"), ("ris", "waiting")}
    assert facts["conflicts"] == []
    assert facts["answer"]["status"] == "findings"
    masses = [mass for image in facts["answer"]["images"] for mass in image["masses"]]
    assert all(f"{mass['long_axis']} x {mass['short_axis']} mm" in shown.output for mass in masses)


def test_an_unknown_exam_is_refused_with_what_to_do(config: Path, answered: str) -> None:
    for command in ("show", "retry", "send"):
        assert "list them with mammonode exams" in fault_of(run(command, "ffffffffffffffff0", "--config", config))


def test_retry_queues_the_reading_again(config: Path, parts: Parts, answered: str) -> None:
    result = run("retry", answered, "--config", config)
    assert result.exit_code == 0
    assert exam_of(parts, answered).state is ExamState.QUEUED
    assert parts.queue.list_jobs(1)[0].state is JobState.QUEUED


def test_retry_refuses_an_exam_that_still_awaits_images(config: Path, parts: Parts) -> None:
    exam = an_exam(parts.engine)
    result = run("retry", exam.uid, "--config", config)
    assert result.exit_code == 1
    assert "awaited" in result.stderr


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


# --- conflicts


@pytest.fixture
def contradicted(parts: Parts) -> str:
    """A held exam of one image, which came again as another patient's; its id."""
    image = phantom_images()[0]
    room = Room(parts.store, parts.engine, Intake(parts.store, parts.engine, ROOM_ENOUGH))
    for copy in (image, altered(image, PatientID="RIGHT")):
        room.receive(copy)
    return str(exam_of(parts, "").uid)


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


# --- lanes


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


# --- read


def a_study(folder: Path) -> Path:
    folder.mkdir()
    for view, image in zip(STANDARD_VIEWS, phantom_images(), strict=True):
        image.save_as(folder / f"{view}.dcm", enforce_file_format=True)
    return folder


def test_read_reads_a_study_folder_and_passes_over_what_is_no_image(tmp_path: Path, quick: Path) -> None:
    study, output = a_study(tmp_path / "study"), tmp_path / "results"
    (study / "README.txt").write_text("exported by somebody")
    own_result = own_result_header()
    own_result.StudyInstanceUID = phantom_images()[0].StudyInstanceUID
    own_result.save_as(study / "report.dcm", enforce_file_format=True)
    result = run("read", study, "--output", output, "--json", "--model", quick, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "README.txt is no DICOM instance" in result.stderr
    assert "report.dcm is no image" in result.stderr
    [told] = json.loads(result.stdout)
    assert json.loads((output / "findings.json").read_text()) == [told]
    assert told["status"] in {"findings", "no findings"}
    assert [image["view"] for image in told["images"]] == [str(view) for view in STANDARD_VIEWS]
    with_masses = [image["view"].replace(" ", "_") for image in told["images"] if image["masses"]]
    assert sorted(told["objects"]) == sorted(["SR.dcm", *(f"SEG_{view}.dcm" for view in with_masses)])
    assert dcmread(output / "SR.dcm").StudyInstanceUID == phantom_images()[0].StudyInstanceUID
    for name in ("overview", *(str(view).replace(" ", "_") for view in STANDARD_VIEWS)):
        assert cv2.imread(str(output / f"{name}.png")) is not None


def test_read_names_the_views_that_are_missing(tmp_path: Path, quick: Path) -> None:
    study = a_study(tmp_path / "study")
    (study / "L MLO.dcm").unlink()
    result = run("read", study, "--output", tmp_path / "results", "--json", "--model", quick, "--device", "cpu")
    [told] = json.loads(result.stdout)
    assert told["status"].startswith("partial")
    assert told["missing"] == ["L MLO"]


def test_read_refuses_two_studies_at_once(tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    other = dcmread(study / "L CC.dcm")
    other.StudyInstanceUID, other.SOPInstanceUID = "1.2.3", "1.2.3.4"
    other.save_as(study / "other.dcm")
    assert "several studies" in fault_of(run("read", study, "--output", tmp_path / "results"))


def test_read_refuses_a_named_file_that_is_no_image(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("nothing")
    assert "notes.txt" in fault_of(run("read", text, "--output", tmp_path / "results"))


def test_read_refuses_an_empty_folder(tmp_path: Path) -> None:
    assert "no image" in fault_of(run("read", tmp_path, "--output", tmp_path / "results"))


def a_picture(folder: Path, name: str) -> Path:
    path = folder / name
    pixels = a_breast((320, 240), mass=(60, 150, 20))
    cv2.imwrite(str(path), np.round(65535 * pixels).astype(np.uint16))
    return path


@pytest.mark.parametrize(
    ("name", "stated", "view"),
    [
        ("case7_L_CC.png", [], "L CC"),
        ("LEFT_MLO.png", [], "L MLO"),
        ("case 7 lcc.png", [], "L CC"),
        ("picture.png", ["--view", "LMLO"], "L MLO"),
        ("R_CC.png", ["--view", "L CC"], "L CC"),
    ],
)
def test_read_reads_a_16_bit_png_and_takes_the_view_from_the_option_or_the_name(
    tmp_path: Path, quick: Path, name: str, stated: list[str], view: str
) -> None:
    picture, output = a_picture(tmp_path, name), tmp_path / "results"
    result = run("read", picture, "--output", output, "--json", "--model", quick, "--device", "cpu", *stated)
    assert result.exit_code == 0, result.output
    [told] = json.loads(result.stdout)
    [image] = told["images"]
    assert image["view"] == view
    mask = cv2.imread(str(output / f"{picture.stem}_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == (320, 240)
    assert set(np.unique(mask)) <= {0, 255}
    assert bool(mask.any()) == bool(image["masses"])
    assert (output / f"{picture.stem}_overlay.png").is_file()


def test_read_names_what_it_writes_of_two_pictures_of_one_name_apart(tmp_path: Path, quick: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        a_picture(tmp_path / folder, "L_CC.png")
    result = run("read", tmp_path / "one", tmp_path / "two", "-o", tmp_path, "--json", "--model", quick)
    assert [told["pictures"] for told in json.loads(result.stdout)] == [
        ["L_CC_mask.png", "L_CC_overlay.png"],
        ["L_CC_2_mask.png", "L_CC_2_overlay.png"],
    ]
    assert all(
        (tmp_path / f"L_CC{number}_{kind}.png").is_file() for number in ("", "_2") for kind in ("mask", "overlay")
    )


@pytest.mark.parametrize(
    ("name", "stated", "hint"),
    [
        ("picture.png", [], "give --view"),
        ("accl.png", [], "give --view"),
        ("L_CC.png", ["--view", "ML"], "RCC, LCC, RMLO or LMLO"),
    ],
)
def test_read_refuses_a_picture_without_a_view_before_it_reads_anything(
    tmp_path: Path, name: str, stated: list[str], hint: str
) -> None:
    output = tmp_path / "results"
    result = run("read", a_picture(tmp_path, name), "--output", output, *stated)
    assert result.exit_code == 2
    assert hint in " ".join(result.stderr.replace("│", " ").split())
    assert not output.exists()


def test_read_says_why_a_picture_was_not_read(tmp_path: Path) -> None:
    path = tmp_path / "R_CC.png"
    cv2.imwrite(str(path), np.zeros((320, 240), np.uint16))
    result = run("read", path, "--output", tmp_path / "results", "--device", "cpu")
    assert result.exit_code == 0
    assert "not analysed" in result.output
    assert "No breast" in result.output


# --- models


def test_predict_writes_every_image_of_a_manifest(tmp_path: Path, quick: Path) -> None:
    manifest, output = a_data_set(tmp_path, patients=3), tmp_path / "out.json"
    result = run("predict", manifest, "--output", output, "--model", quick, "--device", "cpu")
    assert result.exit_code == 0, result.output
    told = json.loads(output.read_text())
    assert [image["file"] for image in told["images"]] == [f"images/{number:03d}.png" for number in range(3)]
    assert all(len(detection["bbox"]) == 4 for detection in told["detections"])


def test_predict_takes_only_the_rows_asked_for(tmp_path: Path, quick: Path) -> None:
    manifest, output = a_data_set(tmp_path, patients=3), tmp_path / "out.json"
    run("predict", manifest, "--output", output, "--where", "laterality=R", "--model", quick, "--device", "cpu")
    assert [image["file"] for image in json.loads(output.read_text())["images"]] == ["images/001.png"]
    assert "no image is left" in fault_of(run("predict", manifest, "--output", output, "--where", "laterality=B"))


def test_recall_tells_from_which_score_on_how_many_exams_would_be_looked_at_twice(config: Path, answered: str) -> None:
    told = json.loads(run("recall", "2", "100", "--config", config, "--days", 30_000, "--json").stdout)
    assert [(row["rate"], row["score"], row["share"]) for row in told if row["sender"] == "all senders"] == [
        (2, 62, 0),
        (100, 1, 1),
    ]
    assert told[1]["low"] < 0.3
    shown = run("recall", "--config", config, "--days", 30_000)
    assert "Fewer than 200 exams" in shown.output
    assert "No exam with a score" in run("recall", "--config", config, "--days", 1).output
    assert run("recall", "0", "--config", config).exit_code == 2


@pytest.mark.parametrize(
    "command",
    [
        ["tokens", "add", "x", "--scope", "read", "--days", "1e12"],
        ["recall", "--days", "99999999"],
        ["audit", "list", "--after", "9" * 20],
        *([name, "--limit", "9" * 20] for name in ("exams", "jobs", "deliveries")),
    ],
    ids=" ".join,
)
def test_a_number_that_is_too_large_is_no_fault_of_the_program(config: Path, command: list[str]) -> None:
    refused = run(*command, "--config", config)
    assert refused.exit_code == 2
    assert "less than or equal to" in refused.output


def test_evaluate_prints_figures_for_people_and_for_scripts(tmp_path: Path, quick: Path) -> None:
    manifest = a_data_set(tmp_path, patients=3)
    (tmp_path / "source.toml").write_text('source = "phantoms"\ncaveats = ["[Drawn] by hand."]', encoding="utf-8")
    card = tmp_path / "card"
    shown = run("evaluate", manifest, "--repeats", 5, "--model", quick, "--device", "cpu", "--card", card)
    assert shown.exit_code == 0, shown.output
    written = (card / "card.md").read_text()
    assert "| IoU >= 0.5 |" in written
    assert "On synthetic phantoms: 3 images" in written
    assert "- Of the images that it was measured on: Synthetic phantoms: an engineering check" in written
    assert "[Drawn] by hand." in written
    assert "an engineering check, which says nothing about patients.\n[Drawn] by hand.\n" in shown.output
    assert (card / "froc.png").stat().st_size > 1000
    assert "3 images of 3 patients, 2 masses, 0 images refused" in shown.output
    figures = json.loads(
        run("evaluate", manifest, "--repeats", 5, "--json", "--model", quick, "--device", "cpu").stdout
    )
    assert (figures["images"], figures["masses"]) == (3, 2)
    assert figures["caveats"][1:] == ["[Drawn] by hand."]


def test_evaluate_stops_at_an_image_that_is_not_there(tmp_path: Path, quick: Path) -> None:
    manifest = a_data_set(tmp_path, patients=3)
    (tmp_path / "images" / "000.png").unlink()
    assert "images/000.png" in fault_of(run("evaluate", manifest, "--model", quick, "--device", "cpu"))


def test_calibrate_refuses_a_set_that_the_model_was_not_trained_on_and_leaves_its_card(
    tmp_path: Path, quick: Path
) -> None:
    before = (quick / "card.toml").read_bytes()
    assert "these are not the images that" in fault_of(
        run("calibrate", quick, a_data_set(tmp_path, patients=3), "--device", "cpu")
    )
    assert (quick / "card.toml").read_bytes() == before


def test_train_refuses_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    result = run("train", "thesis-table-4/x", a_data_set(tmp_path), "--output", tmp_path / "model")
    assert result.exit_code == 1
    assert "thesis-table-5" in str(result.exception)


# --- the program


def test_a_known_fault_is_one_line_and_exit_status_1(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mammonode", "show", "ffff", "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "mammonode: No exam has this id: list them with mammonode exams. (ffff)\n"


def test_a_fault_of_the_program_is_one_line_without_values(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("Secret^Anne")

    monkeypatch.setattr("node.cli.exams.find_exam", fail)
    monkeypatch.setattr(sys, "argv", ["mammonode", "show", "ffff", "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert re.fullmatch(
        r"mammonode: a fault of this program, please report it: LookupError in test_cli.py:\d+, from exams.py:\d+\n",
        told,
    )


def a_damaged_database(config: Path) -> Path:
    file = config.parent / "store" / "mammonode.sqlite"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"no database" * 1000)
    return file


@pytest.mark.parametrize("command", ["serve", "exams"])
def test_a_damaged_database_is_one_line(
    command: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_damaged_database(config)
    monkeypatch.setattr(sys, "argv", ["mammonode", command, "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    [line] = "".join(capsys.readouterr()).splitlines()
    assert "The database is damaged: stop the node and restore a backup" in line
    assert ("cannot start" in line) == (command == "serve")


def test_what_keeps_a_part_from_starting_is_told_without_values(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LookupError("Secret^Anne")

    monkeypatch.setattr("node.serving.open_parts", fail)
    result = run("serve", "--config", config)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["event"], told["level"]) == ("cannot start", "critical")
    assert told["error"].startswith("LookupError in test_cli.py:")
    assert "Secret" not in result.output


def test_a_second_node_in_the_same_folder_neither_starts_nor_removes_what_the_first_receives(tmp_path: Path) -> None:
    config, store = a_config(tmp_path, more='[http]\nbind = "0.0.0.0"'), tmp_path / "store"
    with held(store):
        coming = store / "incoming" / "image"
        coming.parent.mkdir()
        coming.touch()
        result = run("serve", "--config", config)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["event"] == "cannot start"
    assert f"process {os.getpid()} of" in told["error"]
    assert coming.is_file()


def test_a_node_that_has_stopped_ends_though_a_peer_hangs() -> None:
    program = """
import threading
import node.serving
from node.cli import running

def serve(load):
    threading.Thread(target=threading.Event().wait).start()  # as pynetdicom waits
    print("stopped")

node.serving.serve = serve
running.serve(config=None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "stopped\n"


def test_check_finds_damage_that_no_question_meets(config: Path) -> None:
    open_parts(load_settings(config)).engine.dispose()
    file = config.parent / "store" / "mammonode.sqlite"
    file.write_bytes(file.read_bytes()[:-4096] + b"\xff" * 4096)
    result = run("check", "--json", "--config", config)
    told = {each["check"]: each for each in json.loads(result.stdout)["checks"]}
    assert not told["database"]["ok"]
    assert "mammonode restore" in told["database"]["detail"]


@pytest.mark.parametrize(
    ("command", "event"),
    [(["conflicts", "accept", "1"], "later copy accepted"), (["selftest", "--json"], "self-test failed")],
)
def test_what_a_command_logs_is_not_among_its_results(
    command: list[str],
    event: str,
    config: Path,
    contradicted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with config.open("a", encoding="utf-8") as settings:
        settings.write(f"[dicom]\nport = {a_free_port()}\n[selftest]\nport = {a_free_port()}")
    monkeypatch.setattr(sys, "argv", ["mammonode", *command, "--config", str(config)])
    with pytest.raises(SystemExit):
        cli.main()
    told = capsys.readouterr()
    assert event in told.err
    assert event not in told.out
    assert told.out


def test_a_door_that_cannot_be_opened_is_a_known_fault(tmp_path: Path) -> None:
    from node.serving import Serving

    with a_pacs() as (_, port):
        settings = load_settings(a_config(tmp_path, more=f"[dicom]\nport = {port}\n[http]\nport = 0"))
        with pytest.raises(KNOWN_FAULTS, match=rf"port in \[dicom\] and \[http\].*dicom, 127\.0\.0\.1:{port}"):
            Serving(settings).open()
        settings = load_settings(a_config(tmp_path, more=f"[dicom]\nport = 0\n[http]\nport = {port}"))
        with pytest.raises(KNOWN_FAULTS, match=rf"http, 127\.0\.0\.1:{port}"):
            Serving(settings).open()


def test_the_demo_empties_no_folder_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert run_demo(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_backup_restore_and_adopt_keep_every_image(tmp_path: Path) -> None:
    config = a_config(tmp_path, more=f"[dicom]\nport = {a_free_port()}")
    opened = open_parts(load_settings(config))
    room = Room(opened.store, opened.engine, Intake(opened.store, opened.engine, ROOM_ENOUGH))
    made = run("backup", "--config", config)
    file = Path(made.output.strip())
    assert file.parent == tmp_path / "store" / "backups"
    assert run("backup", file, "--config", config).exit_code == 1
    room.receive(phantom_images()[0])
    refused = run("restore", file, "--config", config)
    assert "--replace" in fault_of(refused)
    same = run("restore", file, "--replace", "--if-schema-changed", "--config", config)
    assert (same.exit_code, room.rows()) == (0, (1, 1, 0))
    assert "stays as it is" in same.output
    restored = run("restore", file, "--replace", "--config", config)
    assert (restored.exit_code, room.rows()) == (0, (1, 1, 0))
    assert str(file) in restored.output
    told = run("adopt", "--json", "--config", config)
    assert json.loads(told.stdout) == {"adopted": 0, "unreadable": 0}
    broken = opened.store.root / "instances" / "1.2" / "1.2.3" / "1.2.3.4.dcm"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"cut off")
    restored = run("restore", file, "--replace", "--config", config)
    assert (restored.exit_code, "1 adopted, 1 unreadable" in restored.output) == (1, True)
    opened.engine.dispose()


def test_nothing_is_restored_under_a_running_node(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = a_config(tmp_path, more=f"[dicom]\nport = {door.getsockname()[1]}")
        open_parts(load_settings(config)).engine.dispose()
        file = run("backup", "--config", config).output.strip()
        assert "stop it first" in fault_of(run("restore", file, "--config", config))
        assert "stop it first" in fault_of(run("adopt", "--config", config))


def test_nothing_is_restored_under_a_node_whose_door_is_elsewhere_or_not_open_yet(tmp_path: Path) -> None:
    config = a_config(tmp_path, more=f"[dicom]\nport = {a_free_port()}")
    open_parts(load_settings(config)).engine.dispose()
    file = run("backup", "--config", config).output.strip()
    with held(tmp_path / "store"):
        assert f"process {os.getpid()}" in fault_of(run("restore", file, "--replace", "--config", config))
        assert f"process {os.getpid()}" in fault_of(run("adopt", "--config", config))
    assert run("restore", file, "--config", config).exit_code == 0


def test_nothing_is_restored_where_nothing_could_be_adopted(tmp_path: Path) -> None:
    config = a_config(tmp_path, more=f"[dicom]\nport = {a_free_port()}\n[reader]\nmodel = 'none'")
    opened = open_parts(load_settings(config))
    room = Room(opened.store, opened.engine, Intake(opened.store, opened.engine, ROOM_ENOUGH))
    file = run("backup", "--config", config).output.strip()
    room.receive(phantom_images()[0])
    assert "reader.model" in fault_of(run("restore", file, "--replace", "--config", config))
    assert room.rows() == (1, 1, 0)
    opened.engine.dispose()


def test_every_command_is_found_in_the_module_that_adds_it() -> None:
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")} - {"__init__", "options", "bars", "checks"}
    assert {module: tuple(cli.commands_of(module)) for module in modules} == cli.MODULES


def test_the_list_of_commands_says_of_each_what_its_own_help_says_first() -> None:
    commands = {name: cli.commands_of(module)[name] for module, names in cli.MODULES.items() for name in names}
    assert {name: " ".join(command.help.split("\n\n")[0].split()) for name, command in commands.items()} == cli.HELP


def test_help_imports_no_command() -> None:
    program = "import sys; from node import cli\ntry: cli.app(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "conformance" in done.stdout
    assert not [name for name in done.stdout.split() if name.startswith(("node.cli.", "sqlalchemy"))]


@pytest.fixture(scope="module")
def an_empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    open_parts(Settings(storage=Storage(folder=folder))).engine.dispose()
    return folder


@pytest.mark.parametrize("words", ["exams", "jobs", "lanes", "tokens list", "conflicts"])
def test_a_command_that_looks_imports_none_of_what_it_does_not_need(words: str, an_empty_store: Path) -> None:
    program = "import sys; from node import cli\ntry: cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program, *words.split(), "--json"],
        env=os.environ | {"MAMMONODE_STORAGE__FOLDER": str(an_empty_store)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) is not None
    imported = set(done.stderr.split())
    assert {"sqlalchemy", "pydantic", f"node.cli.{cli_module(words.split(maxsplit=1)[0])}"} <= imported
    reading = {"torch", "numpy", "pydicom", "cv2", "highdicom"}
    serving = {"pynetdicom", "starlette", "uvicorn", "prometheus_client", "node.audit.facts"}
    telling = {"structlog", "rich", "pygments", "xml"}
    of_the_database = {"alembic", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql"}
    changing = {"storage.catalogue", "storage.results", "storage.audit", "tomllib"}
    assert not (reading | serving | telling | of_the_database | changing) & imported
    assert words == "conflicts" or "storage.index" not in imported


def test_the_doors_import_nothing_that_only_reading_and_results_need() -> None:
    program = "import sys; import node.serving; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"torch", "highdicom", "pydicom.sr", "cv2", "openvino", "obstore"}.isdisjoint(done.stdout.split())


def cli_module(command: str) -> str:
    return next(module for module, commands in cli.MODULES.items() if command in commands)
