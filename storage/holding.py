"""One `serve` to a folder: who has begun holds it for as long as its process lives, however that ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from storage.errors import StoreInUse

NAME: Final = "serve.lock"
"""In the store's folder; its content only says who holds it, and whether anybody does is the kernel's knowledge."""


@contextmanager
def held(folder: Path) -> Iterator[str]:
    """Hold a store's folder, which is made when it is absent; yields why it cannot be held, or ''.

    A file system that knows no locks (flock(2); NFS before version 4) keeps nobody from starting.

    Raises
    ------
    StoreInUse
        When somebody holds it.
    """
    handle = None
    fault = ""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sign(handle)
    except BlockingIOError:
        holder = _signature(handle)
        _close(handle)
        raise StoreInUse(f"{holder}, {folder.absolute()}") from None
    except OSError as error:
        fault = str(error)
    try:
        yield fault
    finally:
        _close(handle)


def _sign(handle: int) -> None:
    with suppress(OSError):  # a full disk
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} of {socket.gethostname()}".encode(), 0)


def _signature(handle: int | None) -> str:
    return os.pread(handle, 300, 0).decode(errors="replace") if handle is not None else ""


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
