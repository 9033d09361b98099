"""Receiving instances over HTTP: parts become files in the store, files go to the one intake, and each has its outcome."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

from pydicom.uid import UID

from node.errors import (
    BadRequest,
    BodyTooLarge,
    ClassNotTaken,
    StudyMismatch,
    SyntaxNotTaken,
    UnsupportedMediaType,
)
from node.faults import told
from node.instance_file import GrowingFile, InstanceFile
from node.intake import Announced, Receiver
from node.records import DOORS, HEAD, Origin, dataset_begins, read_header, text
from node.sop_classes import TRANSFER_SYNTAXES
from node.status import OUT_OF_RESOURCES, storing_reason
from node.telemetry import logger
from node.web.dicom_json import Model, attribute
from node.web.media import DICOM, DICOM_JSON, MediaType, parse_media_types
from node.web.multipart import Part
from node.web.stow_json import LARGEST_DOCUMENT, LARGEST_DOCUMENTS, Documents

log = logger("web")

FILE_META: Final = b"\x02\x00"
PREAMBLE: Final = b"\0" * 128 + b"DICM"
"""What PS3.10 7.1 asks for, and senders whose instances were never files leave out (dicomweb-client)."""
LONGEST_META: Final = 1 << 16
"""Bytes before a data set that are waited for; with more its digest is another, and copies are told apart by their content."""


@dataclass(frozen=True)
class Stored:
    """An instance that was received, by its UIDs."""

    study_uid: str
    series_uid: str
    instance_uid: str
    sop_class_uid: str


@dataclass(frozen=True)
class Failed:
    """An instance that was not; its UIDs where they could be read."""

    reason: int
    instance_uid: str = ""
    sop_class_uid: str = ""


@dataclass
class Outcomes:
    """What became of each instance of a request."""

    stored: list[Stored] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    @property
    def status(self) -> HTTPStatus:
        """Of the whole (PS3.18 table 10.5.3-1)."""
        if not self.failed:
            return HTTPStatus.OK
        if self.stored:
            return HTTPStatus.ACCEPTED
        if all(each.reason == OUT_OF_RESOURCES for each in self.failed):
            return HTTPStatus.SERVICE_UNAVAILABLE
        return HTTPStatus.CONFLICT

    def document(self, address: str, study_uid: str | None) -> Model:
        """Return the response (PS3.18 10.5.3.2, PS3.3 table I.1-2)."""
        studies = {study_uid} if study_uid else {each.study_uid for each in self.stored}
        document = attribute("RetrieveURL", f"{address}/studies/{studies.pop()}") if len(studies) == 1 else {}
        known = [each for each in self.failed if each.instance_uid]
        other = [each for each in self.failed if not each.instance_uid]
        if other:
            document |= attribute("OtherFailuresSequence", *(attribute("FailureReason", each.reason) for each in other))
        if known:
            document |= attribute("FailedSOPSequence", *map(_failed_item, known))
        if self.stored:
            document |= attribute("ReferencedSOPSequence", *(_stored_item(address, each) for each in self.stored))
        return dict(sorted(document.items()))


def _failed_item(failed: Failed) -> Model:
    return {
        **attribute("ReferencedSOPClassUID", failed.sop_class_uid),
        **attribute("ReferencedSOPInstanceUID", failed.instance_uid),
        **attribute("FailureReason", failed.reason),
    }


def _stored_item(address: str, stored: Stored) -> Model:
    where = f"{address}/studies/{stored.study_uid}/series/{stored.series_uid}/instances/{stored.instance_uid}"
    return {
        **attribute("ReferencedSOPClassUID", stored.sop_class_uid),
        **attribute("ReferencedSOPInstanceUID", stored.instance_uid),
        **attribute("RetrieveURL", where),
    }


class TempFile:
    """A part that goes to a file on the disk of the store.

    Parameters
    ----------
    folder
        Where.
    on_end
        Takes the file once all of it is there, and sees that it goes.
    largest
        Bytes that it may have.
    """

    def __init__(self, folder: Path, on_end: Callable[[Path], object], largest: int | None = None) -> None:
        self._file = GrowingFile(folder, "stow-")
        self.path = Path(self._file.name)
        self._on_end = on_end
        self._largest = largest
        self._size = 0

    def write(self, data: memoryview) -> None:
        """Take some bytes."""
        self._size += len(data)
        if self._largest is not None and self._size > self._largest:
            raise BodyTooLarge(
                f"a document has at most {LARGEST_DOCUMENT} bytes, those of a request {LARGEST_DOCUMENTS}"
            )
        self._file.write_all([data])

    def end(self) -> None:
        """Hand the file over."""
        self._file.close()
        self._on_end(self.path)

    def discard(self) -> None:
        """Remove what there is."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class InstancePart:
    """An instance that goes to a file: it gets the preamble that it lacks, and its data set is digested while it comes.

    Parameters
    ----------
    folder
        Where.
    on_end
        Takes the file, once all of it is there, and the digest of its data set, and sees that the file goes.
    """

    def __init__(self, folder: Path, on_end: Callable[[Path, str], object]) -> None:
        self._folder = folder
        self._on_end = on_end
        self._start = b""
        self._file: InstanceFile | None = None

    def write(self, data: memoryview) -> None:
        """Take some bytes."""
        while self._file is None and data:
            lacking = self._lacking
            self._start += data[:lacking]
            data = data[lacking:]
            if self._start == FILE_META:
                self._start = PREAMBLE + FILE_META
            if not self._lacking:
                self._begin()
        if self._file is not None:
            self._file.take([data])

    def end(self) -> None:
        """Hand the file over."""
        file = self._file or self._begin()
        file.close()
        self._on_end(Path(file.name), file.digest)

    def discard(self) -> None:
        """Remove what there is."""
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)

    @property
    def _lacking(self) -> int:
        """Bytes that are still to come before the data set."""
        if len(self._start) < len(FILE_META):
            return len(FILE_META) - len(self._start)
        return max(min(dataset_begins(self._start) or HEAD, LONGEST_META) - len(self._start), 0)

    def _begin(self) -> InstanceFile:
        is_known = dataset_begins(self._start) > 0
        self._file = InstanceFile(self._folder, self._start if is_known else b"")
        if not is_known:
            self._file.take([memoryview(self._start)])
        return self._file


