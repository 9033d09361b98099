"""A long life with sudden deaths: processes are killed, a modality goes on sending, and a model says what must come out."""

import hashlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import evt

from config.settings import Dicom
from node.errors import NodeError
from node.records import dataset_offset, read_header
from node.scu import Item, Sender
from storage.database import reading
from storage.exams import ExamRecord, list_exams
from storage.index import find_instance
from storage.results import results_of
from storage.states import DeliveryState, ExamState, JobState
from tests.acceptance.nodes import MODALITY, PATIENCE, Site, a_site, an_exam, patiently, tiny
from tests.faults import POINTS, Nursery, Offspring
from tests.pacs import a_pacs

KINDS = {"pacs": '["SEG", "SR"]', "ris": '["SR"]'}
IDLE = 1.2
"""Seconds after which a process that has not met its end by itself is killed."""
READY = {"serve": "ready", "work": "worker ready"}
"""What each logs then; before every second death it is waited for: on a busy machine nobody would ever get beyond the start."""


def dataset_digest(path: Path) -> str:
    """Return the digest of a file's data set, without its File Meta Information."""
    return hashlib.sha256(path.read_bytes()[dataset_offset(read_header(path)) :]).hexdigest()


@dataclass
class Witness:
    """A PACS that remembers what came, how often, and sometimes hangs up after keeping it."""

    rng: np.random.Generator
    digests: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    studies: dict[str, str] = field(default_factory=dict)
    arrivals: int = 0

    def keep(self, event: evt.Event) -> int:
        """Keep an instance."""
        uid = str(event.dataset.SOPInstanceUID)
        self.digests[uid].add(hashlib.sha256(event.encoded_dataset(include_meta=False)).hexdigest())
        self.studies[uid] = str(event.dataset.StudyInstanceUID)
        self.arrivals += 1
        if self.rng.random() < 0.1:
            event.assoc.abort()
        return 0x0000


class Modality:
    """Sends exams one after the other, and each image until it is accepted.

    Attributes
    ----------
    acknowledged
        SOP Instance UID → the file that was accepted.
    tries
        How often an image was sent.
    """

    def __init__(self, folder: Path, site: Site) -> None:
        self._folder, self._site = folder, site
        self._sender = Sender(Dicom(ae_title=MODALITY, acse_timeout=5, dimse_timeout=30, network_timeout=30))
        self._template = [tiny(image) for image in an_exam("TEMPLATE")]
        self.acknowledged: dict[str, Path] = {}
        self.tries = 0
        folder.mkdir()

    def new_exam(self, number: int) -> list[Path]:
        """Write an exam of a new patient."""
        study, series = generate_uid(), generate_uid()
        return [self._write(image, f"KILL-{number}", study, series) for image in self._template]

    def repeat(self, file: Path) -> Path:
        """Write an image of the same view, taken later."""
        image = dcmread(file)
        image.AcquisitionTime = "235959"
        image.InstanceNumber = 99
        return self._write(image, image.PatientID, image.StudyInstanceUID, image.SeriesInstanceUID)

    def _write(self, image: Dataset, patient: str, study: str, series: str) -> Path:
        copy = deepcopy(image)
        copy.PatientID, copy.StudyInstanceUID, copy.SeriesInstanceUID = patient, study, series
        copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        path = self._folder / f"{copy.SOPInstanceUID}.dcm"
        copy.save_as(path, enforce_file_format=True)
        return path

    def send(self, files: Sequence[Path], stopping: threading.Event) -> None:
        """Send until every file is accepted."""
        while (left := [file for file in files if file.stem not in self.acknowledged]) and not stopping.is_set():
            try:
                responses = self._sender.send(self._site.door, [Item.of(file) for file in left])
                for file, response in zip(left, responses, strict=False):
                    self.tries += 1
                    if response.status == 0x0000:
                        self.acknowledged[file.stem] = file
            except NodeError:
                stopping.wait(0.1)


