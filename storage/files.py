"""Where instances are kept, and a folder for it: files by study, series and instance; nothing indexed is overwritten."""

import contextlib
import errno
import hashlib
import heapq
import os
import re
import shutil
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import ClassVar

from config.policy import Watermark
from storage.errors import AlreadyStored, DiskLow, MalformedUID, StoreUnusable

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_RESULT = re.compile(r"results(?:/[^/]+){3}\.[0-9a-f]{16}\.\w+")
MOST_REMEMBERED = 4096
"""Folders that are known to be on the disk for good; to flush one again costs as much as to flush a file."""
MARK = ".mammonode/installation"
"""Whose the store is."""
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


@dataclass(frozen=True)
class Kept:
    """A file that lies in a store, and when it was written (aware)."""

    path: str
    written_at: datetime


class InstanceStore(ABC):
    """Where instances and results are kept; a local folder always belongs to it, as files come and go through it.

    Paths are given and taken as text relative to the store, the form that the index keeps.

    A file counts from the commit of its row. It is in its place for good before that commit; a file without a row is
    what a crash in between left, and may be replaced. So ``accept`` and ``adopt`` are called inside the transaction that
    has inserted the row: until it ends nobody else can insert the same UID (``storage.archive.keep`` does both). What
    takes long comes before, in ``flush`` and ``make_way``.

    Parameters
    ----------
    root
        The folder; ``prepare`` makes it.
    """

    areas: ClassVar[tuple[str, ...]]
    """Folders that ``prepare`` makes."""
    far: ClassVar[bool]
    """Whether what is kept lies elsewhere than in the folder: then nothing is brought there that need not be."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.incoming = self.root / "incoming"
        self._outgoing = self.root / "outgoing"

    def prepare(self) -> None:
        """Make the folders, open to their owner only, and see that they can be written; those that exist are left so."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.incoming, self._outgoing, *(self.root / area for area in self.areas)):
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

    @abstractmethod
    def reach(self) -> None:
        """Ask whether what is kept can be had now.

        Raises
        ------
        BucketUnavailable
            When it lies elsewhere and there is no answer.
        """

    @abstractmethod
    def prove(self) -> None:
        """Try all that is going to be asked of where it lies; ``prepare`` has done so with the folder.

        Raises
        ------
        BucketUnavailable
            As for ``reach``.
        """

    @abstractmethod
    def path_of(self, reference: InstanceReference, temp: Path) -> str:
        """Return where the instance in a received file is to be kept."""

    @abstractmethod
    def resolve(self, path: str) -> Path:
        """Return the file of a path that the index keeps; nothing is there when it is gone."""

    @abstractmethod
    def size_of(self, path: str) -> int | None:
        """Return the number of bytes that are kept under a path; None when it is gone."""

    @abstractmethod
    def listed(self, area: str) -> Iterator[Kept]:
        """Yield what lies in an area, series by series, the oldest of a series first, whether it is indexed or not."""

    def newest(self, studies: int) -> Iterator[Kept]:  # noqa: ARG002 (a bucket lists by name)
        """Yield the images of the studies that were begun last, where the store can tell which these are."""
        yield from ()

    def flush(self, temp: Path) -> None:
        """Write a file's bytes through to the disk: before ``accept``, which would hold up other writers for so long."""
        _flush(temp)

    @abstractmethod
    def make_way(self, temp: Path, path: str) -> None:
        """Do durably what takes long before ``accept``, for the same reason; only the row and a name are left then."""

    @abstractmethod
    def accept(self, temp: Path, path: str) -> None:
        """Move a received file that was flushed to its place, durably.

        Raises
        ------
        AlreadyStored
            When a file is there already; nothing has changed then.
        """

    @abstractmethod
    def adopt(self, temp: Path, path: str) -> None:
        """Do as ``accept``, in the place of a file that no row names."""

    @abstractmethod
    def set_aside(self, temp: Path, reference: InstanceReference) -> str:
        """Keep a different instance with a UID that is known (rule R6) in the conflicts area, and return its path.

        It was flushed, as for ``accept``.
        """

    @abstractmethod
    def write_result(self, reference: InstanceReference, data: bytes, suffix: str = "dcm") -> str:
        """Keep one of our own objects durably and return its path, which tells its bytes.

        Writing the same bytes again changes nothing. Other bytes under the same UID, which an attempt that was never
        finished may have left, get another path: only one of the two is ever indexed.
        """

    @abstractmethod
    def results_of(self, study_uid: str) -> list[str]:
        """Return the paths of our own objects that are kept of a study, whether they are indexed or not."""

    @abstractmethod
    def write_preview(self, path: str, data: bytes) -> None:
        """Put a picture where its row says, in the place of an earlier one; nothing stands on it."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Unlink a file for good; one that is gone already is no fault."""

    @abstractmethod
    def owner(self) -> str:
        """Return what the store was marked with; '' when nobody has."""

    @abstractmethod
    def mark(self, owner: str) -> None:
        """Let the store say for good whose it is."""

    def sweep(self, older_than: timedelta) -> int:
        """Remove the temp files, and folders of a restore, that nobody has written to for so long, and return their number.

        ``timedelta(0)`` removes all received ones: right only at the start, before the doors open. Those of results
        stay for an hour at least, because workers are other processes.
        """
        stale = [*_unwritten(self.incoming, older_than), *_unwritten(self._outgoing, max(older_than, _WRITING_TAKES))]
        for temp in stale:
            if temp.is_dir():
                shutil.rmtree(temp, ignore_errors=True)
            else:
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

    @contextlib.contextmanager
    def _outgoing_file(self, data: Iterable[bytes]) -> Iterator[Path]:
        """Yield a file with these bytes, which is gone afterwards unless it was moved."""
        handle, name = tempfile.mkstemp(dir=self._outgoing)
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(data)
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


