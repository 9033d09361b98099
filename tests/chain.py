"""The chain from an arriving image to the outbox within one process: real store, index, clock and queue, a fake reader."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import Engine

from ai.errors import NoBreast
from ai.exam import STANDARD_VIEWS, Exam, Laterality, View, ViewImage
from ai.findings import BreastScore, ExamFindings, ImageFindings, ModelIdentity
from ai.readers.base import Reader
from config.mix import ResultKind
from config.policy import CompletionPolicy, ScorePolicy
from config.settings import Destination
from node.answering import NO_SCORE_POLICY
from node.clock import ExamClock
from node.intake import Intake
from node.results.facts import FACTS
from node.worker import Worker
from storage.database import reading
from storage.exams import ExamRecord, list_exams
from storage.jobs import Job, JobQueue
from storage.outbox import Outbox
from storage.results import IssuedResult, ResultRecord, results_of
from storage.states import JobState
from tests.answers import MODEL as READER_MODEL
from tests.answers import a_mass
from tests.builders import altered
from tests.doors import ROOM_ENOUGH, Clock, Room, phantom_images
from tests.pacs import a_store
from tests.records import LEASE, POLICY

QUIET = CompletionPolicy(timedelta(seconds=10), timedelta(seconds=300), timedelta(hours=2))
PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
REPORTS_ONLY = Destination(name="ris", ae_title="RIS", host="127.0.0.1", port=105, objects=("SR",))


@dataclass
class FakeReader:
    """Finds one square mass in every image.

    Attributes
    ----------
    masses
        Whether it finds any.
    no_breast
        Views in which it sees no breast.
    meanwhile
        Called with each exam before it answers; what it raises, the reader raises.
    exams
        What it was given.
    """

    masses: bool = True
    no_breast: tuple[View, ...] = ()
    meanwhile: Callable[[Exam], None] = lambda _: None
    model: ModelIdentity = READER_MODEL
    device: str = "fake"
    exams: list[Exam] = field(default_factory=list)

    def read(self, exam: Exam) -> ExamFindings:
        """Answer, always the same for the same exam."""
        self.exams.append(exam)
        self.meanwhile(exam)
        for image in exam.images:
            if image.view in self.no_breast:
                raise NoBreast(image.uid)
        images = tuple(map(self.found, exam.images))
        sides = {image.view.laterality for image in images}
        breasts = tuple(BreastScore(side, 83) for side in Laterality if side in sides)
        return ExamFindings(self.model, images, breasts, 83)

    def found(self, image: ViewImage) -> ImageFindings:
        """Return what it finds in an image."""
        mask = np.zeros(image.shape, np.bool_)
        mask[200:240, 100:150] = True
        return ImageFindings(image.uid, image.view, image.shape, (a_mass(mask),) if self.masses else (), 83, 0.8)


@dataclass
class Chain:
    """Everything between a door and a lane, on a clock that stands until it is put forward."""

    room: Room
    clock: Clock
    queue: JobQueue
    outbox: Outbox
    reader: FakeReader

    def exam_clock(self, **settings: Any) -> ExamClock:
        """Return the exam clock."""
        return ExamClock(self.room.engine, QUIET, self.reader.model.digest, self.clock, **settings)

    def worker(
        self,
        owner: str = "worker",
        heartbeat: float = 60,
        destinations: Sequence[Destination] = (PACS, REPORTS_ONLY),
        reader: Reader | None = None,
        scoring: ScorePolicy = NO_SCORE_POLICY,
    ) -> Worker:
        """Return a worker."""
        return Worker(
            self.room.engine,
            self.room.store,
            self.queue,
            reader or self.reader,
            destinations,
            settings_digest="settings",
            owner=owner,
            heartbeat=heartbeat,
            time_limit=600,
            on_hang=lambda: pytest.fail("the reading took ten minutes"),
            clock=self.clock,
            scoring=scoring,
        )

    def receive(self, images: Iterable[Dataset]) -> None:
        """Let images come in."""
        for image in images:
            self.room.receive(image)

    def close(self, images: Iterable[Dataset]) -> Job:
        """Let images come in, wait until their exam is closed, and return its job."""
        self.receive(images)
        self.clock.forward(QUIET.incomplete_quiet)
        assert self.exam_clock().tick() == 1
        return self.job

    @property
    def exam(self) -> ExamRecord:
        """The exam; there is one."""
        with reading(self.room.engine) as connection:
            [exam] = list_exams(connection, 2)
        return exam

    @property
    def job(self) -> Job:
        """The newest job."""
        return self.queue.list_jobs(1)[0]

    def issued(self) -> list[IssuedResult]:
        """Return all that was handed over, newest revision first."""
        with reading(self.room.engine) as connection:
            return results_of(connection, self.exam.id)

    def sent_to(self, destination: str = PACS.name) -> list[ResultRecord]:
        """Return the results for a destination, newest revision first."""
        addressed = {d.result_uid for d in self.outbox.of_exam(self.exam.id) if d.destination == destination}
        return [result.record for result in self.issued() if result.record.uid in addressed]

    def of_kind(self, kind: ResultKind, destination: str = PACS.name) -> list[Dataset]:
        """Return the result objects of a kind for a destination, as they lie in the store."""
        records = [record for record in self.sent_to(destination) if record.kind == kind]
        return [dcmread(self.room.store.resolve(record.path)) for record in records]

    def facts(self) -> list[dict[str, Any]]:
        """Return the facts that were kept, newest revision first."""
        kept = [result.record for result in self.issued() if result.record.kind == FACTS]
        return [json.loads(self.room.store.resolve(record.path).read_bytes()) for record in kept]

    @property
    def report(self) -> Dataset:
        """The newest report."""
        return self.of_kind(ResultKind.SR)[0]


def a_chain(folder: Path, engine: Engine) -> Chain:
    """Return an empty node."""
    clock, store = Clock(), a_store(folder)
    room = Room(store, engine, Intake(store, engine, ROOM_ENOUGH, clock=clock))
    return Chain(room, clock, JobQueue(engine, POLICY, LEASE), Outbox(engine, POLICY), FakeReader())


def text_of(report: Dataset) -> str:
    """Return all sentences and tracking identifiers of a report, one a line."""
    return "\n".join(_texts(report.ContentSequence))


def _texts(items: Sequence[Dataset]) -> Iterable[str]:
    for item in items:
        if item.ValueType == "TEXT":
            yield str(item.TextValue)
        yield from _texts(item.get("ContentSequence", ()))


def summary_of(report: Dataset) -> str:
    """Return the code value of a report's CAD Processing and Findings Summary for the exam (111017, DCM)."""
    found = [
        str(item.ConceptCodeSequence[0].CodeValue)
        for container in report.ContentSequence
        for item in container.get("ContentSequence", ())
        if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeValue == "111017"
    ]
    [summary] = found
    return summary


