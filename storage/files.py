"""The instance store: files by study, series and instance; nothing that is indexed is ever overwritten."""

import contextlib
import errno
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath

from config.policy import Watermark
from storage.errors import AlreadyStored, DiskLow, MalformedUID

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
MOST_REMEMBERED = 4096
"""Folders that are known to be on the disk for good; to flush one again costs as much as to flush a file."""
_WRITING_TAKES = timedelta(hours=1)
"""No worker takes longer to write one result; what is older was left by a crash."""


@dataclass(frozen=True, order=True)
class InstanceReference:
    """The three UIDs of one instance; they become the names of folders and of a file.

    Leading zeros in a component break PS3.5 9.1, are sent by some modalities and do no harm here: they pass.

    Raises
    ------
    MalformedUID
        When a UID is empty, longer than 64 characters, or more than digits and single dots.
    """

    study_uid: str
    series_uid: str
    instance_uid: str

    def __post_init__(self) -> None:
        """Refuse what must not become a path."""
        for uid in (self.study_uid, self.series_uid, self.instance_uid):
            if len(uid) > 64 or not _UID.fullmatch(uid):
                raise MalformedUID(f"one of {len(uid)} characters")


@dataclass(frozen=True)
class DiskUsage:
    """Bytes on the disk of the store: in all, and free for us."""

    total: int
    free: int


