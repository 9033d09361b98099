"""The self-test: a synthetic exam with known truth goes in through the real door and must come out as it must.

Every component can look healthy while no exam gets through; only an answer proves that one does.
"""

import errno
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom import Dataset

from ai.exam import Laterality
from ai.phantom.lesions import Lesion
from config.settings import TEST_AE_TITLE, Caller, Dicom
from node.demo.pacs import DemoPacs, Received, received_for, status_of
from node.doors import itself
from node.errors import NodeError
from node.identity import TEST_ISSUER
from node.intake import utc_now
from node.parts import Parts
from node.phantom import PhantomExam, phantom_exam
from node.scu import Item, Sender
from node.status import SUCCESS
from node.telemetry import logger
from node.tls import Transport
from storage.database import reading, writing
from storage.errors import StorageError
from storage.exams import ExamRecord, list_exams
from storage.selftests import SelfTest, note
from storage.states import ExamState, JobState

log = logger("selftest")

SEED = 34
MASS = Lesion(
    laterality=Laterality.LEFT, depth=0.5, lateral=0.0, vertical=0.0, radius=10.0, irregularity=0.1, conspicuity=1.0
)
"""A mass that no reader of masses should miss: 20 mm, in the middle of the left breast."""
POLL = 0.2


class Failed(Exception):
    """The exam did not come through.

    Parameters
    ----------
    phase
        Where it got stuck.
    cause
        Why, in words.
    """

    def __init__(self, phase: str, cause: str) -> None:
        super().__init__(cause)
        self.phase = phase
        self.cause = cause


@dataclass(frozen=True)
class SelfTestRun:
    """What one run works with."""

    parts: Parts
    exam: PhantomExam
    pacs: DemoPacs

    @property
    def study(self) -> str:
        """The study of the exam."""
        return str(self.exam.images[0].StudyInstanceUID)


def run_selftest(parts: Parts) -> SelfTest:
    """Send the exam, wait for its answer, judge it, and keep and log what came of it.

    Parameters
    ----------
    parts
        Of the node that is tested; its ``serve`` and a worker must run.
    """
    settings = parts.settings
    began, clock = utc_now(), time.monotonic()
    exam = synthetic_exam(began)
    failed: Failed | None = None
    with tempfile.TemporaryDirectory(prefix="mammonode-selftest-") as name:
        here = Dicom(
            ae_title=TEST_AE_TITLE,
            port=settings.selftest.port,
            callers=(Caller(ae_title=settings.dicom.ae_title),),
        )
        run = SelfTestRun(parts, exam, DemoPacs(Path(name) / "received", here))
        try:
            _listen(run, clock + settings.selftest.time_limit)
            clock = time.monotonic()
            try:
                _send(run, Path(name))
                _judge(run, _answer(run, clock + settings.selftest.time_limit))
            finally:
                run.pacs.stop()
        except Failed as error:
            failed = error
        except StorageError as error:
            failed = Failed("start", str(error))
    record = _exam(run)
    test = SelfTest(
        started_at=began,
        seconds=round(time.monotonic() - clock, 1),
        passed=failed is None,
        phase=failed.phase if failed else "",
        cause=failed.cause if failed else "",
        exam=record.uid if record else "",
    )
    with writing(parts.engine) as connection:
        note(connection, test)
    if failed:
        log.error("self-test failed", exam=test.exam, phase=test.phase, cause=test.cause, seconds=test.seconds)
    else:
        log.info("self-test passed", exam=test.exam, seconds=test.seconds)
    return test


def synthetic_exam(now: datetime) -> PhantomExam:
    """Return the exam of a self-test at an aware time: a patient that cannot be taken for one, and a known mass."""
    number = f"SELFTEST-{now.astimezone(UTC):%Y%m%d%H%M%S%f}"
    exam = phantom_exam(SEED, patient_id=number, masses=[MASS], small=True, acquired_at=now.astimezone())
    for image in exam.images:
        image.PatientName = "SELF-TEST^SYNTHETIC"
        image.IssuerOfPatientID = TEST_ISSUER
    return exam