class FolderStore(InstanceStore):
    """Files under one folder, on one disk.

    Parameters
    ----------
    root
        The folder.
    """

    areas = ("instances", "conflicts", "results", "previews")
    far = False

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._lasting: set[PurePosixPath] = set()

    def reach(self) -> None:
        """Do nothing: every use of the folder tells by itself."""

    def prove(self) -> None:
        """Do nothing: ``prepare`` has written to the folder."""

    def path_of(self, reference: InstanceReference, temp: Path) -> str:  # noqa: ARG002 (the name does not tell the bytes)
        """Return where an instance is kept."""
        return str(path_in("instances", reference, ".dcm"))

    def resolve(self, path: str) -> Path:
        """Return the absolute path of a path that the index keeps."""
        return self.root / path

    def size_of(self, path: str) -> int | None:
        """Return the size of a file; None when it is gone."""
        file = self.root / path
        return file.stat().st_size if file.is_file() else None

    def listed(self, area: str) -> Iterator[Kept]:
        """Yield what lies in an area, series by series, the oldest of a series first."""
        for series in sorted((self.root / area).glob("*/*")):
            yield from self._files_of(series)

    def newest(self, studies: int) -> Iterator[Kept]:
        """Yield the images of the studies whose folders were changed last."""
        with os.scandir(self.root / "instances") as folders:
            begun = heapq.nlargest(studies, ((folder.stat().st_mtime, folder.path) for folder in folders))
        for _, folder in begun:
            yield from self._files_of(Path(folder))

    def make_way(self, temp: Path, path: str) -> None:  # noqa: ARG002 (its bytes are where they shall be)
        """Make the folders of an instance, durably."""
        self._make_folders(PurePosixPath(path))

    def accept(self, temp: Path, path: str) -> None:
        """Move a received file that was flushed to its place, durably.

        Raises
        ------
        AlreadyStored
            When a file is there already; nothing has changed then.
        """
        self._publish(temp, PurePosixPath(path))

    def adopt(self, temp: Path, path: str) -> None:
        """Do as ``accept``, in the place of a file that no row names."""
        target = self.root / path
        temp.replace(target)
        _flush(target.parent)

    def set_aside(self, temp: Path, reference: InstanceReference) -> str:
        """Keep a different instance with a UID that is known under a name that none ever had, and return its path.

        A path whose file was removed is marked as removed for good.
        """
        return self._publish(temp, path_in("conflicts", reference, f"/{uuid.uuid4().hex}.dcm"))

    def write_result(self, reference: InstanceReference, data: bytes, suffix: str = "dcm") -> str:
        """Keep one of our own objects durably and return its path, which tells its bytes."""
        path = result_path(reference, data, suffix)
        with self._outgoing_file([data]) as temp:
            _flush(temp)
            with contextlib.suppress(AlreadyStored):
                return self._publish(temp, path)
        _flush((self.root / path).parent)
        return str(path)

    def results_of(self, study_uid: str) -> list[str]:
        """Return the paths of our own objects that are kept of a study, whether they are indexed or not."""
        found = (self.root / "results" / study_uid).rglob("*")
        paths = (str(file.relative_to(self.root)) for file in found if file.is_file())
        return [path for path in paths if is_result_path(path)]

    def write_preview(self, path: str, data: bytes) -> None:
        """Put a picture where its row says, in the place of an earlier one; nothing stands on it."""
        target = self.root / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._outgoing_file([data]) as temp:
            temp.replace(target)

    def remove(self, path: str) -> None:
        """Unlink a file for good; one that is gone already is no fault.

        Folders stay: one that is empty now may get a file at this moment.
        """
        target = self.root / path
        target.unlink(missing_ok=True)
        if target.parent.is_dir():
            _flush(target.parent)

    def owner(self) -> str:
        """Return what the store was marked with; '' when nobody has."""
        try:
            return (self.root / MARK).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""
        except PermissionError as error:
            raise StoreUnusable(f"{error.filename}: {error.strerror}") from error

    def mark(self, owner: str) -> None:
        """Let the store say for good whose it is."""
        target = self.root / MARK
        target.parent.mkdir(mode=0o700, exist_ok=True)
        with self._outgoing_file([f"{owner}\n".encode()]) as temp:
            _flush(temp)
            temp.replace(target)
        _flush(target.parent)
        _flush(self.root)

    def _files_of(self, folder: Path) -> Iterator[Kept]:
        for written, file in sorted((file.stat().st_mtime, file) for file in folder.rglob("*.dcm")):
            yield Kept(str(file.relative_to(self.root)), datetime.fromtimestamp(written, UTC))

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


def path_in(area: str, reference: InstanceReference, ending: str) -> PurePosixPath:
    """Return the path of an instance in an area."""
    return PurePosixPath(area, reference.study_uid, reference.series_uid, reference.instance_uid + ending)


def result_path(reference: InstanceReference, data: bytes, suffix: str) -> PurePosixPath:
    """Return where one of our own objects is kept."""
    return path_in("results", reference, f".{hashlib.sha256(data).hexdigest()[:16]}.{suffix}")


def is_result_path(path: str) -> bool:
    """Tell whether a path has the form of :func:`result_path`; what else lies there, such as a copy made by hand, is not ours."""
    return _RESULT.fullmatch(path) is not None


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
            if file.stat().st_mtime <= latest:
                yield file