class Receiving:
    """Receives one request, in the thread that feeds it.

    Parameters
    ----------
    intake
        Takes each instance.
    incoming
        Folder for what is being received.
    origin
        Who sends.
    study_uid
        The study that all instances must belong to, or None.
    most
        Data sets that may come as JSON.
    """

    def __init__(self, intake: Receiver, incoming: Path, origin: Origin, study_uid: str | None, most: int) -> None:
        self.outcomes = Outcomes()
        self._intake = intake
        self._incoming = incoming
        self._origin = origin
        self._study_uid = study_uid
        self._open: TempFile | InstancePart | None = None
        self._documents = Documents(incoming, most)

    def part(self, headers: Mapping[str, str]) -> Part:
        """Begin a part of a multipart body."""
        types = parse_media_types(headers.get("content-type", DICOM))
        if len(types) != 1:
            raise BadRequest("a part has no Content-Type")
        return self.begin(types[0], headers.get("content-location", ""))

    def begin(self, kind: MediaType, location: str = "") -> Part:
        """Begin a file of a media type; one with an address belongs to a JSON document before it."""
        if kind.name == DICOM:
            self._open = InstancePart(self._incoming, self._instance)
        elif kind.name in {DICOM_JSON, "application/json"}:
            self._open = TempFile(self._incoming, self._documents.document, self._documents.room)
        elif location and self._documents.waiting:
            self._open = TempFile(self._incoming, partial(self._documents.bulk, location, kind))
        else:
            raise UnsupportedMediaType(kind.name[:64])
        return self._open

    @property
    def has_documents(self) -> bool:
        """Whether data sets came as JSON, which `finish` parses in memory."""
        return self._documents.waiting

    def finish(self) -> None:
        """Receive the instances whose data sets came as JSON, once everything is there."""
        for made in self._documents.instances():
            if isinstance(made, Path):
                self._instance(made)
            else:
                self.outcomes.failed.append(Failed(storing_reason(made)))

    def close(self) -> None:
        """Remove what was not handed over."""
        if self._open is not None:
            self._open.discard()
        self._documents.close()

    def broken(self, error: Exception) -> None:
        """Note that the body ended in the middle."""
        self.outcomes.failed.append(Failed(storing_reason(error)))

    def _instance(self, path: Path, digest: str = "") -> None:
        named = Failed(0)
        try:
            header = read_header(path, DOORS)
            stored = Stored(
                *(
                    text(header, keyword)
                    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
                )
            )
            named = Failed(0, stored.instance_uid[:64], stored.sop_class_uid[:64])
            self._require_taken(stored, text(header.file_meta, "TransferSyntaxUID"))
            read = Announced(stored.sop_class_uid, stored.instance_uid, digest, header)
            self._intake.receive(path, read, self._origin)
        except Exception as error:  # noqa: BLE001 - the sender must learn of each instance, whatever happens
            reason = storing_reason(error)
            self.outcomes.failed.append(Failed(reason, named.instance_uid, named.sop_class_uid))
            log.warning("instance not stored", instance=named.instance_uid, reason=f"{reason:04X}H", cause=told(error))
        else:
            self.outcomes.stored.append(stored)
        finally:
            path.unlink(missing_ok=True)

    def _require_taken(self, stored: Stored, syntax: str) -> None:
        # As the DICOM door negotiates (node.scp): one policy for both.
        syntaxes = TRANSFER_SYNTAXES.get(UID(stored.sop_class_uid))
        if syntaxes is None:
            raise ClassNotTaken(stored.sop_class_uid[:64])
        if syntax not in syntaxes:
            raise SyntaxNotTaken(syntax[:64])
        if self._study_uid and stored.study_uid != self._study_uid:
            raise StudyMismatch
