"""A process that decodes pixels for the HTTP door, one task after the other, and may crash or hang without harm.

It reads a task as one line of JSON and answers with a line of JSON and the bytes that it announces. Start it with
``python -P -m node.web.decoder``; `node.web.decoding` does.
"""

import json
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian

from ai.pixels import presentation_values, require_size

MEMORY: Final = 6 << 30
"""Bytes of address space: the frames of a long tomosynthesis fit in, a header that promises more does not."""


def main() -> None:
    """Do what is asked on stdin until it ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders of C and C++ print where they like
    for line in sys.stdin.buffer:
        answer(json.loads(line), answers)


def answer(task: Mapping[str, Any], answers: BinaryIO) -> None:
    """Do one task."""
    try:
        data = TASKS[task["do"]](Path(task["path"]), task)
    except Exception as error:  # noqa: BLE001 - the decoders of pydicom's plugins raise whatever they like
        said: dict[str, Any] = {"error": type(error).__name__}
        data = b""
    else:
        said = {"size": len(data)}
    answers.write(json.dumps(said).encode() + b"\n" + data)
    answers.flush()


def frame(path: Path, task: Mapping[str, Any]) -> bytes:
    """Return the stored values of a frame, native and little endian (PS3.5 A.2)."""
    header = dcmread(path, specific_tags=["Rows", "Columns", "BitsAllocated"], stop_before_pixels=True)
    require_size(header)
    values = pixel_array(path, index=task["number"] - 1)
    if values.dtype == np.bool_ or header.BitsAllocated == 1:
        return np.packbits(values.astype(bool).ravel(), bitorder="little").tobytes()
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def native(path: Path, task: Mapping[str, Any]) -> bytes:
    """Write the instance in Explicit VR Little Endian to another file."""
    dataset = dcmread(path)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress(generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(task["target"], implicit_vr=False, little_endian=True, enforce_file_format=True)
    return b""


def picture(path: Path, task: Mapping[str, Any]) -> bytes:
    """Return a frame as it is meant to be seen, as JPEG or PNG (PS3.18 8.3.5)."""
    header = dcmread(path, stop_before_pixels=True)
    require_size(header)
    pixels = seen(header, pixel_array(path, index=task["number"] - 1), task.get("window"))
    if region := task.get("region"):
        left, top, width, height = region
        pixels = pixels[top : top + height, left : left + width]
    if size := task.get("size"):
        scale = min(size[0] / pixels.shape[1], size[1] / pixels.shape[0])
        if scale < 1 or task.get("enlarge"):
            fitted = (max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1))
            pixels = cv2.resize(pixels, fitted, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)  # type: ignore[assignment]
    parameters = [cv2.IMWRITE_JPEG_QUALITY, int(task["quality"])] if task["format"] == ".jpg" else []
    done, encoded = cv2.imencode(task["format"], pixels[..., ::-1] if pixels.ndim == 3 else pixels, parameters)
    if not done:
        raise ValueError(task["format"])
    return encoded.tobytes()


def seen(header: Dataset, values: NDArray[Any], window: tuple[float, float, str] | None) -> NDArray[np.uint8]:
    """Return stored values as greys or colours of 8 bits: shape (rows, columns) or (rows, columns, 3)."""
    if values.ndim == 3:
        return (values >> 8 if values.dtype.itemsize > 1 else values).astype(np.uint8)
    if header.get("BitsAllocated") == 1:
        values, header.BitsAllocated, header.BitsStored, header.HighBit = values.astype(np.uint8), 8, 8, 7
    if window:
        header.pop("VOILUTSequence", None)
        header.WindowCenter, header.WindowWidth, header.VOILUTFunction = window
    if "NumberOfFrames" in header:
        del header.NumberOfFrames
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.BitsAllocated = values.dtype.itemsize * 8
    header.PixelData = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    header["PixelData"].VR = "OW"
    return np.rint(presentation_values(header) * 255).astype(np.uint8)


TASKS: Final = {"frame": frame, "native": native, "picture": picture}

if __name__ == "__main__":
    main()
