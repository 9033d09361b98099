"""Frames of an instance as they are stored, without decoding: native ones are ranges of the file (PS3.5 A.4, 8.2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.encaps import get_frame
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from node.errors import NotRenderable
from node.headers import number
from node.records import text
from node.web.multipart import file_range

PIXEL_DATA = Tag(0x7FE00010)


def raw_element(dataset: Dataset, tag: BaseTag) -> RawDataElement | None:
    """Return an element as it stands in the file, or None when there is none or it was looked at before."""
    found: Any = dataset.get_item(tag, keep_deferred=True) if tag in dataset else None
    return found if isinstance(found, RawDataElement) else None


@dataclass(frozen=True)
class Frames:
    """The frames of a file.

    Attributes
    ----------
    path
        The file.
    syntax
        Its transfer syntax.
    number
        How many there are.
    offset
        Where the value of Pixel Data begins.
    size
        Bytes of a native frame; None when frames do not begin at whole bytes.
    is_luminance
        Whether the header says that samples are luminance and chrominance (PS3.3 C.7.6.3.1.2), which decoders make RGB of.
    """

    path: Path
    syntax: UID
    number: int
    offset: int
    size: int | None
    is_luminance: bool = False

    @classmethod
    def of(cls, path: Path, dataset: Dataset) -> "Frames":
        """Return the frames of a file that was opened by `node.web.dicom_json.open_dataset`.

        Raises
        ------
        NotRenderable
            When it has none.
        """
        raw = raw_element(dataset, PIXEL_DATA)
        if raw is None:
            raise NotRenderable
        syntax = UID(text(dataset.file_meta, "TransferSyntaxUID"))
        if not syntax.is_transfer_syntax:
            raise NotRenderable("its transfer syntax is not known")
        frames = max(int(number(dataset, "NumberOfFrames")), 1)
        bits = [int(number(dataset, each)) for each in ("Rows", "Columns", "BitsAllocated")]
        size = bits[0] * bits[1] * bits[2] * max(int(number(dataset, "SamplesPerPixel")), 1)
        if size <= 0:
            raise NotRenderable
        if not syntax.is_encapsulated and -(-size * frames // 8) > raw.length:
            raise NotRenderable("the pixel data are cut")
        colours = text(dataset, "PhotometricInterpretation")
        whole = size // 8 if size % 8 == 0 else None
        return cls(path, syntax, frames, raw.value_tell, whole, colours.startswith("YBR"))

    def stored(self, frame: int) -> Iterator[bytes]:
        """Yield the bytes of a frame, counted from 1.

        Raises
        ------
        NotRenderable
            When the file does not have it.
        """
        if not self.syntax.is_encapsulated:
            if self.size is None:
                raise NotRenderable("frames do not begin at whole bytes")
            yield from file_range(self.path, self.offset + (frame - 1) * self.size, self.size)
            return
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = get_frame(file, frame - 1, number_of_frames=self.number)
        except Exception as error:  # pydicom raises whatever a garbled file provokes
            raise NotRenderable(type(error).__name__) from error
        yield data