@dataclass
class KillRun:
    """One run.

    Attributes
    ----------
    kills
        How many processes are killed.
    seed
        Chooses victims, instants and what is sent.
    tell
        Gets a line now and then.
    database
        URL; SQLite beside the files by default.
    strike
        Ends the database's server at once and starts it again.
    counts
        How often what was killed.
    """

    nursery: Nursery
    folder: Path
    kills: int
    seed: int
    tell: Callable[[str], None]
    database: str = ""
    strike: Callable[[], None] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    _running: dict[str, Offspring] = field(default_factory=dict)
    _armed: dict[str, tuple[str, str, int] | None] = field(default_factory=dict)

    def run(self) -> None:
        """Let it live, and check what came out."""
        self._rng = np.random.default_rng(self.seed)
        witnesses = {name: Witness(np.random.default_rng(self.seed + i)) for i, name in enumerate(("pacs", "ris"))}
        with ExitStack() as stack:
            ports = {name: stack.enter_context(a_pacs(w.keep))[1] for name, w in witnesses.items()}
            self._site = stack.enter_context(
                a_site(
                    self.folder,
                    database=self.database,
                    exam="incomplete_quiet = 60",
                    jobs="lease = 2\nattempts = 1000\nfirst_retry = 0.2\nslowest_retry = 1",
                    # One report for both, without another form of it: what takes time is not what is tried here.
                    mixes={name: 'report = "COMPREHENSIVE"\nobjects = ' + kinds for name, kinds in KINDS.items()},
                    ports=ports,
                )
            )
            self._modality = Modality(self.folder / "sent", self._site)
            self._live()
            self._check(witnesses)

    def _live(self) -> None:
        exams = max(self.kills // 4, 2)
        stopping = threading.Event()
        sending = threading.Thread(target=self._send, args=(exams, stopping), daemon=True)
        sending.start()
        try:
            while sum(self.counts.values()) < self.kills:
                self._kill_one()
            for command in POINTS:
                self._begin(command, None)
            sending.join(self.kills * PATIENCE)
            assert not sending.is_alive()
            assert any(patiently(lambda: self._settled(exams)) for _ in range(1 + self.kills // 20)), [
                process.tail() for process in self._running.values()
            ]
        finally:
            stopping.set()
            sending.join()
        for process in self._running.values():
            process.kill()

    def _send(self, exams: int, stopping: threading.Event) -> None:
        rng = np.random.default_rng(self.seed + 100)
        for number in range(exams):
            files = self._modality.new_exam(number)
            self._modality.send(files, stopping)
            if number % 3 == 1:  # a repeated view, now or after the answer
                stopping.wait(rng.uniform(0, 2))
                self._modality.send([self._modality.repeat(files[0])], stopping)
            if number % 4 == 2:  # and all once more
                self._modality.acknowledged.pop(files[1].stem)
                self._modality.send(files, stopping)

    def _begin(self, command: str, crash: tuple[str, str, int] | None) -> None:
        former = self._running.get(command)
        if former:
            former.kill()
        log = self.folder / f"{command}.log"
        self._armed[command] = crash
        self._running[command] = self.nursery.start(command, self._site.config, log, crash=crash)

    def _kill_one(self) -> None:
        """Start what is dead, and wait until one process has met its end, or bring it about."""
        for command, points in POINTS.items():
            if command not in self._running or not self._running[command].alive():
                crash = None
                if self._rng.random() < 0.7:
                    moment = "before" if self._rng.random() < 0.5 else "after"
                    point = str(self._rng.choice(points))
                    hits = 80 if point == "commit" else 12  # looking at an empty queue ends with a commit too
                    crash = (point, moment, int(self._rng.integers(1, hits)))
                self._begin(command, crash)
        if sum(self.counts.values()) % 2:
            assert patiently(lambda: all(map(self._is_ready_or_dead, READY)))
        deadline = time.monotonic() + self._rng.uniform(0.1, IDLE)
        while time.monotonic() < deadline and all(process.alive() for process in self._running.values()):
            time.sleep(0.01)
        dead = [command for command, process in self._running.items() if not process.alive()]
        for command in dead:
            assert self._running[command].status == -9, self._running[command].tail()
            point, moment, _ = self._armed[command] or ("?", "?", 0)
            self._count(f"{command} {moment} {point}")
        if not dead and self.strike and self._rng.random() < 0.5:
            self.strike()
            self._count("database")
        elif not dead:
            command = str(self._rng.choice(list(POINTS)))
            self._running[command].kill()
            self._count(f"{command} at any time")

    def _is_ready_or_dead(self, command: str) -> bool:
        process = self._running[command]
        return any(line["event"] == READY[command] for line in process.lines()) or not process.alive()

    def _count(self, what: str) -> None:
        self.counts[what] += 1
        killed = sum(self.counts.values())
        if killed % 10 == 0:
            self.tell(f"{killed} of {self.kills} kills; {len(self._modality.acknowledged)} images acknowledged")

    def _exams(self) -> list[ExamRecord]:
        with reading(self._site.parts.engine) as connection:
            return list_exams(connection, 1000)

    def _settled(self, number: int) -> bool:
        exams = self._exams()
        outbox = self._site.parts.outbox
        return (
            len(exams) == number
            and all(exam.state in {ExamState.ANSWERED, ExamState.FAILED} for exam in exams)
            and all(counts[DeliveryState.WAITING] == 0 for counts in outbox.counts().values())
        )

    def _check(self, witnesses: dict[str, Witness]) -> None:
        parts = self._site.parts
        with reading(parts.engine) as connection:
            for uid, sent in self._modality.acknowledged.items():
                record = find_instance(connection, uid)
                assert record, f"{uid} was acknowledged and is not indexed"
                assert dataset_digest(parts.store.resolve(record.path)) == dataset_digest(sent), uid
            issued = {exam.uid: results_of(connection, exam.id) for exam in self._exams()}
        assert {path.stem for path in (parts.store.root / "instances").rglob("*.dcm")} == set(
            self._modality.acknowledged
        )
        expected: dict[str, set[str]] = {name: set() for name in witnesses}
        for exam in self._exams():
            assert (exam.state, exam.status) == (ExamState.ANSWERED, "findings")
            jobs = parts.queue.list_jobs(100, exam_id=exam.id)
            # A revision that was overtaken before it was read is not answered; the last one is.
            done = [job.revision for job in jobs if job.state is JobState.DONE]
            assert {job.state for job in jobs} <= {JobState.DONE, JobState.SUPERSEDED}, jobs
            assert len({job.revision for job in jobs}) == len(jobs)
            assert max(done) == exam.revision
            deliveries = parts.outbox.of_exam(exam.id)
            assert {delivery.state for delivery in deliveries} == {DeliveryState.SENT}
            for name in witnesses:
                mine = [delivery for delivery in deliveries if delivery.destination == name]
                reports = Counter(delivery.revision for delivery in mine if delivery.kind == "SR")
                assert reports == dict.fromkeys(done, 1), f"{name}: {reports}"
                expected[name] |= {delivery.result_uid for delivery in mine}
            assert {delivery.result_uid for delivery in deliveries} <= {r.record.uid for r in issued[exam.uid]}
        for name, witness in witnesses.items():
            assert set(witness.digests) == expected[name]
            assert all(len(digests) == 1 for digests in witness.digests.values())
        repeats = sum(w.arrivals - len(w.digests) for w in witnesses.values())
        revised = sum(exam.revision > 1 for exam in self._exams())
        self.tell(
            f"seed {self.seed}: {sum(self.counts.values())} kills, {len(issued)} exams ({revised} revised), "
            f"{len(self._modality.acknowledged)} images acknowledged in {self._modality.tries} tries, "
            f"{sum(len(w.digests) for w in witnesses.values())} results arrived, {repeats} of them again; "
            + ", ".join(f"{number} {what}" for what, number in sorted(self.counts.items()))
        )