class InstanceStore:
    """Files under one folder, on one disk.

    Paths are given and taken as text relative to the folder, the form that the index keeps.

    A file counts from the commit of its row. It is in its place, on the disk for good, before that commit; a file
    without a row is what a crash in between left, and may be replaced. So ``accept`` and ``adopt`` are called inside
    the transaction that has inserted the row: until it ends nobody else can insert the same UID
    (``storage.archive.keep`` does both).

    Parameters
    ----------
    root
        The folder; ``prepare`` makes it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.incoming = self.root / "incoming"
        self._outgoing = self.root / "outgoing"
        self._lasting: set[PurePosixPath] = set()

    def prepare(self) -> None:
        """Make the folders, open to their owner only, and see that they can be written; those that exist are left so."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (
            self.incoming,
            self._outgoing,
            *(self.root / area for area in ("instances", "conflicts", "results", "previews")),
        ):
            folder.mkdir(mode=0o700, exist_ok=True)
        _flush(self.root)
        _flush(self.root.parent)
        # Folders that are there say nothing of a file system that went read-only, or of another owner. A full disk keeps
        # nobody from starting: senders are told, jobs are tried again, and what frees it may be what is being started.
        try:
            with tempfile.TemporaryFile(dir=self.incoming) as probe:
                os.write(probe.fileno(), b"\0")
                os.fsync(probe.fileno())
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise

    def path_of(self, reference: InstanceReference) -> str:
        """Return where an instance is kept."""
        return str(_path("instances", reference, ".dcm"))

    def resolve(self, path: str) -> Path:
        """Return the absolute path of a path that the index keeps."""
        return self.root / path

    def flush(self, temp: Path) -> None:
        """Write a file's bytes through to the disk: before ``accept``, which would hold up other writers for so long."""
        _flush(temp)

    def make_way(self, reference: InstanceReference) -> None:
        """Make the folders of an instance, durably: before ``accept``, for the same reason."""
        self._make_folders(_path("instances", reference, ".dcm"))

    def accept(self, temp: Path, reference: InstanceReference) -> str:
        """Move a received file that was flushed to its place, durably, and return the path.

        Raises
        ------
        AlreadyStored
            When a file is there already; nothing has changed then.
        """
        return self._publish(temp, _path("instances", reference, ".dcm"))

    def adopt(self, temp: Path, reference: InstanceReference) -> str:
        """Do as ``accept``, in the place of a file that no row names."""
        path = _path("instances", reference, ".dcm")
        temp.replace(self.root / path)
        _flush(self.root / path.parent)
        return str(path)

    def set_aside(self, temp: Path, reference: InstanceReference) -> str:
        """Keep a different instance with a UID that is known (rule R6) in the conflicts area, and return its path.

        It was flushed, as for ``accept``.
        """
        for number in itertools.count(1):
            with contextlib.suppress(AlreadyStored):
                return self._publish(temp, _path("conflicts", reference, f"/{number}.dcm"))
        raise AssertionError  # pragma: no cover  (count never ends)

    def write_result(self, reference: InstanceReference, data: bytes, suffix: str = "dcm") -> str:
        """Keep one of our own objects durably and return its path, which tells its bytes.

        Writing the same bytes again changes nothing. Other bytes under the same UID, which an attempt that was never
        finished may have left, get another path: only one of the two is ever indexed.
        """
        path = _path("results", reference, f".{hashlib.sha256(data).hexdigest()[:16]}.{suffix}")
        handle, name = tempfile.mkstemp(dir=self._outgoing)
        temp = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            _flush(temp)
            with contextlib.suppress(AlreadyStored):
                return self._publish(temp, path)
        finally:
            temp.unlink(missing_ok=True)
        _flush((self.root / path).parent)
        return str(path)

    def write_preview(self, path: str, data: bytes) -> None:
        """Put a picture where its row says, in the place of an earlier one; nothing stands on it."""
        target = self.root / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._outgoing)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        """Unlink a file for good; one that is gone already is no fault.

        Folders stay: one that is empty now may get a file at this moment.
        """
        target = self.root / path
        target.unlink(missing_ok=True)
        if target.parent.is_dir():
            _flush(target.parent)

    def sweep(self, older_than: timedelta) -> int:
        """Remove the temp files that nobody has written to for so long, and return their number.

        ``timedelta(0)`` removes all received ones: right only at the start, before the doors open. Those of results
        stay for an hour at least, because workers are other processes.
        """
        stale = [*_unwritten(self.incoming, older_than), *_unwritten(self._outgoing, max(older_than, _WRITING_TAKES))]
        for temp in stale:
            temp.unlink(missing_ok=True)
        return len(stale)

    def usage(self) -> DiskUsage:
        """Return the state of the store's disk."""
        usage = shutil.disk_usage(self.root)
        return DiskUsage(usage.total, usage.free)

    def require_space(self, watermark: Watermark) -> None:
        """Refuse to take more when the disk is too full.

        Raises
        ------
        DiskLow
            When less is free, or more is used, than the watermark allows.
        """
        usage = self.usage()
        used = 1 - usage.free / usage.total
        if usage.free < watermark.min_free_bytes or used > watermark.max_used_fraction:
            raise DiskLow(f"{usage.free / 1e9:.1f} GB free, {used:.0%} used in {self.root}")

    def _publish(self, temp: Path, path: PurePosixPath) -> str:
        target = self.root / path
        self._make_folders(path)
        try:
            os.link(temp, target)  # unlike a rename, it never overwrites
        except FileExistsError:
            raise AlreadyStored(path.name) from None
        _flush(target.parent)
        temp.unlink()
        return str(path)

    def _make_folders(self, path: PurePosixPath) -> None:
        folders = list(reversed(path.parents))[2:]  # those that ``prepare`` has not made
        for folder in folders:
            with contextlib.suppress(FileExistsError):
                (self.root / folder).mkdir(mode=0o700)
                self._lasting.discard(folder)
        # Made by this call or not: another thread may have made one a moment ago and not flushed it yet.
        for folder in folders:
            if folder not in self._lasting:
                _flush(self.root / folder.parent)
                self._lasting.add(folder)
        if len(self._lasting) > MOST_REMEMBERED:
            self._lasting.clear()


def _path(area: str, reference: InstanceReference, ending: str) -> PurePosixPath:
    return PurePosixPath(area, reference.study_uid, reference.series_uid, reference.instance_uid + ending)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritten(folder: Path, duration: timedelta) -> Iterator[Path]:
    latest = time.time() - duration.total_seconds()
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if file.is_file() and file.stat().st_mtime <= latest:
                yield file
