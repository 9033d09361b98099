"""Digests of data sets: whether what comes under a known UID is what came before (rule R6).

XXH3 of 128 bits takes a tenth of SHA-256's time, which was more than the disk's. Nobody gains by a collision: the copy that is
in force stays, and the other is not kept.
"""

import hashlib
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from node.records import dataset_offset, read_header

PREFIX = "xxh128:"
"""Of digests by XXH3; without it they are by SHA-256, as older versions made them."""


def digest(path: Path, offset: int) -> str:
    """Return the digest of a file from there on."""
    return PREFIX + _hexadecimal(path, offset, xxhash.xxh3_128)


def is_among(kept: Collection[str], path: Path, own: str) -> bool:
    """Tell whether a file, whose digest is known, has one of some digests, those of older versions included."""
    if own in kept:
        return True
    is_old = any(not each.startswith(PREFIX) for each in kept)
    return is_old and _hexadecimal(path, dataset_offset(read_header(path)), partial(hashlib.new, "sha256")) in kept


def _hexadecimal(path: Path, offset: int, algorithm: Callable[[], Any]) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return str(hashlib.file_digest(file, algorithm).hexdigest())
