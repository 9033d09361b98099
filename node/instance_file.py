"""Files of instances that come: on the disk while the rest comes, and their digests made meanwhile."""

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


WRITTEN_EVERY: Final = 4 << 20
"""Bytes after which the disk begins to write them, while the rest comes."""


class GrowingFile:
    """A file that is written without a buffer: what comes is long, and is written as it comes.

    Parameters
    ----------
    folder
        Where it is made.
    prefix
        Of its name.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._handle, self.name = mkstemp(dir=folder, prefix=prefix, suffix=".dcm")
        self._is_open = True
        self._size = self._begun = 0

    def write_all(self, parts: Sequence[memoryview]) -> None:
        """Write parts, in their order.

        Raises
        ------
        OSError
            When the disk does not take them.
        """
        left = list(parts)
        while left:
            written = os.writev(self._handle, left[:MOST_PARTS])
            self._size += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left:
                left[0] = left[0][written:]
        if self._size - self._begun >= WRITTEN_EVERY:
            # Not needed, it says, of what is still to be written: Linux begins to write it, and keeps it.
            os.posix_fadvise(self._handle, self._begun, self._size - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = self._size

    def close(self) -> None:
        """Close it; again does nothing."""
        if self._is_open:
            self._is_open = False
            os.close(self._handle)


class InstanceFile(GrowingFile):
    """A file whose data set is digested while it comes, and into which pynetdicom writes as well.

    Parameters
    ----------
    folder
        Where it is made.
    head
        What stands before the data set (PS3.10 7.1).
    """

    def __init__(self, folder: Path, head: bytes) -> None:
        super().__init__(folder)
        self._digest = xxhash.xxh3_128()
        self.file = self
        """pynetdicom flushes that of a named temporary file."""
        try:
            self.write_all([memoryview(head)])
        except OSError:  # nobody else knows of it yet: a full disk must not cost a file and a handle at each try
            self.close()
            Path(self.name).unlink()
            raise

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
        self.write_all(parts)
        for part in parts:
            for at in range(0, len(part), DIGESTED):
                self._digest.update(part[at : at + DIGESTED])

    def write(self, part: bytes) -> int:
        """Write a part of the data set, as pynetdicom does."""
        self.take([memoryview(part)])
        return len(part)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""
