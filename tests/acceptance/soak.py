"""A long life with a few percent of every fault: ``python -m tests.acceptance.soak FOLDER [EXAMS]`` (``make soak``).

All that a run knows is in its folder, so that one that was cut off goes on where it was. It ends when every exam is
answered and sent, and fails when anything was lost, answered twice or not at all.
"""

import hashlib
import json
import sqlite3
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pynetdicom import evt
from sqlalchemy import func, select

from config.settings import Destination, Dicom, load_settings
from node.errors import NodeError
from node.parts import Parts, open_parts
from node.phantom import phantom_exam
from node.scu import Item, Sender
from storage.database import reading
from storage.exams import list_exams
from storage.index import find_instance
from storage.states import DeliveryState, ExamState, JobState
from storage.tables import deliveries, exams, instances
from tests.acceptance.kills import dataset_digest
from tests.acceptance.nodes import MODALITY, half_sent, tiny
from tests.faults import POINTS, Nursery, Offspring, a_nursery
from tests.fuzz import pdu_case, play
from tests.models import a_quick_model
from tests.pacs import a_free_port, a_pacs

EXAMS = 2000
ACQUIRED = datetime(2026, 3, 4, 9, tzinfo=UTC)
"""The same in every run: one that goes on sends the same bytes again."""
STORM = 0.6
"""Part of the exams during which processes die too; afterwards they live on, and must not grow."""
BACKLOG = 30
"""Exams that may wait for their answer while the next one is sent."""
GONE = 900.0
"""Seconds without any progress after which the run has failed."""

ANY_TIME = {
    "a repeated view": 0.05,
    "the whole exam again": 0.03,
    "an image cut off": 0.02,
    "an odd image": 0.03,
    "a hostile dialogue": 0.05,
    "the database locked": 0.02,
    "the clock put back": 0.01,
}
STORMY = {"serve killed": 0.02, "work killed": 0.02, "the model gone": 0.004}
"""What happens to a part of the exams."""
CHANCES = {"disk": 0.003, "memory": 0.03}
STORMY_CHANCES = CHANCES | {"hang": 0.003, "abort": 0.01}
"""What happens at a part of the flushes, and of the readings, within the processes."""
SETTINGS = """
dicom = {{ port = {port}, callers = [{{ ae_title = "{modality}" }}], acse_timeout = 5, dimse_timeout = 5, network_timeout = 15 }}
storage = {{ folder = "{folder}/store", max_used_percent = 100, min_free_gb = 0 }}
exam = {{ complete_quiet = 1, incomplete_quiet = 20 }}
jobs = {{ lease = 5, time_limit = 60, attempts = 5, first_retry = 0.5, slowest_retry = 2 }}
delivery = {{ first_retry = 0.5, slowest_retry = 2, poll = 0.2 }}
reader = {{ model = "{folder}/model", device = "cpu", threads = 1 }}
http = {{ enabled = false }}
log = {{ format = "json", level = "warning" }}
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
objects = ["SR"]
report = "COMPREHENSIVE"
associations = 2
[[destinations]]
name = "ris"
ae_title = "PACS"
host = "127.0.0.1"
port = {ris}
objects = ["SR"]
report = "COMPREHENSIVE"
"""


def _truncated(image: Dataset) -> None:
    image.PixelData = image.PixelData[:1000]


def _without_view(image: Dataset) -> None:
    del image.ViewCodeSequence
    del image.ViewPosition


def _of_no_depth(image: Dataset) -> None:
    image.BitsStored = 99


def _named_at_length(image: Dataset) -> None:
    image.PatientName = "Ä" * 3000


ODD = (_truncated, _without_view, _of_no_depth, _named_at_length)


