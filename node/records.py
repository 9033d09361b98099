"""Headers → what the index keeps of an instance."""

import zlib
from dataclasses import dataclass
from datetime import datetime
from io import SEEK_CUR, BufferedReader, FileIO
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final
from weakref import finalize

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_file_meta_info
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from node.errors import InstanceUIDInvalid, NodeError, TooManyLargeHeaders, UIDsMissing, UnparsableDataset
from node.headers import acquired_at, instance_number, number
from node.views import Classification, ImageKind
from storage.errors import MalformedUID
from storage.files import InstanceReference
from storage.index import InstanceRecord, SeriesRecord, StudyRecord
from storage.patients import PatientRecord

PREAMBLE = 128 + len(b"DICM")
GROUP_LENGTH_ELEMENT = 12
"""Tag, VR, length and value of File Meta Information Group Length, in bytes (PS3.10 7.1)."""
HEAD = PREAMBLE + GROUP_LENGTH_ELEMENT
"""Bytes of a file after which it is known where its data set begins."""
START = b"DICM\2\0\0\0UL\4\0"
"""What stands in them after 128 bytes that may be any, before the value of that element."""

LONGEST_TEXT = 320
"""Characters of a header's text that the index keeps: a Long String has 64 (PS3.5 6.2), a garbled one any number. Two of
them, an ID and its issuer, each character of four bytes, fit into the 2,704 bytes of an entry of PostgreSQL's indexes."""


LARGEST_INFLATED = 256 << 20
"""Bytes of a data set in the deflated transfer syntax, which pydicom unpacks in memory at once; no door proposes it."""


LONGEST_VALUE: Final = 4 << 20
"""Bytes of a value that a header still has, and of all its sequences: nothing longer is asked for here. Some tomosynthesis has
its pixels in private attributes; the functional groups of 100 frames, each of 25 sources, have 0.5 MB, and sequences of so many
bytes that are nothing but empty items take 350 MB once they are looked at (measured)."""
LARGEST_HEADER: Final = 128 << 20
"""Bytes of a header, which is read into memory; each read counts `OF_A_READ` more."""
OF_A_READ: Final = 256
"""Measured: what pydicom makes of nothing but small items is 230 bytes for each read. Of those frames, with each length undefined,
there are 70,000."""


LARGE_HEADER: Final = 20 << 20
"""Bytes from which a header needs a place, counted in the same way: those frames need none."""


class Places:
    """Room in memory for large headers, which those who receive share: 30 associations would hold 3.8 GB of the largest.

    Parameters
    ----------
    number
        How many there are.
    patience
        Seconds that one is waited for, less than a sender waits for its response.
    """

    def __init__(self, number: int = 4, patience: float = 20) -> None:
        # The garbage collector forgets headers in the middle of anything, of `take` too: of all that waits and wakes this
        # alone may be left to then (its `put` is reentrant).
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(number):
            self.leave()
        self._patience = patience

    def take(self) -> None:
        """Take one, perhaps once somebody has left it.

        Raises
        ------
        TooManyLargeHeaders
            When nobody does.
        """
        try:
            self._free.get(timeout=self._patience)
        except Empty:
            raise TooManyLargeHeaders from None

    def leave(self) -> None:
        """Leave one to others."""
        self._free.put(None)


DOORS: Final = Places()
"""Those of this process's doors."""


