"""A store whose files lie in an S3-compatible bucket; the local folder holds what is on its way, and copies.

An object's name tells its bytes. So nothing in the bucket is ever overwritten by other bytes, whoever sends late; to put
an object once more, after an answer that was lost or a crash, changes nothing; and what comes back is proven.
"""

import hashlib
import mmap
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from config.policy import BucketPlace
from storage.errors import BucketUnavailable
from storage.files import (
    MARK,
    FolderStore,
    InstanceReference,
    InstanceStore,
    Kept,
    is_result_path,
    path_in,
    result_path,
)

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ClientConfig

CONNECT_TIMEOUT: Final = timedelta(seconds=5)
SILENCE: Final = timedelta(seconds=60)
"""Until a request, of at most ``WHOLE`` bytes, is answered, and between two pieces of what is fetched."""
REQUEST_TIMEOUT: Final = timedelta(hours=1)
RETRIES: Final = 2
RETRY_FOR: Final = timedelta(seconds=10)
"""What still fails is told: who sends tries again, and so do jobs and deliveries."""
WHOLE: Final = 64 << 20
"""Bytes up to which an object is put at once; larger ones in parts of ``PART`` bytes, a few at a time."""
PART: Final = 8 << 20
PARTS_AT_ONCE: Final = 4
CHUNK: Final = 4 << 20
LEAST_AGE: Final = timedelta(hours=1)
"""A copy that was asked for since may be on its way to somebody, and stays."""
PROBES: Final = ".mammonode"
"""Where ``prove`` writes."""
_DIGEST: Final = re.compile(r"(?:[^/]+/){4}([0-9a-f]{64})\.dcm|results/.+\.([0-9a-f]{16})\.\w+")
"""A path that tells the object's bytes (SHA-256); those of a folder, which may have been copied here, tell no instance's."""


