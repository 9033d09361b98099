"""The demo's course: modality → node → PACS, followed live, and judged by what the PACS received."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ai.exam import View
from ai.pixels import file_image
from config.settings import Destination, Dicom, Settings, load_settings
from node.analysis import picture
from node.demo.exams import DemoExam, phantom, real_exams
from node.demo.pacs import AE_TITLE, DemoPacs, Received, errors_in, outlines_of, received_for, score_of, status_of
from node.logs import configure
from node.parts import Parts, open_parts
from node.results.drawing import Page, Panel, draw_page, png, side_by_side
from node.results.pages import LABELS, MARK, PRIMARY, SCORES
from node.scu import Item, Sender
from storage.database import reading
from storage.exams import ExamRecord, list_exams
from storage.index import instances_of_exam
from storage.states import DeliveryState, ExamState

MODALITY = "DEMO-MODALITY"
WRITTEN_BY_THE_DEMO = "# Written by the demo."
GIVE_UP_AFTER = 300.0
"""Seconds until the demo fails."""


def run_demo(folder: Path, *, synthetic_only: bool = False) -> int:
    """Run the demo and return the exit status: 0 only if every exam got its report and the segmentations it names.

    Parameters
    ----------
    folder
        Emptied, then filled: settings, what the modality sends, what the PACS receives, the node's log, overview.png.
    synthetic_only
        Send only the phantom.
    """
    configure("text", "warning")  # the stand-in's own events would break into the live display
    console = Console()
    if not console.is_terminal:
        console.width = 140
    if not _emptied(folder):
        console.print(f"[red]{folder} holds something else than a former demo: give another --folder[/red]")
        return 1
    sources = folder / "modality"
    sources.mkdir(parents=True)
    exams = [] if synthetic_only else real_exams(sources)
    if synthetic_only:
        console.print("Only the synthetic exam is sent.")
    elif exams:
        console.print(
            "Two real film exams (CBIS-DDSM, CC BY 3.0). As published each view is a Secondary Capture without spacing, its "
            "own study and patient;\nthe demo builds one For Presentation study of each four. Both patients are test "
            "patients: nothing was trained or tuned on them."
        )
    else:
        console.print("The package with the two real exams is not installed: only the synthetic exam is sent.")
    exams.append(phantom(sources))
    pacs = DemoPacs(folder / "pacs")
    settings = _write_settings(folder, pacs.start())
    with (folder / "node.log").open("wb") as log:
        command = [sys.executable, "-P", "-m", "node", "up", "--config", str(folder / "mammonode.toml")]
        node = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603 (our own program)
        try:
            return _course(console, folder, settings, exams, pacs, node)
        finally:
            node.send_signal(signal.SIGTERM)
            node.wait(90)
            pacs.stop()


def _emptied(folder: Path) -> bool:
    """Empty the folder of a former demo; False, and nothing is touched, when it is another one."""
    settings = folder / "mammonode.toml"
    ours = settings.is_file() and settings.read_text(encoding="utf-8").startswith(WRITTEN_BY_THE_DEMO)
    if folder.exists() and not ours and any(folder.iterdir()):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _course(
    console: Console,
    folder: Path,
    settings: Settings,
    exams: Sequence[DemoExam],
    pacs: DemoPacs,
    node: "subprocess.Popen[bytes]",
) -> int:
    sender = Sender(Dicom(ae_title=MODALITY))
    door = Destination(name="node", ae_title=settings.dicom.ae_title, host="127.0.0.1", port=settings.dicom.port)
    deadline = time.monotonic() + GIVE_UP_AFTER
    while not sender.echo(door).answered:
        if node.poll() is not None or time.monotonic() > deadline:
            console.print(f"[red]The node did not start; see {folder / 'node.log'}[/red]")
            return 1
        time.sleep(0.2)
    parts = open_parts(settings)
    begin = time.time()
    with Live(console=console, refresh_per_second=4) as live:
        for exam in exams:
            for response in sender.send(door, [Item.of(path) for path in exam.files.values()]):
                if response.status != 0:
                    console.print(f"[red]{exam.title}: the node refused an image: {response.message}[/red]")
            live.update(_progress(parts, exams, begin))
        while not (done := _settled(parts, len(exams))) and time.monotonic() < deadline and node.poll() is None:
            live.update(_progress(parts, exams, begin))
            time.sleep(0.25)
        live.update(_progress(parts, exams, begin))
    if not done:
        console.print(f"[red]Not every exam was answered and delivered; see {folder / 'node.log'}[/red]")
    return _judge(console, folder, parts, exams, pacs.objects()) if done else 1


def _write_settings(folder: Path, pacs_port: int) -> Settings:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = folder / "mammonode.toml"
    path.write_text(
        f"""{WRITTEN_BY_THE_DEMO} The short quiet times keep it brief; a hospital keeps the defaults.
[dicom]
port = {port}
callers = [{{ ae_title = "{MODALITY}", address = "127.0.0.1" }}]

[storage]
folder = "{(folder / "node").absolute()}"
max_used_percent = 99
min_free_gb = 1

[exam]
complete_quiet = 3

[delivery]
poll = 0.3

[http]
port = 0

[log]
format = "json"

