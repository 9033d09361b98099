"""Files that are whole or not there, whenever the power goes out, and folders that one run has to itself."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ai.errors import RunInProgress, Unwritable


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the name ``path`` once it is written and on disk; a failure leaves what was there.

    Raises
    ------
    Unwritable
        When the disk is full, or the folder is not there or not ours; the file is named.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save raises a RuntimeError over the disk's
        fault = error if isinstance(error, OSError) else error.__context__
        if not isinstance(fault, OSError):
            raise
        raise Unwritable(f"{path}: {fault.strerror or fault}") from error
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a folder to one run; the lock goes with the process, however it ends.

    Raises
    ------
    RunInProgress
        When another run has it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunInProgress(f"{folder}") from error
        yield
    finally:
        os.close(descriptor)
