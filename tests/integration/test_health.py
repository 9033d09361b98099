"""Metrics, readiness and the self-test of a node within the test process."""

import errno
import json
import math
import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update
from structlog.testing import capture_logs

from ai.exam import ViewImage
from ai.findings import ImageFindings
from config.settings import Caller, Delivery, Destination, Dicom, ExamClock, Http, SelfTest, Settings, Storage
from node.demo.pacs import DemoPacs
from node.echoes import Echoes
from node.intake import utc_now
from node.metrics import STRANGERS
from node.scu import EchoResult, Item, Sender
from node.selftest import Failed, SelfTestRun, _listen, run_selftest, synthetic_exam
from node.serving import Serving
from node.worker import Worker
from storage.database import reading, writing
from storage.exams import list_exams
from storage.selftests import last
from storage.tables import jobs
from storage.workers import Gpu, WorkerRecord, forget_worker, note_worker
from tests.answers import a_mass
from tests.chain import FakeReader
from tests.doors import phantom_images
from tests.pacs import a_free_port, a_pacs
from tests.peers import eventually, require_program
from tests.records import a_closed_exam

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
MODALITY = "MODALITY"
LIMIT = 200
"""Seconds for a self-test, however slow this machine is."""

# pynetdicom leaves the socket of a connection that failed to its destructor.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class Finder(FakeReader):
    """Finds a mass over the middle of the one that is in the self-test's exam, or beside it."""

    beside = 0

    def found(self, image: ViewImage) -> ImageFindings:
        mask = np.zeros(image.shape, np.bool_)
        for mass in synthetic_exam(utc_now()).masses(image.view):
            left, top, width, height = mass.box
            row, column = top + height // 2 + self.beside, left + width // 2
            mask[row - 5 : row + 5, column - 5 : column + 5] = True
        masses = (a_mass(mask),) if mask.any() else ()
        return ImageFindings(image.uid, image.view, image.shape, masses, 83, 0.8)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with a_pacs() as (_, port):
        opened = Serving(
            Settings(
                dicom=Dicom(port=a_free_port(), callers=(Caller(ae_title=MODALITY),)),
                storage=Storage(folder=tmp_path / "store", max_used_percent=100, min_free_gb=0),
                exam=ExamClock(complete_quiet=0.1, incomplete_quiet=30),
                delivery=Delivery(first_retry=0.1, slowest_retry=0.1, poll=0.05),
                http=Http(port=0),
                selftest=SelfTest(port=a_free_port(), time_limit=LIMIT),
                destinations=(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port),),
            )
        )
        opened.open()
        with closing(opened):
            yield opened
        opened.parts.engine.dispose()


def worker_of(serving: Serving, reader: FakeReader) -> Worker:
    parts = serving.parts
    return Worker(
        *(parts.engine, parts.store, parts.queue, reader, parts.settings.places),
        settings_digest="",
        owner="worker",
        heartbeat=60,
        time_limit=600,
        on_hang=lambda: pytest.fail("hangs"),
        clock=utc_now,
    )


def at_work(serving: Serving, reader: FakeReader, stop: Event) -> Thread:
    """Close exams and read them, until told to stop."""

    def run() -> None:
        worker = worker_of(serving, reader)
        while not stop.wait(0.05):
            serving.chores()[0].do()
            worker.work_once()

    thread = Thread(target=run)
    thread.start()
    return thread


def a_worker(serving: Serving) -> WorkerRecord:
    now = utc_now()
    gpu = Gpu("NVIDIA", 1 << 30, 8 << 30, 0.25)
    return WorkerRecord("host:1", "model 1", serving.model.digest, "cuda", now, now, gpu)


