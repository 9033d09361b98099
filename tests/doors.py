"""Builders for the doors: an intake on a fresh store, files as a receiver leaves them, senders."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pydicom import Dataset
from sqlalchemy import Engine, func, select

from config.policy import Watermark
from config.settings import Caller, Destination, Dicom
from node.commitment import Reports
from node.intake import Announced, Intake, Receipt, utc_now
from node.phantom import phantom_exam
from node.records import Origin
from node.safekeeping import SafeKeeping
from node.scp import StorageSCP
from node.scu import Sender
from node.tls import Transport
from storage.commitment_requests import CommitmentRequests
from storage.commitments import Commitments
from storage.database import reading
from storage.files import FolderStore, InstanceStore
from storage.outbox import Outbox
from storage.tables import conflicts, exams, instances
from tests.records import NOON, POLICY

ROOM_ENOUGH = Watermark(max_used_fraction=1, min_free_bytes=0)
NO_ROOM = Watermark(max_used_fraction=1, min_free_bytes=1 << 60)
ORIGIN = Origin("MODALITY", "MAMMONODE", "192.0.2.7", "a1b2c3d4")
PHANTOM_NAME = "FOUR VIEWS"


class Clock:
    """A clock that stands until it is put forward."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, by: timedelta) -> None:
        """Put it forward."""
        self.now += by


@cache
def phantom_images() -> tuple[Dataset, ...]:
    """Return the four images of a small phantom exam; copy before changing one."""
    return phantom_exam(6, small=True).images


def an_image(**changes: Any) -> Dataset:
    """Return a small mammogram; None takes an attribute away. The File Meta Information stays as it was."""
    image = deepcopy(phantom_images()[0])
    for keyword, value in changes.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    return image


@dataclass(frozen=True)
class Room:
    """A store with its index, and the intake before them."""

    store: InstanceStore
    engine: Engine
    intake: Intake

    def incoming(self, image: Dataset) -> Path:
        """Write an image as a receiver does."""
        path = self.store.incoming / f"{secrets.token_hex(8)}.dcm"
        image.save_as(path, enforce_file_format=True)
        return path

    def receive(self, image: Dataset, announced: Announced | None = None) -> Receipt:
        """Let an image come in."""
        return self.intake.receive(self.incoming(image), announced, ORIGIN)

    def files(self) -> set[str]:
        """Return all files in the store, relative to it."""
        return {str(path.relative_to(self.store.root)) for path in self.store.root.rglob("*") if path.is_file()}

    def rows(self) -> tuple[int, int, int]:
        """Return the numbers of instances, exams and conflicts."""
        with reading(self.engine) as connection:
            counts = [
                connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (instances, exams, conflicts)
            ]
        return counts[0], counts[1], counts[2]


def a_room(folder: Path, engine: Engine, watermark: Watermark = ROOM_ENOUGH) -> Room:
    """Return an empty store and an intake."""
    store = FolderStore(folder / "store")
    store.prepare()
    return Room(store, engine, Intake(store, engine, watermark))


def no_reports(engine: Engine) -> Reports:
    """Return what takes storage commitment reports where nobody is asked for one."""
    return Reports(Commitments(engine, Outbox(engine, POLICY)), [])


def safekeeping(room: Room, callers: Sequence[Caller], clock: Callable[[], datetime] = utc_now) -> SafeKeeping:
    """Return what answers requests for storage commitment of a room's instances."""
    requests = CommitmentRequests(room.engine, POLICY)
    sender = Sender(Dicom(acse_timeout=5, dimse_timeout=10))
    return SafeKeeping(requests, room.engine, room.store, sender, callers, clock)


@contextmanager
def an_open_door(
    room: Room,
    reports: Reports | None = None,
    keeping: SafeKeeping | None = None,
    transport: Transport | None = None,
    **settings: Any,
) -> Iterator[StorageSCP]:
    """Open the DICOM door of a room to the caller MODALITY, on a free port.

    Parameters
    ----------
    reports
        Takes storage commitment reports; without it, none that was asked for.
    keeping
        Takes storage commitment requests; by default as the room holds.
    transport
        TLS, when it has some.
    """
    chosen = {"port": 0, "callers": (Caller(ae_title="MODALITY"),), "network_timeout": 20, "acse_timeout": 10}
    dicom = Dicom(**(chosen | settings))
    keeping = keeping or safekeeping(room, dicom.callers)
    taken = reports or no_reports(room.engine)
    door = StorageSCP(dicom, room.intake, room.store.incoming, taken, keeping, transport=transport)
    door.start()
    try:
        yield door
    finally:
        door.stop(drain=5)


def a_destination(port: int, name: str = "pacs", ae_title: str = "PACS") -> Destination:
    """Return a destination on this machine."""
    return Destination(name=name, ae_title=ae_title, host="127.0.0.1", port=port)


def open_files(folder: Path) -> list[str]:
    """Return the files of a folder that this process has open, removed ones included."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:  # the one that lists them
            continue
    return [path for path in found if path.startswith(str(folder))]
