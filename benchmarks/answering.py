"""From the last image to the answer: what the node adds to quiet time and reading until a PACS has accepted all of it.

One four-view exam after the other, the full-size phantom, by C-STORE to a node as `mammonode up` starts it, with the model
that ships; its results go to Orthanc, or to DCMTK's receiver where that is not installed.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from benchmarks import receivers
from benchmarks.machine import Server, free_ports
from benchmarks.values import US, Value
from config.settings import Destination, Dicom, load_settings
from node.parts import Parts, open_parts
from node.phantom import phantom_exam
from node.scu import Item, Sender
from storage.database import reading
from storage.exams import list_exams
from storage.states import DeliveryState, ExamState

FOLDER = Path(".artefacts/bench")
QUIET = 2.0
"""Seconds without an image after which a complete exam is read; a site's are longer."""
PATIENCE = 300.0
READING = ("decode", "gate", "read")
"""Stages that are the reader's."""


def values(repeats: int) -> Iterator[Value]:
    """Yield seconds, exam after exam; the first one warms up."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch, ExitStack() as stack:
        folder = Path(scratch).absolute()
        pacs = (receivers.storescp if receivers.is_missing("orthanc") else receivers.orthanc)(_made(folder / "pacs"))
        stack.callback(pacs.server.stop)
        pacs.server.wait()
        settings = _settings(folder, pacs.ports["store"])
        parts = open_parts(load_settings(settings))
        port = parts.settings.dicom.port
        command = [sys.executable, "-P", "-m", "node", "up", "--config", settings]
        node = Server(command, port, folder / "node.log")
        stack.callback(node.stop)
        node.wait()
        sender = Sender(Dicom(ae_title="BENCHMARK"))
        door = Destination(name="node", ae_title=parts.settings.dicom.ae_title, host="127.0.0.1", port=port)
        for repeat in range(repeats + 1):
            files = []
            for image in phantom_exam(repeat).images:
                files.append(folder / f"{image.SOPInstanceUID}.dcm")
                image.save_as(files[-1], enforce_file_format=True)
            if bad := [each for each in sender.send(door, [Item.of(file) for file in files]) if each.status != 0]:
                raise SystemExit(f"an image was refused: {bad[0].message}")
            sent = time.time()
            found = list(_answered(parts, repeat + 1, sent))
            yield from found if repeat else ()


def _answered(parts: Parts, exams: int, sent: float) -> Iterator[Value]:
    """Wait until everything is with the PACS, and yield when what was done.

    Parameters
    ----------
    exams
        How many the node has by now.
    sent
        When the last image of the newest was accepted, in seconds since 1970.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        time.sleep(0.2)
        with reading(parts.engine) as connection:
            known = list_exams(connection, 1000)
        if len(known) == exams and all(exam.state is ExamState.ANSWERED for exam in known):
            exam = max(known, key=lambda each: each.id)
            deliveries = parts.outbox.of_exam(exam.id)
            if all(each.state is not DeliveryState.WAITING for each in deliveries):
                break
    else:
        raise SystemExit("no answer came")
    if any(each.state is not DeliveryState.SENT for each in deliveries) or exam.status != "findings":
        raise SystemExit(f"{exam.status}, {[(each.kind, each.state) for each in deliveries]}")
    job = parts.queue.list_jobs(1, exam_id=exam.id)[0]
    began, ended, timings = _seconds(job.started_at), _seconds(job.finished_at), job.timings or {}
    accepted = max(_seconds(each.finished_at) for each in deliveries)
    closed = _seconds(job.created_at)
    read = sum(timings[stage] for stage in READING)
    for stage, seconds in {
        "beyond quiet time and reading": accepted - sent - QUIET - read,
        "of it until the exam is closed": closed - sent - QUIET,
        "of it until a worker begins": began - closed,
        "of it objects, noting": ended - began - read,
        "of it until all is accepted": accepted - ended,
    }.items():
        yield Value(f"answer, {stage}", "s", US, seconds)


def _seconds(moment: datetime | None) -> float:
    if moment is None:
        raise SystemExit("a time is missing")
    return moment.timestamp()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _settings(folder: Path, pacs: int) -> Path:
    """Write the node's settings: its own but for ports, the quiet time and the PACS."""
    [port] = free_ports(1)
    file = folder / "mammonode.toml"
    file.write_text(
        f"""[dicom]
port = {port}
allow_unknown_callers = true

[storage]
folder = "{folder / "store"}"
max_used_percent = 100
min_free_gb = 1

[exam]
complete_quiet = {QUIET}

[http]
port = 0

[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
""",
        encoding="utf-8",
    )
    return file