@dataclass
class Witness:
    """A PACS that notes what came, and now and then refuses, warns, hangs or hangs up."""

    notes: Path
    rng: np.random.Generator
    counts: Counter[str]
    _lock: Any = field(default_factory=threading.Lock)

    def keep(self, event: evt.Event) -> int:
        """Keep an instance, or not."""
        fate = str(self.rng.choice(["keep", "refuse", "warn", "hang", "hang up"], p=[0.955, 0.015, 0.01, 0.005, 0.015]))
        if fate != "keep":
            self.counts[f"destination: {fate}"] += 1
        if fate == "refuse":
            return 0xA700
        digest = hashlib.sha256(event.encoded_dataset(include_meta=False)).hexdigest()
        with self._lock, self.notes.open("a", encoding="ascii") as notes:
            notes.write(f"{event.dataset.SOPInstanceUID} {digest}\n")
        if fate == "hang":
            time.sleep(7)
        if fate == "hang up":
            event.assoc.abort()
        return 0xB000 if fate == "warn" else 0x0000

    def arrived(self) -> dict[str, Counter[str]]:
        """Return SOP Instance UID → how often each digest of it came."""
        came: dict[str, Counter[str]] = defaultdict(Counter)
        if self.notes.exists():
            for line in self.notes.read_text(encoding="ascii").splitlines():
                uid, digest = line.split()
                came[uid][digest] += 1
        return came