def four() -> list[Dataset]:
    """Return the images of an exam of four views."""
    return list(phantom_images())


def of_view(view: View) -> Dataset:
    """Return the one of `four` that shows a view."""
    return phantom_images()[STANDARD_VIEWS.index(view)]


def undecodable(image: Dataset) -> Dataset:
    """Return an image whose pixel data end too early."""
    return altered(image, PixelData=image.PixelData[: len(image.PixelData) // 2])


def breaks(_exam: Exam) -> None:
    """Raise what a reader may, with a patient's name in its text."""
    raise RuntimeError("something about FOUR VIEWS")


def repeated(image: Dataset, number: int, **changes: object) -> Dataset:
    """Return an image of the same view that was taken later."""
    uid = f"{image.SOPInstanceUID}.{number}"
    return altered(image, SOPInstanceUID=uid, AcquisitionTime=f"23595{number}", **changes)


def predecessors_of(report: Dataset) -> set[str]:
    """Return the reports that a report supersedes."""
    return {
        str(reference.ReferencedSOPInstanceUID)
        for study in report.PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }


def exhaust(chain: Chain) -> None:
    """Let a job fail until it is given up."""
    while chain.job.state is JobState.QUEUED:
        chain.worker().work_once()
        chain.clock.forward(timedelta(minutes=1))
