"""Programs of others that the tests talk to."""

import os
import shutil
import sys
from pathlib import Path

import pytest

BESIDE_PYTHON = Path(sys.executable).parent


def require_program(name: str, *, folder: Path | None = None) -> str:
    """Return the path of a peer's program; skip the test when it is missing.

    Where MAMMONODE_REQUIRE_PEERS is 1 (CI), a missing peer is a failure.

    Parameters
    ----------
    name
        Program name.
    folder
        Where alone to look. By default beside the Python that runs (wheels bring dciodvfy and DCMQI), then on PATH.
    """
    search = str(folder) if folder else os.pathsep.join([str(BESIDE_PYTHON), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=search)
    if found:
        return found
    if os.environ.get("MAMMONODE_REQUIRE_PEERS") == "1":
        pytest.fail(f"{name} is missing, and MAMMONODE_REQUIRE_PEERS=1 asks for it")
    pytest.skip(f"{name} is not installed")


def require_dcmtk(name: str) -> str:
    """Return the path of a DCMTK program, as `require_program`, never pynetdicom's namesake beside Python."""
    others = [
        Path(part) for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(part) != BESIDE_PYTHON
    ]
    for folder in others:
        if shutil.which(name, path=str(folder)):
            return require_program(name, folder=folder)
    return require_program(name, folder=Path("/usr/bin"))