class HeaderFile(BufferedReader):
    """A file of which no more is read into memory than a header may have.

    Parameters
    ----------
    skips
        Whether values that are too long are empty: those in sequences of undefined length, which pydicom reads whole.
    places
        Where a large header needs one; None where none is received.

    Attributes
    ----------
    placed
        Whether it has taken one, which is left by whoever has read it.
    """

    def __init__(self, path: Path, *, skips: bool, places: Places | None = None) -> None:
        # By a name that is text pydicom opens it again, for a value that it has put off.
        super().__init__(FileIO(str(path)))
        self.placed = False
        self._places = places
        self._skips = skips
        self._left = LARGEST_HEADER

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes.

        Raises
        ------
        UnparsableDataset
            When they were too many.
        TooManyLargeHeaders
            When no place became free for them.
        """
        if self._skips and size is not None and size > LONGEST_VALUE:
            self.seek(size, SEEK_CUR)
            size = 0
        data = super().read(size)
        self._left -= len(data) + OF_A_READ
        if self._left < 0:
            raise UnparsableDataset("its header goes beyond all bounds")
        if self._places and not self.placed and LARGEST_HEADER - self._left > LARGE_HEADER:
            self._places.take()
            self.placed = True
        return data


@dataclass(frozen=True)
class Origin:
    """Who sent an instance, and through which association.

    Attributes
    ----------
    calling_ae, called_ae
        AE titles.
    address
        Network address of the sender.
    association
        Id that its log lines share.
    """

    calling_ae: str
    called_ae: str
    address: str
    association: str


def read_header(path: Path, places: Places | None = None) -> Dataset:
    """Read a file up to its pixels, without values that are too long; no pixel is decoded.

    Parameters
    ----------
    places
        Where a large header has one until it is forgotten; None where none is received.

    Raises
    ------
    UnparsableDataset
        When it is no DICOM file.
    TooManyLargeHeaders
        When no place became free for its header.
    """
    try:
        require_inflatable(path)
        with HeaderFile(path, skips=True, places=places) as file:
            header = placed(file, places, defer_size=LONGEST_VALUE, stop_before_pixels=True)
    except NodeError:
        raise
    except OSError as error:
        if error.errno is not None:  # the disk's; pydicom's own, of a sequence that does not end, have no number
            raise
        raise UnparsableDataset(type(error).__name__) from error
    except Exception as error:  # pydicom raises whatever a garbled file provokes
        raise UnparsableDataset(type(error).__name__) from error
    for tag in bulky(header):
        del header[tag]
    return header


def placed(file: HeaderFile, places: Places | None, **how: Any) -> Dataset:
    """Read a header, as pydicom is told how, which keeps the place that it took."""
    try:
        header = dcmread(file, **how)
    except BaseException:
        if places and file.placed:
            places.leave()
        raise
    if places and file.placed:
        finalize(header, places.leave)
    return header


def bulky(header: Dataset) -> list[BaseTag]:
    """Return the attributes whose values, or of which the sequences together, are longer than a header's may be."""
    found, sequences = [], 0
    for tag in sorted(header.keys(), key=lambda tag: (tag.is_private, tag)):
        element: Any = header.get_item(tag, keep_deferred=True)
        if not isinstance(element, RawDataElement):  # what pydicom has made already
            continue
        is_sequence = vr_of(element) == "SQ"
        sequences += element.length * is_sequence
        if element.length > LONGEST_VALUE or (is_sequence and sequences > LONGEST_VALUE):
            found.append(tag)
    return found


def vr_of(element: RawDataElement) -> str | None:
    """Return the value representation that an element of a file is read in, None where nobody knows it."""
    is_known = element.VR not in {None, "UN"} or not dictionary_has_tag(element.tag)
    return element.VR if is_known else dictionary_VR(element.tag)


def require_inflatable(path: Path) -> None:
    """Refuse a file in the deflated transfer syntax that is too large when it is unpacked.

    Raises
    ------
    UnparsableDataset
        When it is.
    """
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflate, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        file.seek(HEAD + int(meta.FileMetaInformationGroupLength))
        while block := inflate.unconsumed_tail or file.read(1 << 16):
            inflated += len(inflate.decompress(block, 1 << 20))
            if inflated > LARGEST_INFLATED:
                raise UnparsableDataset("it inflates beyond all bounds")


def dataset_offset(header: Dataset) -> int:
    """Return where the data set begins in the file, 0 when the File Meta Information does not say."""
    length = int(number(header.file_meta, "FileMetaInformationGroupLength"))
    return HEAD + length if length else 0


