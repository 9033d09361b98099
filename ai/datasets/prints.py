"""Pictures known again by a perceptual hash: copies that were scaled, mirrored, turned, stored anew or given other contrast.

A picture is reduced to a thumbnail. The signs of the thumbnail's lowest cosine frequencies are its hash: they say where it
is light and dark, and hardly change with the contrast; mirroring and turning negate every other one. Hashes that are near
are only a suspicion, as mammograms resemble each other. It is decided by the thumbnails, after the levels of one were
exchanged for those of the other in their order, which undoes any rising change of contrast.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE: Final = 64
"""Rows and columns of a thumbnail."""
FREQUENCIES: Final = 16
"""Cosine frequencies down and across whose signs are the hash; that of the mean says nothing."""
DISTANCE: Final = 56
"""Signs that differ between two pictures that are compared further, of 255."""
DIFFERENCE: Final = 4.0
LARGEST: Final = 48.0
"""Mean and largest absolute difference of the thumbnails of one picture, of 255 levels, at most.

Measured on CBIS-DDSM and CDD-CESM (``benchmarks/copies.py``): no pair of different women among 1.6 million is within
these limits, the nearest by hash differ by 5.4 and 74; of copies with gamma 0.75 or 1.3 all are, with gamma 0.6 or 1.6 97 %.
"""

Thumbnail = NDArray[np.uint8]
Words = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Print:
    """What a picture is known by.

    Attributes
    ----------
    thumbnail
        Shape (``SIDE``, ``SIDE``), stretched to 0 to 255.
    words
        The hash, shape (4,): 255 signs and a bit that is never set.
    """

    thumbnail: Thumbnail
    words: Words


@dataclass(frozen=True)
class Copy:
    """Two places whose pictures are one.

    Attributes
    ----------
    first, second
        The lower and the higher place.
    turned
        How the second differs: ``as it is``, ``mirrored``, ``upside down`` or ``half turned``.
    """

    first: int
    second: int
    turned: str


def print_of(pixels: NDArray[np.float32]) -> Print:
    """Return the print of a picture, whatever its size and aspect."""
    small = cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small -= small.min()
    thumbnail = np.round(small * (255 / max(float(small.max()), 1e-6))).astype(np.uint8)
    spectrum = cv2.dct(thumbnail.astype(np.float32))[:FREQUENCIES, :FREQUENCIES]
    return Print(thumbnail, _words(np.asarray(spectrum > 0)))


def copies(prints: Sequence[Print], groups: Sequence[str]) -> Iterator[Copy]:
    """Yield the pictures that are one and stand in different groups, each pair once.

    Parameters
    ----------
    groups
        Of each picture, such as its patient: pictures of one group are not compared.
    """
    if not prints:
        return
    words, group = np.stack([each.words for each in prints]), np.unique(groups, return_inverse=True)[1]
    for place, one in enumerate(prints[:-1]):
        others = place + 1 + np.flatnonzero(group[place + 1 :] != group[place])
        for turned, mask in TURNED.items():
            apart = np.bitwise_count(words[others] ^ (one.words ^ mask)).sum(1)
            same = [n for n in others[apart <= DISTANCE] if alike(_turn(one.thumbnail, turned), prints[n].thumbnail)]
            yield from (Copy(place, int(n), turned) for n in same)
            others = np.setdiff1d(others, same)


def alike(one: Thumbnail, other: Thumbnail) -> bool:
    """Tell whether two thumbnails are of one picture, whatever rising change of contrast lies between them."""
    return all(mean <= DIFFERENCE and largest <= LARGEST for mean, largest in (_apart(one, other), _apart(other, one)))


def _apart(one: Thumbnail, other: Thumbnail) -> tuple[float, float]:
    """Return the mean and largest difference once the levels of the first are exchanged for those of the second."""
    values = one.ravel()
    ranked = np.empty(values.size, np.float32)
    ranked[np.argsort(values, kind="stable")] = np.sort(other.ravel())
    count = np.bincount(values, minlength=256)
    level = np.bincount(values, ranked, minlength=256) / np.maximum(count, 1)
    difference = np.abs(level[one] - other)
    return float(difference.mean()), float(difference.max())


def _words(signs: NDArray[np.bool_]) -> Words:
    bits = signs.ravel().copy()
    bits[0] = False
    return np.packbits(bits).view(np.uint64)


def _turn(thumbnail: Thumbnail, turned: str) -> Thumbnail:
    down, across = turned in ("upside down", "half turned"), turned in ("mirrored", "half turned")
    return thumbnail[:: -1 if down else 1, :: -1 if across else 1]


_ODD: Final = np.indices((FREQUENCIES, FREQUENCIES)) % 2 == 1
TURNED: Final = {
    "as it is": _words(np.zeros_like(_ODD[0])),
    "mirrored": _words(_ODD[1]),
    "upside down": _words(_ODD[0]),
    "half turned": _words(_ODD[0] ^ _ODD[1]),
}
"""The signs that change, by how a picture is turned."""