@dataclass
class Soak:
    """One run.

    Attributes
    ----------
    folder
        Its memory.
    total, seed
        How many exams, and what chooses the faults.
    tell
        Gets a line now and then.
    counts
        How often what happened, also before the run was cut off.
    """

    nursery: Nursery
    folder: Path
    total: int
    seed: int
    tell: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    figures: list[dict[str, Any]] = field(default_factory=list)
    _running: dict[str, Offspring] = field(default_factory=dict)

    def run(self) -> None:
        """Let it live, and check what came out."""
        began = time.monotonic()
        (self.folder / "sent").mkdir(parents=True, exist_ok=True)
        self._clock = self.folder / "clock"
        if not self._clock.exists():
            self._clock.write_text("0", encoding="ascii")
            (self.folder / "model").symlink_to(a_quick_model(self.folder / "quick").folder)
        if (self.folder / "aside").exists():
            (self.folder / "aside").rename(self.folder / "model")
        if (self.folder / "counts.json").exists():
            self.counts.update(json.loads((self.folder / "counts.json").read_text(encoding="utf-8")))
        self._template = [tiny(image) for image in phantom_exam(3, small=True, acquired_at=ACQUIRED).images]
        self._witnesses = {
            name: Witness(self.folder / f"{name}.notes", np.random.default_rng(self.seed + number), self.counts)
            for number, name in enumerate(("pacs", "ris"))
        }
        with ExitStack() as stack:
            ports = {name: stack.enter_context(a_pacs(w.keep))[1] for name, w in self._witnesses.items()}
            self._config = self.folder / "mammonode.toml"
            self._config.write_text(
                SETTINGS.format(port=a_free_port(), modality=MODALITY, folder=self.folder, **ports), encoding="utf-8"
            )
            settings = load_settings(self._config)
            self._parts: Parts = open_parts(settings)
            stack.callback(self._parts.engine.dispose)
            self._door = Destination(name="node", ae_title="MAMMONODE", host="127.0.0.1", port=settings.dicom.port)
            self._sender = Sender(Dicom(ae_title=MODALITY, acse_timeout=5, dimse_timeout=30, network_timeout=30))
            try:
                self._live()
            finally:
                for process in self._running.values():
                    process.kill()
            self._check(time.monotonic() - began)

    def _live(self) -> None:
        done = self._ledger("exams")
        for number in range(int(done[-1]) + 1 if done else 0, self.total):
            storm = number < STORM * self.total
            self._exam(number, storm=storm)
            self._note("exams", str(number))
            if number % 20 == 19:
                self._measure(number + 1, storm=storm)
            self._wait(storm=storm, until=lambda: self._backlog()[0] <= BACKLOG)
        self._wait(storm=False, until=lambda: self._backlog() == (0, 0))
        self._measure(self.total, storm=False)

    def _exam(self, number: int, *, storm: bool) -> None:
        rng = np.random.default_rng((self.seed, number))
        happens = {what for what, part in (ANY_TIME | (STORMY if storm else {})).items() if rng.random() < part}
        self.counts.update(happens)
        images = [self._image(view, number) for view in range(4)]
        if "an odd image" in happens:
            ODD[rng.integers(len(ODD))](images[3])
            self._note("odd", images[3].StudyInstanceUID)
        with self._trouble(happens, rng, images):
            self._send(images)
        if "the whole exam again" in happens:
            self._send(images)
        if "a repeated view" in happens:
            time.sleep(float(rng.uniform(0, 2)))
            repeat = self._image(0, number, 5)
            repeat.AcquisitionTime, repeat.InstanceNumber = "235959", 99
            self._send([repeat])

    @contextmanager
    def _trouble(self, happens: set[str], rng: np.random.Generator, images: list[Dataset]) -> Iterator[None]:
        number = int(rng.integers(1 << 30))
        others: list[threading.Thread] = []
        if "a hostile dialogue" in happens:
            others.append(threading.Thread(target=self._quarrel, args=(number,)))
        if "the database locked" in happens:
            others.append(threading.Thread(target=self._lock, args=(float(rng.uniform(1, 5)),)))
        if "an image cut off" in happens:
            others.append(threading.Thread(target=self._cut, args=(images[1],)))
        if "the clock put back" in happens:
            shift = float(self._clock.read_text(encoding="ascii")) - float(rng.choice([2, 60, 3600, 86400]))
            self._replace(self._clock, str(shift))
        if "the model gone" in happens:
            (self.folder / "model").rename(self.folder / "aside")
            self._running["work"].kill()
            self._begin("work", storm=True)
            self._running["work"].wait()
            (self.folder / "aside").rename(self.folder / "model")
        for command in POINTS:
            if f"{command} killed" in happens and command in self._running:
                process = self._running[command]
                others += [threading.Timer(float(rng.uniform(0, 1)), process.kill)]
        for other in others:
            other.start()
        yield
        for other in others:
            other.join()

    def _image(self, view: int, exam: int, place: int | None = None) -> Dataset:
        image = deepcopy(self._template[view])
        study = f"1.2.826.0.1.3680043.8.498.{self.seed}.{exam}"
        image.PatientID, image.StudyInstanceUID, image.SeriesInstanceUID = f"SOAK-{exam}", study, f"{study}.1"
        image.SOPInstanceUID = f"{study}.1.{place or view + 1}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        return image

    def _send(self, images: list[Dataset]) -> None:
        """Send until all are accepted; the ledger knows each before it may be forgotten."""
        left = [self.folder / "sent" / f"{image.SOPInstanceUID}.dcm" for image in images]
        for image, file in zip(images, left, strict=True):
            image.save_as(file, enforce_file_format=True)
        while left:
            self._tend()
            accepted = []
            with suppress(NodeError):
                for file, response in zip(left, self._sender.send(self._door, list(map(Item.of, left))), strict=False):
                    self.counts["sendings"] += 1
                    if response.status == 0x0000:
                        accepted.append(file)
                        self._note("acknowledged", f"{file.stem} {dataset_digest(file)}")
            left = [file for file in left if file not in accepted]
            if left:
                time.sleep(0.1)
        for image in images:
            (self.folder / "sent" / f"{image.SOPInstanceUID}.dcm").unlink(missing_ok=True)

    def _quarrel(self, number: int) -> None:
        with suppress(OSError):
            for uid in play(self._door.port, pdu_case(self.seed, number)):
                self._note("confirmed", uid)

    def _lock(self, seconds: float) -> None:
        path = self.folder / "store" / "mammonode.sqlite"
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    def _cut(self, image: Dataset) -> None:
        with suppress(AssertionError, OSError), half_sent(self._door, image):
            pass

    def _begin(self, command: str, *, storm: bool) -> None:
        faults: dict[str, Any] = {
            "chances": STORMY_CHANCES if storm else CHANCES,
            "seed": time.time_ns(),
            "clock": str(self._clock),
            "masses": False,  # encoding them would take most of the time
        }
        self._running[command] = self.nursery.start(command, self._config, self.folder / f"{command}.log", **faults)

    def _tend(self, *, storm: bool = True) -> None:
        """Start what is dead; once the storm is over, what was started in it is started anew, for the last time."""
        for command in POINTS:
            process = self._running.get(command)
            if process is not None and not storm and not self._calm(command):
                process.kill()
            if process is None or not process.alive():
                if process is not None:
                    self.counts[f"{command} ended: {process.status}"] += 1
                self._begin(command, storm=storm)

    def _calm(self, command: str) -> bool:
        calm: set[str] = vars(self).setdefault("_after", set())
        known = command in calm
        calm.add(command)
        return known

    def _wait(self, *, storm: bool, until: Callable[[], bool]) -> None:
        deadline, seen = time.monotonic() + GONE, self._backlog()
        while True:
            self._tend(storm=storm)
            if until():
                return
            now = self._backlog()
            if now != seen:
                deadline, seen = time.monotonic() + GONE, now
            assert time.monotonic() < deadline, [process.tail() for process in self._running.values()]
            time.sleep(0.3)

    def _backlog(self) -> tuple[int, int]:
        """Return how many exams wait for an answer, and how many results to be sent."""
        with reading(self._parts.engine) as connection:
            unanswered = select(func.count()).where(exams.c.state.in_([ExamState.COLLECTING, ExamState.QUEUED]))
            unsent = select(func.count()).where(deliveries.c.state == DeliveryState.WAITING)
            return connection.execute(unanswered).scalar_one(), connection.execute(unsent).scalar_one()

    def _measure(self, number: int, *, storm: bool) -> None:
        for command, process in self._running.items():
            with suppress(FileNotFoundError, ProcessLookupError):
                proc = Path(f"/proc/{process.pid}")
                status = dict(line.split(":", 1) for line in (proc / "status").read_text("ascii").splitlines())
                figure = {
                    "exams": number,
                    "storm": storm,
                    "command": command,
                    "pid": process.pid,
                    "mb": round(int(status["VmRSS"].split()[0]) / 1024),
                    "threads": int(status["Threads"]),
                    "files": len(list((proc / "fd").iterdir())),
                }
                self._note("figures", json.dumps(figure))
        self._remember()
        if number % 100 == 0 or number == self.total:
            self.tell(f"{number} of {self.total} exams; backlog {self._backlog()}; {dict(self.counts)}")

    def _remember(self) -> None:
        """Note what has happened so far, for a run that goes on after this one was cut off."""
        self._replace(self.folder / "counts.json", json.dumps(self.counts))

    def _note(self, name: str, line: str) -> None:
        with (self.folder / f"{name}.ledger").open("a", encoding="ascii") as ledger:
            ledger.write(line + "\n")

    def _ledger(self, name: str) -> list[str]:
        path = self.folder / f"{name}.ledger"
        return path.read_text(encoding="ascii").splitlines() if path.exists() else []

    def _replace(self, path: Path, text: str) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_text(text, encoding="ascii")
        fresh.replace(path)

    def _check(self, seconds: float) -> None:
        parts, acknowledged = self._parts, dict(line.split() for line in self._ledger("acknowledged"))
        with reading(parts.engine) as connection:
            for uid, digest in acknowledged.items():
                record = find_instance(connection, uid)
                assert record, f"{uid} was acknowledged and is not indexed"
                assert dataset_digest(parts.store.resolve(record.path)) == digest, uid
            for uid in self._ledger("confirmed"):
                assert find_instance(connection, uid), f"{uid} was confirmed to a hostile sender and is not indexed"
            kept = connection.execute(select(func.count()).select_from(instances)).scalar_one()
            known = list_exams(connection, 100_000)
        assert len(list((parts.store.root / "instances").rglob("*.dcm"))) == kept
        assert list(parts.store.incoming.iterdir()) == []
        ours = [exam for exam in known if exam.patient.patient_id.startswith("SOAK-")]
        assert len(ours) == self.total
        whole = {exam.study_uid for exam in ours} - set(self._ledger("odd"))
        expected: dict[str, set[str]] = {name: set() for name in self._witnesses}
        perhaps: dict[str, set[str]] = {name: set() for name in self._witnesses}
        answers: Counter[str] = Counter()
        for exam in known:
            assert exam.state in {ExamState.ANSWERED, ExamState.FAILED}, exam
            assert exam.status, exam
            if exam.study_uid in whole:
                assert exam.status == "no findings", exam
            answers[exam.status] += 1
            jobs = parts.queue.list_jobs(100, exam_id=exam.id)
            answered = [job.revision for job in jobs if job.state in {JobState.DONE, JobState.DEAD}]
            assert {job.state for job in jobs} <= {JobState.DONE, JobState.DEAD, JobState.SUPERSEDED}, jobs
            assert max(answered) == exam.revision
            sent = parts.outbox.of_exam(exam.id)
            for name in self._witnesses:
                mine = [delivery for delivery in sent if delivery.destination == name]
                # What was refused for now, and overtaken by a later answer, is not sent after it.
                assert all(
                    delivery.state is DeliveryState.SENT
                    or (delivery.state is DeliveryState.RECALLED and delivery.revision < exam.revision)
                    for delivery in mine
                ), mine
                reports = Counter(delivery.revision for delivery in mine if delivery.kind == "SR")
                assert reports == dict.fromkeys(answered, 1), f"{name}: {reports}"
                expected[name] |= {delivery.result_uid for delivery in mine if delivery.sent_at}
                # A try before the one in which it was overtaken may have been kept, though the answer was lost.
                tried = [delivery for delivery in mine if not delivery.sent_at and delivery.attempts > 1]
                perhaps[name] |= {delivery.result_uid for delivery in tried}
        repeats = results = 0
        for name, witness in self._witnesses.items():
            arrived = witness.arrived()
            assert set(arrived) - perhaps[name] == expected[name]
            assert all(len(digests) == 1 for digests in arrived.values())
            results += len(arrived)
            repeats += sum(sum(digests.values()) - 1 for digests in arrived.values())
        revised = sum(exam.revision > 1 for exam in known)
        self.tell(
            f"seed {self.seed}: {len(ours)} exams and {len(known) - len(ours)} of hostile senders, {revised} revised, "
            f"{len(acknowledged)} images acknowledged and kept bit for bit, answers {dict(answers)}, "
            f"{results} results arrived, {repeats} times one again; {seconds / 60:.1f} minutes"
        )
        self.tell("; ".join(f"{what} {number}" for what, number in sorted(self.counts.items())))
        self._flat()

    def _flat(self) -> None:
        """Check that the processes of the time without kills did not grow; tell how large they were."""
        figures = [json.loads(line) for line in self._ledger("figures")]
        calm = [figure for figure in figures if not figure["storm"]]
        for command in POINTS:
            mine = [figure for figure in calm if figure["command"] == command]
            mine = [figure for figure in mine if figure["pid"] == mine[-1]["pid"]]
            early, late = mine[len(mine) // 4], mine[-1]
            self.tell(
                f"{command}, one process: "
                + "; ".join(
                    f"{figure['exams']} exams: {figure['mb']} MB, {figure['files']} files, {figure['threads']} threads"
                    for figure in (mine[0], early, late)
                )
            )
            assert late["mb"] < 1.3 * early["mb"] + 30, command
            assert late["files"] <= early["files"] + 10, command
            assert late["threads"] <= early["threads"] + 5, command


def main() -> None:
    """Run, or go on with a run."""
    folder = Path(sys.argv[1]).absolute()
    total = int(sys.argv[2]) if len(sys.argv) > 2 else EXAMS
    folder.mkdir(parents=True, exist_ok=True)
    with a_nursery() as nursery:
        Soak(nursery, folder, total, 1, lambda line: print(line, flush=True)).run()  # noqa: T201


if __name__ == "__main__":
    main()