[[destinations]]
name = "pacs"
ae_title = "{AE_TITLE}"
host = "127.0.0.1"
port = {pacs_port}
""",
        encoding="utf-8",
    )
    for name in [name for name in os.environ if name.startswith("MAMMONODE_") and "__" in name]:
        del os.environ[name]  # the demo's node is not the site's
    return load_settings(path)


def _records(parts: Parts) -> dict[str, ExamRecord]:
    with reading(parts.engine) as connection:
        return {exam.study_uid: exam for exam in list_exams(connection, 100)}


def _settled(parts: Parts, expected: int) -> bool:
    exams = _records(parts)
    if len(exams) < expected or any(e.state in (ExamState.COLLECTING, ExamState.QUEUED) for e in exams.values()):
        return False
    return all(d.state is not DeliveryState.WAITING for e in exams.values() for d in parts.outbox.of_exam(e.id))


def _progress(parts: Parts, exams: Sequence[DemoExam], begin: float) -> Table:
    table = Table(
        "exam",
        "id",
        "images",
        "state",
        "answer",
        "delivered",
        title=f"{time.time() - begin:.0f} s",
        title_justify="left",
    )
    records = _records(parts)
    for exam in exams:
        record = records.get(exam.study_uid)
        if record is None:
            table.add_row(exam.title, "", "0/4", "", "", "")
            continue
        deliveries = parts.outbox.of_exam(record.id)
        sent = sum(d.state is DeliveryState.SENT for d in deliveries)
        delivered = f"{sent}/{len(deliveries)}" if deliveries else ""
        table.add_row(exam.title, record.uid, f"{record.arrivals}/4", record.state, record.status or "", delivered)
    return table


@dataclass(frozen=True)
class Moments:
    """When an exam's stages ended, in seconds after its first image was received."""

    stages: Mapping[str, float]
    reading: Mapping[str, float]


def _moments(parts: Parts, record: ExamRecord) -> Moments:
    with reading(parts.engine) as connection:
        received = [instance.received_at for instance in instances_of_exam(connection, record.id)]
    job = parts.queue.list_jobs(1, exam_id=record.id)[0]
    delivered = [d.finished_at for d in parts.outbox.of_exam(record.id) if d.finished_at]
    first = min(received)
    stages = {
        "last image": max(received),
        "complete": job.created_at,
        "reading began": job.started_at,
        "answered": job.finished_at,
        "delivered": max(delivered, default=None),
    }
    return Moments({k: (v - first).total_seconds() for k, v in stages.items() if v}, job.timings or {})


def _judge(console: Console, folder: Path, parts: Parts, exams: Sequence[DemoExam], objects: list[Path]) -> int:
    records = _records(parts)
    faults = [f"{path.name}: {error}" for path in objects for error in errors_in(path)]
    timeline = Table(
        "exam",
        "last image",
        "complete",
        "reading began",
        "answered",
        "delivered",
        "decode",
        "read",
        "encode",
        title="Seconds after the first image; duration of the reading's stages",
    )
    answers = Table(
        "exam", "what is known", "the PACS got", "answer", "exam score", "findings", title="What the PACS received"
    )
    pages = []
    for exam in exams:
        received = received_for(exam.study_uid, objects)
        faults += [f"{exam.title}: {fault}" for fault in received.faults]
        moments = _moments(parts, records[exam.study_uid])
        timeline.add_row(
            exam.title,
            *(
                f"{moments.stages.get(s, float('nan')):.1f}"
                for s in ("last image", "complete", "reading began", "answered", "delivered")
            ),
            *(f"{moments.reading.get(s, float('nan')):.2f}" for s in ("decode", "read", "encode")),
        )
        if received.reports:
            panels, labels = _panels(exam, received)
            score = score_of(received.reports[0], "exam-score")
            status = status_of(received.reports[0])
            answers.add_row(
                exam.title,
                exam.truth,
                f"{len(received.reports)} SR, {len(received.segmentations)} SEG",
                status,
                str(score),
                "\n".join(labels),
            )
            pages.append(
                Page(exam.title, MARK, (f"{status}; exam score {score}",), panels, (f"{PRIMARY} {SCORES} {LABELS}",))
            )
    console.print(timeline)
    console.print(answers)
    overview = folder / "overview.png"
    if pages:
        overview.write_bytes(png(side_by_side([draw_page(page) for page in pages])))
    console.print(
        f"Picture of all views: {overview}   received objects: {folder / 'pacs'}   log: {folder / 'node.log'}"
    )
    for fault in faults:
        console.print(f"[red]{fault}[/red]")
    if not faults:
        console.print(
            "[green]Every exam got its report and exactly the segmentations that it names.[/green] Research use only."
        )
    return 1 if faults else 0


def _panels(exam: DemoExam, received: Received) -> tuple[dict[View, Panel], list[str]]:
    """Draw what the PACS got, not what the node says that it sent."""
    outlines = dict(outlines_of(segmentation) for segmentation in received.segmentations)
    panels, labels = {}, []
    for view, path in exam.files.items():
        image = file_image(path, view)
        found = outlines.get(image.uid, ())
        if found:
            labels.append(f"{view}  {', '.join(outline.label for outline in found)}")
        panels[view] = Panel(str(view), picture(image.pixels), found)
    return panels, labels
