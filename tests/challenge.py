"""Pictures that no reader should see without a word: each is drawn, small, and wrong in one way."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from ai.exam import View, ViewImage
from ai.pixels import view_image
from node.phantom import PhantomExam, phantom_exam
from tests.builders import L_CC, L_MLO, for_processing

Picture = NDArray[np.float32]
SIDE: Final = 256


def a_slice() -> Picture:
    """Return what a CT slice looks like: an ellipse with lungs and spine, air around it."""
    picture = np.zeros((SIDE, SIDE), np.float32)
    cv2.ellipse(picture, (128, 128), (102, 74), 0, 0, 360, (0.55,), -1)
    for x in (90, 166):
        cv2.ellipse(picture, (x, 128), (26, 38), 0, 0, 360, (0.08,), -1)
    cv2.circle(picture, (128, 180), 10, (1.0,), -1)
    return picture + 0.02 * _even_noise(1.5) * (picture > 0)


def a_chest() -> Picture:
    """Return what a chest looks like: bright all over, with two dark lungs."""
    picture = 0.75 + 0.05 * _even_noise(10)
    for x in (77, 179):
        cv2.ellipse(picture, (x, 128), (36, 84), 0, 0, 360, (0.2,), -1)
    picture[:, :12] = picture[:, -12:] = 0.05
    return cv2.GaussianBlur(picture, (0, 0), 1.5).astype(np.float32)


def a_hand() -> Picture:
    """Return what a hand looks like: a palm, five fingers with bones."""
    picture = np.zeros((SIDE, SIDE), np.float32)
    cv2.ellipse(picture, (128, 184), (44, 51), 0, 0, 360, (0.5,), -1)
    cv2.rectangle(picture, (102, 190), (154, SIDE), (0.5,), -1)
    for angle, length in ((-55, 84), (-20, 133), (-3, 133), (14, 133), (32, 133)):
        along = np.array([np.sin(np.deg2rad(angle)), -np.cos(np.deg2rad(angle))])
        for reach, grey, width in ((1.0, 0.5, 17), (0.95, 0.85, 8)):
            x, y = (np.array([128, 184]) + reach * length * along).astype(int)
            cv2.line(picture, (128, 184), (int(x), int(y)), (grey,), width)
    return cv2.GaussianBlur(picture, (0, 0), 1).astype(np.float32)


def noise() -> Picture:
    """Return white noise."""
    return np.random.default_rng(1).random((SIDE, SIDE)).astype(np.float32)


def a_page(*, black: bool = False) -> Picture:
    """Return a page of text."""
    page = np.full((2 * SIDE, 2 * SIDE), 255, np.uint8)
    for line in range(20):
        cv2.putText(
            page, f"Report, line {line} of twenty", (20, 30 + 24 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0,), 2
        )
    picture = page.astype(np.float32) / np.float32(255)
    return 1 - picture if black else picture


@cache
def _exam() -> PhantomExam:
    return phantom_exam(1, small=True)


def a_phantom(view: View = L_CC) -> Dataset:
    """Return a mammogram that is sound in every way."""
    return deepcopy(_exam().image(view))


def with_implant(picture: Picture) -> Picture:
    """Return a left breast with a large, bright, even area behind the nipple."""
    rows, columns = picture.shape
    implant = np.zeros_like(picture)
    cv2.ellipse(implant, (columns * 18 // 100, rows // 2), (columns // 4, rows * 22 // 100), 0, 0, 360, (1.0,), -1)
    soft = cv2.GaussianBlur(implant, (0, 0), 3)
    return np.asarray(picture * (1 - soft) + 0.97 * soft, np.float32)


def inner_quarter(picture: Picture) -> Picture:
    """Return the upper half beside the chest wall of a left breast."""
    return picture[: picture.shape[0] // 2, : picture.shape[1] // 2]


CHANGES: Final[Mapping[str, Callable[[Picture], Picture]]] = {
    "inverted": lambda picture: 1 - picture,
    "turned by 90 degrees": np.rot90,
    "turned by 180 degrees": lambda picture: np.rot90(picture, 2),
    "turned by 270 degrees": lambda picture: np.rot90(picture, 3),
    "mirrored": lambda picture: picture[:, ::-1],
    "upper quarter": inner_quarter,
    "implant": with_implant,
    "few grey levels": lambda picture: np.round(picture * 12).astype(np.float32) / np.float32(12),
    "overexposed": lambda picture: (3 * picture).clip(0, 1),
}
"""What may be wrong with a mammogram's pixels."""

FOREIGN: Final[Mapping[str, Callable[[], Picture]]] = {
    "CT slice": a_slice,
    "chest": a_chest,
    "hand": a_hand,
    "noise": noise,
    "page of text": a_page,
    "black page of text": lambda: a_page(black=True),
}
"""What is no mammogram."""


def headers() -> dict[str, Dataset]:
    """Return what its header alone must refuse, by what is wrong with it."""
    return {"For Processing twin": for_processing(a_phantom())}


def challenges() -> dict[str, ViewImage]:
    """Return every picture whose pixels must tell, by what is wrong with it."""
    sound, oblique = view_image(a_phantom(), L_CC), view_image(a_phantom(L_MLO), L_MLO)
    changed = {
        name: replace(sound, pixels=np.ascontiguousarray(change(sound.pixels), np.float32))
        for name, change in CHANGES.items()
    }
    foreign = {name: ViewImage(name, L_CC, np.asarray(draw(), np.float32)) for name, draw in FOREIGN.items()}
    swapped = {"MLO called CC": replace(oblique, view=L_CC), "CC called MLO": replace(sound, view=L_MLO)}
    return {**changed, **foreign, **swapped}


def _even_noise(scale: float) -> Picture:
    noisy = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(SIDE, SIDE)).astype(np.float32), (0, 0), scale)
    return np.asarray(noisy / noisy.std(), np.float32)