def samples(serving: Serving) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and its labels' values, in the order of the labels' names."""
    found = {}
    for family in text_string_to_metric_families(serving.metrics.text().decode()):
        for sample in family.samples:
            found[(sample.name, *(value for _, value in sorted(sample.labels.items())))] = sample.value
    return found


def test_an_exam_is_counted_from_its_images_to_its_answer(serving: Serving, tmp_path: Path) -> None:
    paths = []
    for number, image in enumerate(phantom_images()):
        paths.append(tmp_path / f"{number}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    door = Destination(name="node", ae_title="MAMMONODE", host="127.0.0.1", port=serving.dicom_port)
    with closing(Sender(Dicom(ae_title=MODALITY)).send(door, [Item.of(path) for path in paths])) as responses:
        assert [response.status for response in responses] == [0, 0, 0, 0]
    stop = Event()
    thread = at_work(serving, FakeReader(), stop)
    try:
        assert eventually(lambda: ("mammonode_answers_total", "findings", MODALITY) in samples(serving))
    finally:
        stop.set()
        thread.join()
    told = samples(serving)
    assert told["mammonode_associations_total", MODALITY, "accepted"] == 1
    assert told["mammonode_instances_total", MODALITY, "0000"] == 4
    assert told["mammonode_received_bytes_total", MODALITY] > 4 * 400 * 500
    assert told["mammonode_answer_seconds_count",] == 1
    assert told["mammonode_exam_score_bucket", "80.0", MODALITY] == 0
    assert told["mammonode_exam_score_bucket", "90.0", MODALITY] == 1
    assert told["mammonode_stage_seconds_count", "total"] == 1
    again = samples(serving)
    assert again["mammonode_answers_total", "findings", MODALITY] == 1
    assert again["mammonode_exams", "answered"] == 1
    assert again["mammonode_jobs", "done"] == 1


def test_an_answer_is_counted_once_though_one_with_a_later_time_was_seen_before(serving: Serving) -> None:
    begun, engine = utc_now(), serving.parts.engine
    _, first = a_closed_exam(engine, "1.2.3.1.1", study="1.2.3.1")
    _, second = a_closed_exam(engine, "1.2.3.2.1", study="1.2.3.2")
    for job, seconds in ((first, 3), (second, 0)):
        finished = {"answer": "findings", "finished_at": begun + timedelta(seconds=seconds), "timings": {"total": 1}}
        with writing(engine) as connection:
            connection.execute(update(jobs).where(jobs.c.id == job).values(finished))
        samples(serving)
    told = samples(serving)
    assert sum(number for names, number in told.items() if names[0] == "mammonode_answers_total") == 2
    assert told["mammonode_stage_seconds_count", "total"] == 2


def test_an_answer_is_counted_though_the_clock_was_put_back(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    week_ago, engine = utc_now() - timedelta(days=7), serving.parts.engine
    _, job = a_closed_exam(engine)
    finished = {"answer": "findings", "finished_at": week_ago, "timings": {"total": 1}}
    with writing(engine) as connection:
        connection.execute(update(jobs).where(jobs.c.id == job).values(finished))
        # A worker that ended in what is now the time to come is not at work.
        note_worker(connection, a_worker(serving))
    monkeypatch.setattr(serving.metrics, "_clock", lambda: week_ago)
    told = samples(serving)
    assert sum(number for names, number in told.items() if names[0] == "mammonode_answers_total") == 1
    assert told["mammonode_workers",] == 0


def test_every_metric_is_documented_and_what_rules_and_dashboard_ask_for_is_there(serving: Serving) -> None:
    with writing(serving.parts.engine) as connection:
        note_worker(connection, a_worker(serving))
    run_selftest(
        serving.parts.with_settings(serving.parts.settings.model_copy(update={"selftest": SelfTest(time_limit=0.1)}))
    )
    text = serving.metrics.text().decode()
    told = set(re.findall(r"^# TYPE (mammonode_\w+) ", text, re.MULTILINE))
    told = {name for name in told if not name.endswith("_created")}
    documented = (ROOT / "docs" / "operation.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(mammonode_\w+)`", documented)) - {"mammonode_selftest_success_timestamp_seconds"}
    assert named == told
    assert "`mammonode_selftest_success_timestamp_seconds`" in documented
    asked = (MONITORING / "alerts.yml").read_text() + (MONITORING / "dashboard.json").read_text()
    families = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in told}
    for name in set(re.findall(r"\bmammonode_\w+", asked)) - {"mammonode_selftest_success_timestamp_seconds"}:
        assert re.sub(r"_(bucket|sum|count|total)$", "", name) in families, name
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        assert panel["targets"]


def test_a_destination_without_deliveries_is_told_with_zeros_with_which_an_alert_can_compare(serving: Serving) -> None:
    told = samples(serving)
    assert told["mammonode_deliveries", "pacs", "refused"] == told["mammonode_deliveries", "pacs", "expired"] == 0


def test_a_store_that_is_gone_costs_no_other_figure(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    whole = {name for name, *_ in samples(serving)}
    monkeypatch.setattr("shutil.disk_usage", gone)
    assert whole - {name for name, *_ in samples(serving)} == {"mammonode_disk_bytes", "mammonode_disk_free_bytes"}


def test_promtool_finds_rules_and_metrics_valid(serving: Serving) -> None:
    promtool = require_program("promtool")
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run([promtool, *command], cwd=MONITORING, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    text = serving.metrics.text().decode()
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_sender_makes_no_series_of_its_own(serving: Serving) -> None:
    assert serving.metrics.known(MODALITY) == MODALITY
    assert serving.metrics.known("SCANNER-4711") == "unknown"


def test_where_anybody_may_call_strangers_make_no_series_without_end(serving: Serving) -> None:
    dicom = serving.parts.settings.dicom.model_copy(update={"allow_unknown_callers": True})
    serving.use(serving.parts.settings.model_copy(update={"dicom": dicom}))
    titles = [f"SCANNER-{number}" for number in range(STRANGERS + 1)]
    assert [serving.metrics.known(title) for title in titles] == [*titles[:-1], "unknown"]
    assert serving.metrics.known(titles[0]) == titles[0]
    assert serving.metrics.known(MODALITY) == MODALITY


def test_destinations_are_asked_though_one_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(destination: Destination) -> EchoResult:
        if destination.name == "odd":
            raise ValueError
        return EchoResult(answered=True, seconds=0, message="")

    monkeypatch.setattr("node.echoes.EVERY", 0.01)
    echoes = Echoes(utc_now)
    one = Destination(name="odd", ae_title="PACS", host="127.0.0.1", port=104)
    echoes.use(ask, [one])
    echoes.start()
    echoes.use(ask, [one.model_copy(update={"name": "pacs"})])
    assert eventually(lambda: "pacs" in echoes.last())
    echoes.stop()


def test_it_is_ready_when_everything_that_it_needs_is_there(serving: Serving) -> None:
    with httpx2.Client(base_url=f"http://127.0.0.1:{serving.web_port}", timeout=60) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert [check["name"] for check in answer.json()["checks"] if not check["ok"] and check["needed"]] == [
            "workers"
        ]
        with writing(serving.parts.engine) as connection:
            note_worker(connection, a_worker(serving))
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (200, True)
        assert client.get("/metrics").text.count("mammonode_workers 1.0") == 1
        with writing(serving.parts.engine) as connection:
            forget_worker(connection, "host:1")
        assert client.get("/readyz").status_code == 503


def test_metrics_tell_the_model_of_serve_and_what_each_worker_reads_with(serving: Serving) -> None:
    with writing(serving.parts.engine) as connection:
        note_worker(connection, replace(a_worker(serving), model="former 1.0", model_digest="ab" * 32))
    told, card = samples(serving), serving.model.card
    assert told["mammonode_model_info", serving.model.digest, card.name, card.version] == 1
    assert told["mammonode_worker_info", "cuda", "ab" * 32, "former 1.0", "host:1"] == 1


def test_a_worker_with_another_model_is_named(serving: Serving) -> None:
    with writing(serving.parts.engine) as connection:
        note_worker(connection, replace(a_worker(serving), model="former 1.0", model_digest="ab" * 32))
    told = {check.name: check for check in serving.readiness.checks()}["workers"]
    assert (told.ok, told.needed) == (False, True)
    assert told.detail == "0 with the model, of 1 at work; others read with former 1.0 (abababababab)"
    with writing(serving.parts.engine) as connection:
        forget_worker(connection, "host:1")


def test_it_is_not_ready_while_its_database_takes_no_writes(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.readiness.takes_writes", lambda _: False)
    told = {check.name: check for check in serving.readiness.checks()}
    assert (told["database"].ok, told["database"].needed, told["database"].detail) == (False, True, "takes no writes")


def test_a_database_that_hangs_is_told_and_holds_up_nobody_who_asks(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    thawed = Event()
    monkeypatch.setattr("node.patience.wait", lambda asked, _: wait(asked, 0.05))
    for question in ("node.readiness.workers_seen", "node.metrics.answers_since", "node.metrics.exams_by_state"):
        monkeypatch.setattr(question, lambda *_: thawed.wait())
    for _ in range(2):
        told = {check.name: check for check in serving.readiness.checks()}
        assert (told["database"].ok, told["database"].detail) == (False, "does not answer")
        assert samples(serving)["mammonode_database_up",] == 0
    assert [thread.name for thread in enumerate_threads()].count("question") == 2
    thawed.set()


def test_another_serve_at_the_same_database_is_told_once(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.serving.Seat.holder", lambda _: "process 7 of other")
    [look] = [chore for chore in serving.chores() if "_look_who_serves" in repr(chore.do)]
    with capture_logs() as lines:
        for _ in range(2):
            look.do()
    assert [line["holder"] for line in lines if line["event"] == "another serve"] == ["process 7 of other"]


def test_a_self_test_goes_the_whole_way_and_to_no_clinical_destination(serving: Serving) -> None:
    stop = Event()
    thread = at_work(serving, Finder(), stop)
    try:
        with capture_logs() as logs:
            test = run_selftest(serving.parts)
    finally:
        stop.set()
        thread.join()
    assert (test.passed, test.phase, test.cause) == (True, "", "")
    assert "self-test passed" in [line["event"] for line in logs]
    with reading(serving.parts.engine) as connection:
        [exam] = list_exams(connection, 2)
        assert last(connection) == test
    assert exam.uid == test.exam
    outbox = serving.parts.outbox
    assert {delivery.destination for delivery in outbox.of_exam(exam.id)} == {"selftest"}


def test_a_self_test_waits_for_one_that_runs_already_as_long_as_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.selftest.POLL", 0)
    port, pacs = a_free_port(), DemoPacs(tmp_path / "one")
    tries = [OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))] * 3

    def start() -> int:
        if tries:
            raise tries.pop()
        return port

    monkeypatch.setattr(pacs, "start", start)
    parts: Any = SimpleNamespace(settings=Settings(selftest=SelfTest(port=port)))
    run = SelfTestRun(parts, synthetic_exam(utc_now()), pacs)
    with pytest.raises(Failed, match=rf"{port} cannot be listened on: Address already in use"):
        _listen(run, deadline=0)
    assert len(tries) == 2
    _listen(run, deadline=math.inf)
    assert not tries


@pytest.mark.parametrize(
    ("reader", "phase", "words"),
    [(None, "read", "no worker"), ("beside", "read", "the mass that is in the exam is not in the answer")],
)
def test_a_self_test_that_fails_says_where(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, reader: str | None, phase: str, words: str
) -> None:
    parts = serving.parts
    if not reader:
        # Without a worker the limit ends it: here as soon as the exam has come and been closed.
        passed = lambda: time.monotonic() + (LIMIT if parts.queue.list_jobs(1) else 0)  # noqa: E731
        monkeypatch.setattr("node.selftest.time", SimpleNamespace(monotonic=passed, sleep=time.sleep))
    finder = Finder()
    finder.beside = 60
    stop = Event()

    def close_exams() -> None:
        while not stop.wait(0.05):
            serving.chores()[0].do()

    thread = at_work(serving, finder, stop) if reader else Thread(target=close_exams)
    if not reader:
        thread.start()
    try:
        test = run_selftest(parts)
    finally:
        stop.set()
        thread.join()
    assert (test.passed, test.phase) == (False, phase)
    assert words in test.cause


def test_a_node_that_does_not_run_fails_at_its_door(serving: Serving) -> None:
    dicom = Dicom(port=a_free_port())
    parts = serving.parts.with_settings(serving.parts.settings.model_copy(update={"dicom": dicom}))
    test = run_selftest(parts)
    assert (test.passed, test.phase, test.exam) == (False, "receive", "")
