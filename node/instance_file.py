"""The file of an instance that comes over an association, and the digest of its data set, made while it comes."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkstemp
from typing import Final

import xxhash

from node.digests import PREFIX

MOST_PARTS: Final = 512
"""Parts that are written at once; Linux takes 1,024 (IOV_MAX)."""
DIGESTED: Final = 1 << 16
"""Bytes that are digested at once: for more, xxhash lets other threads in, and waits for them."""


class InstanceFile:
    """A file that is written without a buffer: what comes is long, and is written as it comes.

    Parameters
    ----------
    folder
        Where it is made.
    head
        What stands before the data set (PS3.10 7.1).
    """

    def __init__(self, folder: Path, head: bytes) -> None:
        self._handle, self.name = mkstemp(dir=folder, suffix=".dcm")
        self._is_open = True
        self._digest = xxhash.xxh3_128()
        self.file = self
        """pynetdicom flushes that of a named temporary file."""
        self._write([memoryview(head)])

    @property
    def digest(self) -> str:
        """The digest of what has come of the data set."""
        return PREFIX + self._digest.hexdigest()

    def take(self, parts: Sequence[memoryview]) -> None:
        """Write parts of the data set, in their order.

        Raises
        ------
        OSError
            When the disk does not take them.
        """
        self._write(parts)
        for part in parts:
            for at in range(0, len(part), DIGESTED):
                self._digest.update(part[at : at + DIGESTED])

    def write(self, part: bytes) -> int:
        """Write a part of the data set, as pynetdicom does."""
        self.take([memoryview(part)])
        return len(part)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def fileno(self) -> int:
        """Return the number by which the system knows it."""
        return self._handle

    def close(self) -> None:
        """Close it; again does nothing."""
        if self._is_open:
            self._is_open = False
            os.close(self._handle)

    def _write(self, parts: Sequence[memoryview]) -> None:
        left = list(parts)
        while left:
            written = os.writev(self._handle, left[:MOST_PARTS])
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left:
                left[0] = left[0][written:]
