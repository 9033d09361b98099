"""Decoding the four views of an exam in JPEG Lossless: by this node, whose views are decoded at once, and by pydicom as it comes.

The views are those of the full-size phantom, compressed without loss by first-order prediction (PS3.5 A.4.2).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEGLosslessSV1

from ai import jpeg_lossless
from ai.allocation import keep_freed_memory
from benchmarks.values import US, Value
from node.analysis import VIEWS_AT_ONCE, usable_cores
from node.phantom import phantom_exam

Views = list[NDArray[np.uint16]]


def values(repeats: int) -> Iterator[Value]:
    """Yield seconds for an exam."""
    images = phantom_exam(7).images
    stored = [image.pixel_array for image in images]
    for image, pixels in zip(images, stored, strict=True):
        _compress(image, pixels)
    # As pydicom has it before this node is there instead.
    get_decoder(JPEGLosslessSV1).add_plugin("gdcm", ("pydicom.pixels.decoders.gdcm", "_decode_frame"))
    with ThreadPoolExecutor(min(usable_cores(), VIEWS_AT_ONCE)) as pool:

        def ours() -> Views:
            return list(pool.map(lambda image: _decode(image, jpeg_lossless.PLUGIN), images))

        def by_pydicom() -> Views:
            return [_decode(image, "gdcm") for image in images]

        ways: dict[str, Callable[[], Views]] = {US: ours, "pydicom": by_pydicom}
        yield from _timed("decoding JPEG Lossless", ways, stored, repeats)
        keep_freed_memory()  # as every worker does
        yield from _timed("in a worker: decoding JPEG Lossless", ways, stored, repeats)


def _timed(measure: str, ways: Mapping[str, Callable[[], Views]], stored: Views, repeats: int) -> Iterator[Value]:
    for repeat in range(repeats + 1):  # the first one warms up
        for name, way in ways.items():
            began = time.perf_counter()
            found = way()
            seconds = time.perf_counter() - began
            if not all(np.array_equal(*pair) for pair in zip(found, stored, strict=True)):
                raise SystemExit(f"{name}: the values are others than were compressed")
            if repeat:
                yield Value(measure, "s/exam", name, seconds)


def _compress(image: Dataset, pixels: NDArray[np.uint16]) -> None:
    frame = imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=image.BitsStored)
    image.PixelData = encapsulate([frame])
    image["PixelData"].is_undefined_length = True
    image.file_meta.TransferSyntaxUID = JPEGLosslessSV1


def _decode(image: Dataset, plugin: str) -> NDArray[np.uint16]:
    return np.asarray(pixel_array(image, decoding_plugin=plugin), np.uint16)
