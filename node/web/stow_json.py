"""Instances whose data sets come as JSON and whose bulk data come as parts of their own (PS3.18 10.5.2, 8.6.1)."""

import json
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from node.errors import TooManyParts, UIDsMissing, UnparsableDataset
from node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.web.media import IMAGES, MediaType

PIXEL_DATA: Final = "7FE00010"
LARGEST_DOCUMENT: Final = 16 << 20
"""Bytes of one document, which is parsed in memory: into 0.5 GB at most that was measured, as of nothing but empty lists."""
LARGEST_DOCUMENTS: Final = 64 << 20
"""Bytes of all documents of one request."""
LARGEST_VALUE: Final = 16 << 20
"""Bytes of bulk data other than pixels, which are in memory while the file is written."""

DEFAULT_SYNTAXES: Final[Mapping[str, UID]] = {
    "image/jpeg": uid.JPEGLosslessSV1,
    "image/jls": uid.JPEGLSLossless,
    "image/jp2": uid.JPEG2000Lossless,
    "image/jphc": uid.HTJ2KLossless,
    "image/dicom-rle": uid.RLELossless,
}
"""Media type of pixels → transfer syntax, when none is named (PS3.18 table 8.7.3-2)."""


class Documents:
    """The JSON documents of one request, and the bulk data that they point to: files, of which one is parsed at a time.

    Parameters
    ----------
    folder
        Where files are made.
    most
        Data sets that there may be.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._paths: deque[Path] = deque()
        self._size = 0
        self._bulk: dict[str, tuple[MediaType, Path]] = {}

    @property
    def waiting(self) -> bool:
        """Whether there is a document that bulk data could belong to."""
        return bool(self._paths)

    @property
    def room(self) -> int:
        """Bytes that the next document may have."""
        return min(LARGEST_DOCUMENT, LARGEST_DOCUMENTS - self._size)

    def document(self, path: Path) -> None:
        """Take a document: a data set, or an array of them."""
        self._paths.append(path)
        self._size += path.stat().st_size

    def bulk(self, location: str, kind: MediaType, path: Path) -> None:
        """Take bulk data by their address."""
        former = self._bulk.pop(location, None)
        if former:
            former[1].unlink(missing_ok=True)
        self._bulk[location] = kind, path

    def instances(self) -> Iterator[Path | Exception]:
        """Yield a file for each data set, or why there is none.

        Raises
        ------
        TooManyParts
            When there are too many data sets.
        """
        left = self._most
        while self._paths:
            models = self._next()
            left -= len(models)
            if left < 0:
                raise TooManyParts(f"more than {self._most} data sets")
            yield from self._made(models)

    def _next(self) -> list[Any]:
        path = self._paths.popleft()
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return [None]
        finally:
            path.unlink(missing_ok=True)
        return found if isinstance(found, list) else [found]

    def _made(self, models: list[Any]) -> Iterator[Path | Exception]:
        models.reverse()
        while models:
            model = models.pop()
            path = self._folder / f"stow-json-{id(model):x}.dcm"
            try:
                self._write(model, path)
            except OSError as error:
                path.unlink(missing_ok=True)
                yield error
            except Exception as error:  # noqa: BLE001 - pydicom raises whatever a garbled document provokes
                path.unlink(missing_ok=True)
                yield UnparsableDataset(type(error).__name__)
            else:
                yield path

    def close(self) -> None:
        """Remove what is left."""
        for path in (*self._paths, *(path for _, path in self._bulk.values())):
            path.unlink(missing_ok=True)
        self._paths.clear()
        self._bulk.clear()

    def _write(self, model: Any, path: Path) -> None:
        if not isinstance(model, dict):
            raise UnparsableDataset("not a data set")
        own = {tag: value for tag, value in model.items() if not tag.startswith("0002")}
        pixels = None
        if "BulkDataURI" in own.get(PIXEL_DATA, {}):
            pixels = self._bulk[own[PIXEL_DATA]["BulkDataURI"]]
            # Pixel data come last; what would follow them (padding, signatures) is left out.
            own = {tag: value for tag, value in own.items() if tag < PIXEL_DATA}
        dataset = Dataset.from_json(own, self._value)
        if not dataset.get("SOPClassUID") or not dataset.get("SOPInstanceUID"):
            raise UIDsMissing
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        meta.TransferSyntaxUID = _syntax(pixels[0] if pixels else None)
        meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        dataset.file_meta = meta
        with path.open("wb") as file:
            dataset.save_as(file, enforce_file_format=True)
            if pixels:
                _append_pixels(file, pixels[1], meta.TransferSyntaxUID)

    def _value(self, _tag: str, _vr: str, address: str) -> bytes:
        _, path = self._bulk[address]
        if path.stat().st_size > LARGEST_VALUE:
            raise UnparsableDataset("a value is too long")
        return path.read_bytes()


def _syntax(kind: MediaType | None) -> UID:
    if kind is None:
        return ExplicitVRLittleEndian
    named = UID(kind.transfer_syntax or DEFAULT_SYNTAXES.get(kind.name, ExplicitVRLittleEndian))
    if (named == ExplicitVRLittleEndian) is (kind.name in DEFAULT_SYNTAXES) or IMAGES.get(
        named, kind.name
    ) != kind.name:
        raise UnparsableDataset("the pixel data's media type and transfer syntax do not go together")
    return named


def _append_pixels(file: BinaryIO, pixels: Path, syntax: UID) -> None:
    """Write the Pixel Data element (PS3.5 A.4): native, or one fragment, which is one frame."""
    size = pixels.stat().st_size
    if size >= 0xFFFFFFFF:
        raise UnparsableDataset("the pixel data are too long")
    padding = b"\0" * (size % 2)
    length = (size + size % 2).to_bytes(4, "little")
    file.write(b"\xe0\x7f\x10\x00")
    if syntax.is_encapsulated:
        file.write(b"OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0" + length)
    else:
        file.write(b"OW\0\0" + length)
    with pixels.open("rb") as source:
        shutil.copyfileobj(source, file, 1 << 20)
    file.write(padding)
    if syntax.is_encapsulated:
        file.write(b"\xfe\xff\xdd\xe0\0\0\0\0")