def _listen(run: SelfTestRun, deadline: float) -> None:
    """Listen, once a self-test that runs already has let the port go."""
    while True:
        try:
            run.pacs.start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(POLL)
                continue
            port = run.parts.settings.selftest.port
            raise Failed("start", f"selftest.port {port} cannot be listened on: {error.strerror}") from error
        return


def _send(run: SelfTestRun, folder: Path) -> None:
    dicom = run.parts.settings.dicom
    items = []
    for number, image in enumerate(run.exam.images):
        path = folder / f"{number}.dcm"
        image.save_as(path, enforce_file_format=True)
        items.append(Item.of(path))
    try:
        sender = Sender(dicom.model_copy(update={"ae_title": TEST_AE_TITLE}), Transport.open(run.parts.settings.tls))
        door = itself(run.parts.settings, dicom.port)
        statuses = [response.status for response in sender.send(door, items)]
    except NodeError as error:
        raise Failed("receive", f"the DICOM door lets nobody in: {error}") from error
    if statuses != [SUCCESS] * len(items):
        told = ", ".join("no answer" if status is None else f"{status:04X}H" for status in statuses)
        raise Failed("receive", f"the DICOM door did not take every image: {told}")


def _answer(run: SelfTestRun, deadline: float) -> Received:
    """Wait until a report and every segmentation that it names have come."""
    while time.monotonic() < deadline:
        received = received_for(run.study, run.pacs.objects())
        if received.reports and not received.faults:
            return received
        time.sleep(POLL)
    raise _stuck(run)


def _stuck(run: SelfTestRun) -> Failed:
    """Say where the exam is."""
    record = _exam(run)
    if record is None or record.state is ExamState.COLLECTING:
        return Failed(
            "assemble", "its images came in and the exam was not closed: is serve running, the quiet time short?"
        )
    jobs = run.parts.queue.list_jobs(1, exam_id=record.id)
    if record.state is ExamState.QUEUED:
        running = jobs and jobs[0].state is JobState.RUNNING
        return Failed("read", "a worker reads it still" if running else "no worker has taken it: does one run?")
    received = received_for(run.study, run.pacs.objects())
    faults = "; ".join(received.faults) if received.reports else "nothing came"
    return Failed("deliver", f"the exam is {record.state}, and at the test destination: {faults}")


def _judge(run: SelfTestRun, received: Received) -> None:
    told = status_of(received.reports[0])
    record = _exam(run)
    if record is None or record.status not in {"findings", "no findings"}:
        raise Failed("read", f"the answer is not that of a whole exam that was read: {told}")
    if run.parts.settings.selftest.expect_finding and not any(
        _shows(segmentation, run.exam) for segmentation in received.segmentations
    ):
        raise Failed("read", f"the mass that is in the exam is not in the answer: {told}")


def _shows(segmentation: Dataset, exam: PhantomExam) -> bool:
    """Tell whether a segment lies over the middle of a mass that is in its image."""
    frames = np.atleast_3d(segmentation.pixel_array).reshape(-1, segmentation.Rows, segmentation.Columns)
    source = _source(segmentation)
    for mass in exam.truth:
        if str(exam.image(mass.view).SOPInstanceUID) == source:
            left, top, width, height = mass.box
            if np.any(frames[:, top + height // 2, left + width // 2]):
                return True
    return False


def _source(segmentation: Dataset) -> str:
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    first = segmentation.PerFrameFunctionalGroupsSequence[0]
    groups = first if "DerivationImageSequence" in first else shared
    return str(groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)


def _exam(run: SelfTestRun) -> ExamRecord | None:
    try:
        with reading(run.parts.engine) as connection:
            recent = list_exams(connection, 500)
    except StorageError:
        return None
    return next((record for record in recent if record.study_uid == run.study), None)
