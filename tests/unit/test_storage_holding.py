"""A folder, and a database, is held by one `serve` at a time, and let go with its process."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from storage import holding
from storage.database import newest_revision, open_database
from storage.errors import DatabaseUnavailable, StoreInUse
from storage.holding import NAME, Seat, held
from tests.databases import PostgreSQLDatabases
from tests.peers import eventually


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "absent" / "store"
    with held(folder) as fault:
        assert fault == ""
        assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(StoreInUse, match=rf"process {os.getpid()} of .*, {folder}"), held(folder):
            pass
    with held(folder) as fault:
        assert fault == ""


def test_a_sqlite_file_is_held_by_one_at_a_time_whatever_leads_to_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (tmp_path / "link").symlink_to(first, target_is_directory=True)
    url = f"sqlite:///{first / 'mammonode.sqlite'}"
    with held(first, url) as fault:
        assert fault == ""
        for same in (url, f"sqlite:///{tmp_path}/link/mammonode.sqlite"):
            with (
                pytest.raises(StoreInUse, match=rf"process {os.getpid()} of .*, {first}/mammonode"),
                held(second, same),
            ):
                pass
        with held(second, f"sqlite:///{second / 'mammonode.sqlite'}"):
            pass
        with held(second, "postgresql://node@db/mammonode"):
            pass
    with held(second, url):
        pass


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


def test_whoever_only_looks_who_has_a_lock_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `served_by` does: a command or a worker that is started in the same moment."""
    handle = os.open(tmp_path / NAME, os.O_RDONLY | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_SH)
    monkeypatch.setattr(holding, "sleep", lambda _: os.close(handle))
    with held(tmp_path) as fault:
        assert fault == ""


def test_a_disk_without_room_does_not_let_a_lock_say_what_another_has_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system gives what a file has given up to nobody at once (ext4: once its journal has it), but lets be written over."""
    write = os.pwrite

    def full(handle: int, data: bytes, offset: int) -> int:
        if os.fstat(handle).st_size == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data, offset)

    (tmp_path / NAME).write_text("process 1234567890 of the former host with a long name\n0001\n")
    monkeypatch.setattr(os, "pwrite", full)
    with held(tmp_path):
        assert (
            tmp_path / NAME
        ).read_text() == f"process {os.getpid()} of {socket.gethostname()}\n{newest_revision()}\n"


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


def test_one_serve_at_a_time_has_the_seat_at_a_database_and_the_other_is_told_who(
    postgresql_databases: PostgreSQLDatabases,
) -> None:
    engine, elsewhere = (open_database(postgresql_databases.empty()) for _ in range(2))
    first, second, third = Seat(engine), Seat(engine), Seat(elsewhere)
    assert [seat.holder() for seat in (first, third, first)] == ["", "", ""]
    assert second.holder() == f"mammonode serve, process {os.getpid()} of {socket.gethostname()}"
    first.close()
    assert eventually(lambda: second.holder() == "")
    assert first.holder()
    with engine.connect() as connection:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON database = pg_database.oid"
        connection.execute(text(f"{ended} WHERE locktype = 'advisory' AND datname = current_database()"))
    with pytest.raises(DatabaseUnavailable):
        second.holder()
    assert eventually(lambda: second.holder() == "")
    for seat in (first, second, third):
        seat.close()
    for each in (engine, elsewhere):
        each.dispose()


def test_the_seat_at_a_database_of_sqlite_is_its_folders(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'mammonode.sqlite'}")
    assert [Seat(engine).holder() for _ in range(2)] == ["", ""]
    engine.dispose()
