"""A node as its operator sees it: a settings file, processes, a modality before them and a PACS behind them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from config.settings import Destination, Dicom, Settings, load_settings
from node.parts import Parts, open_parts
from node.phantom import phantom_exam
from node.scu import Item, Sender
from storage.database import reading
from storage.exams import ExamRecord, list_exams
from storage.jobs import Job
from storage.states import DeliveryState, ExamState
from tests.models import a_quick_model
from tests.pacs import a_free_port, a_pacs
from tests.peers import require_dcmtk, running

PATIENCE = 200.0
"""Seconds until a process that should have done something is taken to have failed; other work may fill the machine."""
MODALITY = "MODALITY"


def patiently(condition: Callable[[], bool]) -> bool:
    """Wait until something is true, and tell whether it became so; looks seldom, to leave the machine to the node."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def dcmtk_storescu() -> str | None:
    """Return DCMTK's storescu, or None where it is not installed."""
    try:
        return require_dcmtk("storescu")
    except pytest.skip.Exception:
        return None


class Process:
    """A command of the node as a process, in a group of its own together with its children."""

    def __init__(self, config: Path, log: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.log = log
        program = [sys.executable, "-P", "-m", "node", *command, "--config", str(config)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                program,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                start_new_session=True,
            )

    def lines(self) -> list[dict[str, Any]]:
        """Return the events that it has logged."""
        whole = self.log.read_text(encoding="utf-8").rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def has_logged(self, event: str) -> bool:
        """Tell whether it has logged an event; fails the test when it has ended without it."""
        found = any(line["event"] == event for line in self.lines())
        assert found or self._process.poll() is None, self.log.read_text(encoding="utf-8")[-2000:]
        return found

    def kill(self) -> None:
        """End it, and its children, at once and without a word."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def terminate(self, within: float = PATIENCE) -> int:
        """Ask it to end, and return its exit status."""
        self._process.terminate()
        return self._process.wait(within)


@dataclass
class Archive:
    """What a PACS was sent, kept as files.

    Attributes
    ----------
    folder
        Where.
    arrivals
        SOP Instance UIDs in order of arrival, repeats included.
    """

    folder: Path
    arrivals: list[str] = field(default_factory=list)

    def keep(self, event: evt.Event) -> int:
        """Keep an instance."""
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        uid = str(dataset.SOPInstanceUID)
        dataset.save_as(self.folder / f"{uid}.dcm", enforce_file_format=True)
        self.arrivals.append(uid)
        return 0x0000

    def files(self, study_uid: str) -> list[Path]:
        """Return what belongs to a study."""
        return [path for path in sorted(self.folder.glob("*.dcm")) if dcmread(path).StudyInstanceUID == study_uid]


@dataclass
class Site:
    """A node, the modality that sends to it, and the PACS that get its results.

    Attributes
    ----------
    config
        Its settings file.
    settings
        What stands in it.
    parts
        Its store and database, to look into.
    archives
        What each destination got, by name.
    """

    folder: Path
    config: Path
    settings: Settings
    parts: Parts
    archives: Mapping[str, Archive]
    processes: list[Process] = field(default_factory=list)

    def start(self, command: str, **environment: str) -> Process:
        """Start a command of the node."""
        log = self.folder / f"{len(self.processes)}-{command}.log"
        process = Process(self.config, log, [command], environment)
        self.processes.append(process)
        return process

    def serve(self) -> Process:
        """Start the doors and wait until they are open."""
        process = self.start("serve")
        assert patiently(lambda: process.has_logged("ready"))
        return process

    def serve_and_work(self) -> Process:
        """Start doors and one worker as children of one process, and wait until the doors are open."""
        process = self.start("up")
        assert patiently(lambda: process.has_logged("ready"))
        return process

    @property
    def door(self) -> Destination:
        """Where the modality sends to."""
        dicom = self.settings.dicom
        return Destination(name="node", ae_title=dicom.ae_title, host="127.0.0.1", port=dicom.port)

    def answers_echo(self) -> bool:
        """Tell whether the door is open."""
        return Sender(Dicom(ae_title=MODALITY)).echo(self.door).answered

    def send(self, images: Sequence[Dataset]) -> None:
        """Send images as a modality does: with DCMTK where it is installed, else with our own sender."""
        folder = self.folder / "modality"
        folder.mkdir(exist_ok=True)
        files = [folder / f"{image.SOPInstanceUID}.dcm" for image in images]
        for image, file in zip(images, files, strict=True):
            image.save_as(file, enforce_file_format=True)
        storescu = dcmtk_storescu()
        if storescu is None:
            responses = Sender(Dicom(ae_title=MODALITY)).send(self.door, [Item.of(file) for file in files])
            assert [response.status for response in responses] == [0x0000] * len(files)
            return
        port = str(self.door.port)
        command = [storescu, "-R", "-aet", MODALITY, "-aec", self.door.ae_title, self.door.host, port, *map(str, files)]
        sent = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert sent.returncode == 0, sent.stderr

    def exam(self, study_uid: str) -> ExamRecord | None:
        """Return the exam of a study."""
        with reading(self.parts.engine) as connection:
            return next((e for e in list_exams(connection, 100) if e.study_uid == study_uid), None)

    def job(self, study_uid: str) -> Job | None:
        """Return the newest job of a study."""
        exam = self.exam(study_uid)
        return next(iter(self.parts.queue.list_jobs(1, exam_id=exam.id)), None) if exam else None

    def answered(self, study_uid: str, revision: int = 1, destination: str = "pacs") -> ExamRecord:
        """Wait until a study is answered and a destination has all of the answer, and return its exam."""

        def done() -> bool:
            exam = self.exam(study_uid)
            if exam is None or exam.revision < revision or exam.state not in {ExamState.ANSWERED, ExamState.FAILED}:
                return False
            waiting = [d for d in self.parts.outbox.of_exam(exam.id) if d.destination == destination]
            return all(delivery.state is DeliveryState.SENT for delivery in waiting)

        assert patiently(done), f"{self.exam(study_uid)} {self.job(study_uid)}"
        exam = self.exam(study_uid)
        assert exam
        return exam


@contextmanager
def a_site(
    folder: Path,
    *,
    database: str = "",
    dicom: str = "",
    exam: str = "",
    jobs: str = "",
    reader: str = "",
    bucket: str = "",
    ports: Mapping[str, int] | None = None,
    mixes: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """Write the settings of a node with short quiet times; end all its processes when the context ends.

    Parameters
    ----------
    database
        URL; SQLite beside the files by default.
    dicom
        More of the door's settings, for an inline table.
    exam, jobs, reader
        Lines of these sections; without a model the reader is :func:`tests.models.a_quick_model`.
    bucket
        Section of the bucket; none by default.
    ports
        Destinations that are not there yet, and their ports; the destination ``pacs`` always is.
    mixes
        Destination → lines that say what it gets.
    """
    archives = {name: Archive(folder / name) for name in ("pacs", *(ports or {}))}
    for archive in archives.values():
        archive.folder.mkdir()
    if "model =" not in reader:
        reader += f'\nmodel = "{a_quick_model(folder / "model").folder}"'
    config = folder / "mammonode.toml"
    with ExitStack() as stack:
        _, pacs = stack.enter_context(a_pacs(archives["pacs"].keep))
        config.write_text(
            f"""
dicom = {{ port = {a_free_port()}, callers = [{{ ae_title = "{MODALITY}" }}]{dicom} }}
http = {{ port = 0 }}
storage = {{ folder = "{folder / "store"}", database = "{database}", max_used_percent = 100, min_free_gb = 0 }}
delivery = {{ first_retry = 0.5, slowest_retry = 1, poll = 0.2 }}
log = {{ format = "json" }}
[exam]
complete_quiet = 1
{exam}
[jobs]
{jobs}
[reader]
device = "cpu"
threads = 1
{reader}
{bucket}
"""
            + "".join(
                f'[[destinations]]\nname = "{name}"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
                f"{(mixes or {}).get(name, '')}\n"
                for name, port in {"pacs": pacs, **(ports or {})}.items()
            ),
            encoding="utf-8",
        )
        settings = load_settings(config)
        parts = open_parts(settings)
        stack.callback(parts.engine.dispose)
        site = Site(folder, config, settings, parts, archives)
        try:
            yield site
        finally:
            for process in site.processes:
                process.kill()


@contextmanager
def dcmtk_storescp(archive: Archive, port: int, *options: str) -> Iterator[None]:
    """Let DCMTK's storescp keep what a destination is sent, as files; skips the test where it is not installed."""
    program = require_dcmtk("storescp")
    command = [program, "-aet", "PACS", "-od", archive.folder, "-fe", ".dcm", *options, port]
    log = archive.folder / "storescp.log"

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with running(*command, log=log, ready=listens):
        yield


def an_exam(patient_id: str) -> list[Dataset]:
    """Return the four images of a small phantom of this patient, taken just now."""
    return list(phantom_exam(3, patient_id=patient_id, small=True, acquired_at=datetime.now(UTC)).images)


def tiny(image: Dataset) -> Dataset:
    """Return an image of :func:`an_exam` cut to 256 rows and 160 columns, which the breast fills from its chest wall on."""
    cut = deepcopy(image)
    columns = slice(160) if image.ImageLaterality == "L" else slice(-160, None)
    pixels = image.pixel_array[128:384, columns]
    cut.Rows, cut.Columns = pixels.shape
    cut.PixelData = np.ascontiguousarray(pixels).tobytes()
    return cut


def study_of(images: Sequence[Dataset]) -> str:
    """Return the study that images belong to."""
    return str(images[0].StudyInstanceUID)


@contextmanager
def half_sent(door: Destination, image: Dataset) -> Iterator[None]:
    """Send the first half of an image, and keep the association open while the context lasts."""
    entity = AE(MODALITY)
    entity.add_requested_context(image.SOPClassUID, ExplicitVRLittleEndian)
    association = entity.associate(door.host, door.port, ae_title=door.ae_title)
    assert association.is_established
    connection = association.dul.socket
    assert connection
    assert connection.socket
    with closing(connection.socket):  # pynetdicom does not, once its peer is gone
        for fragment in _first_half(association, image):
            association.dul.send_pdu(fragment)
        yield
        association.abort()


def _first_half(association: Association, image: Dataset) -> Sequence[Any]:
    request, message = C_STORE(), C_STORE_RQ()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    encoded = encode(deepcopy(image), is_implicit_vr=False, is_little_endian=True)
    assert encoded
    request.DataSet = BytesIO(encoded)
    message.primitive_to_message(request)
    [context] = association.accepted_contexts
    fragments = list(message.encode_msg(context.context_id or 0, 16384))
    return fragments[: len(fragments) // 2]


@contextmanager
def unreadable_for_now(path: Path) -> Iterator[None]:
    """Put a pipe in a file's place, so that whoever opens it waits; the file is back when the context ends."""
    aside = path.with_suffix(".aside")
    path.rename(aside)
    os.mkfifo(path)
    try:
        yield
    finally:
        aside.replace(path)