class BucketStore(InstanceStore):
    """Objects in a bucket under the paths that the index keeps, and copies of them in a folder.

    A received file is in the bucket before its row commits; success is answered after both. Several hosts may share a
    bucket, each with a folder of its own. What the folder held before there was a bucket is found there still.

    Parameters
    ----------
    root
        The folder.
    place
        The bucket.
    """

    areas = ("copies",)
    far = True

    def __init__(self, root: Path, place: BucketPlace) -> None:
        super().__init__(root)
        self._copies = self.root / "copies"
        self._former = FolderStore(root)
        self._keep = place.keep_bytes
        self._where = place.endpoint or f"Amazon S3 in {place.region}"
        self._probe = secrets.token_hex(8)
        self._last_fault = self._looked_into = object()
        options: dict[str, Any] = {"endpoint": place.endpoint} if place.endpoint else {}
        client: ClientConfig = {
            "allow_http": place.plain_http,
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": SILENCE,
            "timeout": REQUEST_TIMEOUT,
        }
        try:
            if place.ca:
                client["root_certificate"] = Path(place.ca).read_bytes()
            self._bucket = S3Store(
                place.name,
                prefix=place.prefix or None,
                region=place.region,
                access_key_id=place.access_key_id,
                secret_access_key=place.secret_access_key,
                # Servers of one's own seldom have a host name for each bucket.
                virtual_hosted_style_request=not place.endpoint,
                client_options=client,
                retry_config={"max_retries": RETRIES, "retry_timeout": RETRY_FOR},
                **options,
            )
        except (BaseError, OSError) as error:
            raise BucketUnavailable(f"bucket.ca or bucket.endpoint: {type(error).__name__}") from None

    def reach(self) -> None:
        """Ask the bucket for nothing in particular; once something has failed, for all: it may answer and take nothing.

        Raises
        ------
        BucketUnavailable
            When it does not do as asked.
        """
        if self._last_fault is not self._looked_into:
            self.prove()
        else:
            self._list_probes()

    def prove(self) -> None:
        """Write, read, list and remove an object.

        Raises
        ------
        BucketUnavailable
            When one of it fails: the first, in words.
        """
        # One for each thread, however often it fails.
        path, data = f"{PROBES}/{self._probe}-{get_ident()}", secrets.token_bytes(16)
        fault = self._last_fault
        with self._asked("write"):
            obstore.put(self._bucket, path, data)
        with self._asked("read"):
            same = bytes(obstore.get(self._bucket, path).bytes()) == data
        if not same:
            self._last_fault = object()
            raise BucketUnavailable(f"{self._where}: gives other bytes than it was given")
        self._list_probes()
        with self._asked("remove"):
            obstore.delete(self._bucket, path)
        self._looked_into = fault

    def path_of(self, reference: InstanceReference, temp: Path) -> str:
        """Return where an instance is kept: below its UID, by the digest of its bytes."""
        return str(path_in("instances", reference, f"/{_digest(temp)}.dcm"))

    def resolve(self, path: str) -> Path:
        """Return a copy of an object, which is fetched when there is none; nothing is there when it is gone.

        Raises
        ------
        BucketUnavailable
            When it has to be fetched and cannot be.
        """
        copy = self._copy_of(path)
        try:
            os.utime(copy)
        except FileNotFoundError:
            if (former := self._former.resolve(path)).is_file():
                return former
            self._fetch(path)
        return copy

    def size_of(self, path: str) -> int | None:
        """Return the number of bytes that the bucket has under a path; None when it is gone."""
        with self._asked("read"), suppress(FileNotFoundError):
            return obstore.head(self._bucket, path)["size"]
        self.reach()  # the answer to HEAD has no words: it may be the bucket that is gone
        return self._former.size_of(path)

    def listed(self, area: str) -> Iterator[Kept]:
        """Yield what lies in an area, series by series, the oldest of a series first."""
        yield from self._former.listed(area)
        # S3 lists in the order of names.
        for _, series in groupby(self._objects(area), lambda kept: kept.path.split("/")[:3]):
            yield from sorted(series, key=lambda kept: (kept.written_at, kept.path))

    def make_way(self, temp: Path, path: str) -> None:
        """Put a received file into the bucket; its answer is that of a store that lasts."""
        with temp.open("rb") as file, self._asked("write"):
            if (size := temp.stat().st_size) > WHOLE:
                obstore.put(self._bucket, path, file, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)
            else:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
                obstore.put(self._bucket, path, data, use_multipart=False)

    def accept(self, temp: Path, path: str) -> None:
        """Keep the received file, which the bucket has, as a copy: it is going to be read."""
        self._copy(temp, path)

    def adopt(self, temp: Path, path: str) -> None:
        """Do as ``accept``, which never finds other bytes in its place."""
        self._copy(temp, path)

    def set_aside(self, temp: Path, reference: InstanceReference) -> str:
        """Keep a different instance with a UID that is known in the conflicts area, and return its path."""
        path = str(path_in("conflicts", reference, f"/{_digest(temp)}.dcm"))
        self.make_way(temp, path)
        self._copy(temp, path)
        return path

    def write_result(self, reference: InstanceReference, data: bytes, suffix: str = "dcm") -> str:
        """Put one of our own objects into the bucket and return its path, which tells its bytes."""
        path = str(result_path(reference, data, suffix))
        self._put(path, data)
        return path

    def results_of(self, study_uid: str) -> list[str]:
        """Return the paths of our own objects that are kept of a study, whether they are indexed or not."""
        with self._asked("list"):
            found = {each["path"] for batch in obstore.list(self._bucket, f"results/{study_uid}") for each in batch}
        return sorted({*filter(is_result_path, found), *self._former.results_of(study_uid)})

    def write_preview(self, path: str, data: bytes) -> None:
        """Put a picture where its row says; a copy of an earlier one may be looked at for a while."""
        self._put(path, data)

    def remove(self, path: str) -> None:
        """Remove an object and its copy here; other hosts lose theirs when these have not been asked for for long."""
        with self._asked("remove"):
            try:
                obstore.delete(self._bucket, path)
            except FileNotFoundError as error:
                _require_bucket(error)
        self._copy_of(path).unlink(missing_ok=True)
        self._former.remove(path)

    def owner(self) -> str:
        """Return what the bucket was marked with; '' when nobody has."""
        with self._asked("read"):
            try:
                return bytes(obstore.get(self._bucket, MARK).bytes()).decode("ascii").strip()
            except FileNotFoundError as error:
                _require_bucket(error)
                return ""

    def mark(self, owner: str) -> None:
        """Let the bucket say whose it is."""
        with self._asked("write"):
            obstore.put(self._bucket, MARK, f"{owner}\n".encode(), use_multipart=False)

    def sweep(self, older_than: timedelta) -> int:
        """Remove old temp files, and the copies that were asked for longest ago while all take more than they may."""
        files = []
        for file in self._copies.iterdir():
            with suppress(FileNotFoundError):
                status = file.stat()
                files.append((status.st_mtime, status.st_size, file))
        taken, until = sum(size for _, size, _ in files), time.time() - LEAST_AGE.total_seconds()
        for asked_for, size, file in sorted(files):
            if taken <= self._keep or asked_for > until:
                break
            file.unlink(missing_ok=True)
            taken -= size
        return super().sweep(older_than)

    def _list_probes(self) -> None:
        with self._asked("list"):
            next(iter(obstore.list(self._bucket, PROBES)), None)

    def _put(self, path: str, data: bytes) -> None:
        with self._asked("write"):
            obstore.put(self._bucket, path, data, use_multipart=False)
        with self._outgoing_file([data]) as temp:
            self.flush(temp)
            self._copy(temp, path)

    def _copy_of(self, path: str) -> Path:
        # In one folder: those of studies and series would be there for ever.
        return self._copies / f"{hashlib.sha256(path.encode()).hexdigest()}{Path(path).suffix}"

    def _copy(self, temp: Path, path: str) -> None:
        """Make a file that was flushed the copy of an object; after a power cut it is whole, or it is not there."""
        temp.replace(self._copy_of(path))

    def _fetch(self, path: str) -> None:
        with self._asked("read"):
            try:
                found = obstore.get(self._bucket, path)
            except FileNotFoundError as error:
                _require_bucket(error)
                return
        digest = hashlib.sha256()
        with self._outgoing_file(self._chunks(found, digest)) as temp:
            told = _DIGEST.fullmatch(path)
            whole = temp.stat().st_size == found.meta["size"]
            if whole and (told is None or digest.hexdigest().startswith(told[1] or told[2])):
                self.flush(temp)
                self._copy(temp, path)
            # Otherwise it is as good as gone.

    def _chunks(self, found: "GetResult", digest: "hashlib._Hash") -> Iterator[bytes]:
        with self._asked("read"):
            for chunk in found.stream(min_chunk_size=CHUNK):
                digest.update(chunk)
                yield chunk

    def _objects(self, area: str) -> Iterator[Kept]:
        with self._asked("list"):
            for batch in obstore.list(self._bucket, area):
                yield from (
                    Kept(each["path"], each["last_modified"]) for each in batch if each["path"].endswith(".dcm")
                )

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Turn what the bucket, or the way to it, does not do into one error, without its text, which quotes the keys."""
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            self._last_fault = object()
            raise BucketUnavailable(f"{what}, {self._where}: {_why(str(error))}") from None


def _require_bucket(error: FileNotFoundError) -> None:
    """Let it be when an object is gone, which may be, and raise the error when the bucket is."""
    if _why(str(error)) == "NoSuchBucket":
        raise error


def _why(text: str) -> str:
    """Return the code of an S3 error document, the HTTP status or the kind of failure."""
    for pattern in (r"<Code>(\w+)</Code>", r"status code: (\d{3})", r"kind: (Connect|Timeout|Request)\b"):
        if found := re.search(pattern, text):
            return found[1]
    return "no answer"


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