def dataset_begins(start: bytes) -> int:
    """Return the same from how the file starts; 0 also where that is not yet known."""
    if start[128 : HEAD - 4] != START or len(start) < HEAD:
        return 0
    length = int.from_bytes(start[HEAD - 4 : HEAD], "little")
    return HEAD + length if length else 0


def reference(header: Dataset) -> InstanceReference:
    """Return the UIDs of an instance.

    Raises
    ------
    InstanceUIDInvalid
        When the SOP Instance UID is malformed.
    UIDsMissing
        When one of the four UIDs is absent, or another one is malformed.
    """
    instance, sop_class, study, series = (
        text(header, keyword) for keyword in ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")
    )
    if not (instance and sop_class and study and series):
        raise UIDsMissing
    try:
        InstanceReference(instance, instance, instance)
    except MalformedUID as error:
        raise InstanceUIDInvalid from error
    try:
        InstanceReference(sop_class, sop_class, sop_class)
        return InstanceReference(study, series, instance)
    except MalformedUID as error:
        raise UIDsMissing from error


def instance_record(
    header: Dataset,
    found: Classification,
    *,
    path: str,
    size: int,
    digest: str,
    origin: Origin,
    received_at: datetime,
) -> InstanceRecord:
    """Return what the index keeps.

    Parameters
    ----------
    header
        Whose `reference` is valid.
    found
        What ``node.views`` says of it.
    path, size, digest, received_at
        As in ``InstanceRecord``.
    origin
        Who sent it.
    """
    return InstanceRecord(
        patient=PatientRecord(
            issuer=text(header, "IssuerOfPatientID"),
            patient_id=text(header, "PatientID"),
            name=text(header, "PatientName"),
            birth_date=text(header, "PatientBirthDate"),
            sex=text(header, "PatientSex"),
        ),
        study=StudyRecord(
            uid=text(header, "StudyInstanceUID"),
            date=text(header, "StudyDate"),
            time=text(header, "StudyTime"),
            accession_number=text(header, "AccessionNumber"),
            description=text(header, "StudyDescription"),
        ),
        series=SeriesRecord(
            uid=text(header, "SeriesInstanceUID"),
            modality=text(header, "Modality"),
            number=series_number(header),
            description=text(header, "SeriesDescription"),
        ),
        uid=text(header, "SOPInstanceUID"),
        sop_class_uid=text(header, "SOPClassUID"),
        transfer_syntax_uid=text(header.file_meta, "TransferSyntaxUID"),
        path=path,
        size=size,
        digest=digest,
        received_at=received_at,
        calling_ae=origin.calling_ae,
        origin=origin.address,
        kind=found.kind.value,
        laterality=found.laterality,
        view_position=found.view_position,
        usable=found.usable,
        opens_exam=found.opens_exam,
        own=found.kind is ImageKind.OWN_RESULT,
        acquired_at=acquired_at(header),
        instance_number=instance_number(header),
        reasons=found.reasons,
    )


def text(header: Dataset, keyword: str) -> str:
    """Return an attribute's text without padding, several values joined as they were; '' when absent or unreadable."""
    try:
        value = header.get(keyword)
        if value is None:
            return ""
        several = value if isinstance(value, MultiValue) else [value]
        return "\\".join(str(single) for single in several).strip(" \0")[:LONGEST_TEXT]
    except Exception:  # noqa: BLE001 - pydicom converts at access, and its converters raise whatever odd bytes make them
        return ""


def series_number(header: Dataset) -> int | None:
    """Return Series Number, None when absent, no number, or beyond 32 bits (PS3.5 6.2, IS)."""
    written = text(header, "SeriesNumber")
    value = int(written) if written.lstrip("+-").isascii() and written.lstrip("+-").isdigit() else None
    return value if value is not None and -(2**31) <= value < 2**31 else None
