"""An installed node on a machine of its own, the modality that sends to it, and the PACS behind it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage

from config.settings import Dicom, Http, SelfTest
from node.demo.pacs import AE_TITLE, DemoPacs, received_for
from node.doors import is_open
from node.phantom import phantom_exam
from tests.acceptance.nodes import MODALITY, patiently
from tests.machine import CHECKOUT, Machine, a_machine, require_machine
from tests.pacs import a_free_port
from tests.peers import require_dcmtk

SOURCES = "/usr/src/mammonode"
MARK = "QZXMARKED^ANNA"
"""Every patient's name."""
MAKE = f"cd {SOURCES} && make PYTHON={os.environ.get('MAMMONODE_TEST_PYTHON', 'python3')}"


@dataclass(frozen=True)
class Acquired:
    """An exam at the modality: its study, and its files."""

    study: str
    files: tuple[Path, ...]


class Site:
    """A machine with the service, the modality that sends to it, and the PACS behind it.

    Attributes
    ----------
    tls
        What the modality's storescu is told when it calls over TLS.
    """

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.port = a_free_port()
        self.pacs = DemoPacs(folder / "pacs", Dicom(ae_title=AE_TITLE, port=self.port, allow_unknown_callers=True))
        self.pacs.start()
        self.folder = folder
        self.sent: set[str] = set()
        self.tls: tuple[str, ...] = ()

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.machine.root / "etc/mammonode/mammonode.toml"

    def configure(self) -> None:
        """Write the settings of this site into the ones that were installed."""
        text = self.settings.read_text(encoding="utf-8").replace(
            "callers = []", f'callers = [{{ ae_title = "{MODALITY}" }}]', 1
        )
        # The machine's disk is this one's, which may be fuller than a hospital's.
        text = text.replace("max_used_percent = 85", "max_used_percent = 100").replace(
            "min_free_gb = 10", "min_free_gb = 0"
        )
        text += f'\n[[destinations]]\nname = "pacs"\nae_title = "DEMO-PACS"\nhost = "127.0.0.1"\nport = {self.port}\n'
        self.settings.write_text(text, encoding="utf-8")

    def an_exam(self, patient: str) -> Acquired:
        """Acquire an exam of somebody whose name must not be seen in any log."""
        images = phantom_exam(3, patient_id=patient, small=True, acquired_at=datetime.now(UTC)).images
        files = [self.folder / f"{image.SOPInstanceUID}.dcm" for image in images]
        for image, file in zip(images, files, strict=True):
            image.PatientName = MARK
            image.save_as(file, enforce_file_format=True)
        return Acquired(str(images[0].StudyInstanceUID), tuple(files))

    def is_taken(self, exam: Acquired) -> bool:
        """Offer an exam to the node as a modality does, and tell whether it takes every image."""
        storescu = require_dcmtk("storescu")
        call = [*self.tls, "-R", "-aet", MODALITY, "-aec", "MAMMONODE", "127.0.0.1", "11112"]
        done = subprocess.run([storescu, *call, *map(str, exam.files)], capture_output=True, text=True, check=False)
        with self.machine.transcript.open("a", encoding="utf-8") as log:
            log.write(f"modality> storescu {' '.join(call)} (exit {done.returncode})\n{done.stderr}\n")
        if done.returncode == 0:
            self.sent.add(exam.study)
        return done.returncode == 0

    def send(self, patient: str) -> str:
        """Send an exam as a modality does, and return its study."""
        exam = self.an_exam(patient)
        assert self.is_taken(exam)
        return exam.study

    def reports(self) -> list[Dataset]:
        """Return the reports that the PACS has."""
        return [o for o in map(dcmread, self.pacs.objects()) if o.SOPClassUID == Comprehensive3DSRStorage]

    def answer(self, study: str) -> bool:
        """Wait until the PACS has a report on a study, and every segmentation that it names."""

        def whole() -> bool:
            received = received_for(study, self.pacs.objects())
            return bool(received.reports) and not received.faults

        return patiently(whole)

    def exams(self) -> dict[str, str]:
        """Return what the node says of the exams that were sent: their states by study."""
        told = self.machine.type("mammonode exams --json")
        found = json.loads(told[told.index("[") :])
        return {exam["study"]: exam["state"] for exam in found if exam["study"] in self.sent}


def checkout(folder: Path) -> Path:
    """Copy what git knows of this checkout into a folder, which may be changed then, and return it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)
    return folder


@contextmanager
def a_site(folder: Path, sources: Path, story: str) -> Iterator[Site]:
    """Boot a machine that sees these sources, with nothing installed yet; skips the test where that cannot be.

    Parameters
    ----------
    folder
        Where the machine lies, and what its PACS gets.
    sources
        Of the version to install.
    story
        Names the transcript, .artefacts/STORY.log.
    """
    require_machine()
    for port in (Dicom().port, Http().port, SelfTest().port):
        if is_open(Dicom(port=port)):
            pytest.skip(f"port {port} of this machine, whose network the other one shares, is taken")
    with a_machine(folder, {sources: SOURCES}, CHECKOUT / ".artefacts" / f"{story}.log") as machine:
        site = Site(machine, folder)
        try:
            yield site
        finally:
            site.pacs.stop()
