"""A folder is held by one `serve` at a time, and let go with its process."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.errors import StoreInUse
from storage.holding import NAME, held


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "absent" / "store"
    with held(folder) as fault:
        assert fault == ""
        assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(StoreInUse, match=rf"process {os.getpid()} of .*, {folder}"), held(folder):
            pass
    with held(folder) as fault:
        assert fault == ""


def test_a_killed_process_holds_nothing_and_neither_does_what_it_has_started(tmp_path: Path) -> None:
    program = f"""
import subprocess, sys
from pathlib import Path
from storage.holding import held
with held(Path({str(tmp_path)!r})):
    child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    child.wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        try:
            with pytest.raises(StoreInUse, match=f"process {process.pid} of"), held(tmp_path):
                pass
            process.kill()
            process.wait()
            with held(tmp_path) as fault:
                assert fault == ""
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with held(tmp_path) as fault, held(tmp_path):
        assert os.strerror(number) in fault


def test_a_folder_that_cannot_be_made_is_left_to_whoever_prepares_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with held(tmp_path / "file" / "store") as fault:
        assert fault


def test_what_holds_lies_beside_the_areas(tmp_path: Path) -> None:
    from storage.files import FolderStore

    store = FolderStore(tmp_path)
    store.prepare()
    with held(tmp_path):
        assert (tmp_path / NAME).is_file()
        assert not any(list(store.listed(area)) for area in store.areas)
