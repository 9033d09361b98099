"""Pictures of what was read, for the pages: made by the worker, who has decoded the images anyway; pages serve files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.pixels import pixel_aspect
from node.analysis import Analysis
from node.results.answer import Answer, ImageAnswer
from node.results.pages import turned
from storage.files import InstanceStore
from storage.previews import Preview, PreviewKind

LONGEST: Final = 2048
"""Rows or columns of a picture: as many as a large screen shows, and enough to zoom to the size of a microcalcification."""
QUALITY: Final = 88
"""JPEG; measured on mammograms: a picture of 2048 rows takes 0.2 to 0.4 MB, and no edge shows a block."""
OPACITY: Final = 0.85
"""Of the map where it is 1."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture as a file, not yet written."""

    preview: Preview
    data: bytes


def draw_previews(job_id: int, answer: Answer, analysis: Analysis) -> Iterator[Drawn]:
    """Yield the pictures of the images that were read.

    Parameters
    ----------
    job_id
        Whose pictures they are.
    answer
        Its images tell how they are hung.
    analysis
        With pictures.
    """
    for image in answer.images:
        pixels, found = analysis.pictures.get(image.uid), answer.findings_of(image)
        if pixels is None or image.view is None:
            continue
        yield _drawn(
            job_id, answer, image, PreviewKind.VIEW, _jpeg(_hung(image, _small(pixels, pixel_aspect(image.header))))
        )
        if found is None:
            continue
        if found.probability is not None:
            yield _drawn(job_id, answer, image, PreviewKind.MAP, _heat(_hung(image, found.probability)))
        if found.prepared is not None:
            yield _drawn(job_id, answer, image, PreviewKind.PREPARED, _jpeg(_small(found.prepared)), hung=False)


def write_previews(store: InstanceStore, drawn: Iterable[Drawn]) -> int:
    """Write pictures that are indexed, and return how many."""
    count = 0
    for each in drawn:
        store.write_preview(each.preview.path, each.data)
        count += 1
    return count


def _drawn(
    job_id: int, answer: Answer, image: ImageAnswer, kind: PreviewKind, data: tuple[bytes, str], *, hung: bool = True
) -> Drawn:
    encoded, suffix = data
    path = f"previews/{answer.exam}/{job_id}/{image.uid}.{kind}.{suffix}"
    turns = turned(image, image.view) if hung and image.view else {"sideways": False, "upright": False}
    return Drawn(Preview(job_id, image.uid, kind, path, **turns), encoded)


def _hung(image: ImageAnswer, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    turns = turned(image, image.view) if image.view else {"sideways": False, "upright": False}
    return pixels[:: -1 if turns["upright"] else 1, :: -1 if turns["sideways"] else 1]


def _small(pixels: NDArray[np.uint8], aspect: float = 1.0) -> NDArray[np.uint8]:
    """Return a picture with square pixels, no longer than ``LONGEST``; ``aspect`` is height over width of a pixel."""
    rows, columns = pixels.shape[0] * max(aspect, 1), pixels.shape[1] / min(aspect, 1)
    factor = min(LONGEST / max(rows, columns), 1)
    size = max(round(rows * factor), 1), max(round(columns * factor), 1)
    if size == pixels.shape:
        return pixels
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(pixels: NDArray[np.generic]) -> tuple[bytes, str]:
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes(), "jpg"


def _heat(values: NDArray[np.generic]) -> tuple[bytes, str]:
    """Return a map in colours, transparent where it is 0."""
    clipped = np.ascontiguousarray(values, np.float32).clip(0, 1)
    coloured = cv2.applyColorMap(np.round(255 * clipped).astype(np.uint8), cv2.COLORMAP_INFERNO)
    opacity = np.round(255 * OPACITY * np.sqrt(clipped)).astype(np.uint8)
    _, encoded = cv2.imencode(".png", np.dstack([coloured, opacity]))
    return encoded.tobytes(), "png"
