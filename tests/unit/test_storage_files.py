"""The instance store on a disk."""

import errno
import os
import re
import shutil
import tempfile
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.policy import Watermark
from storage.errors import AlreadyStored, DiskLow, MalformedUID
from storage.files import FolderStore, InstanceReference, InstanceStore
from tests.records import a_file, a_reference

PATH: Final = "instances/1.2.3/1.2.3.1/1.2.3.1.1.dcm"
"""Of `a_reference`."""


@pytest.fixture
def store(tmp_path: Path) -> InstanceStore:
    store = FolderStore(tmp_path / "store")
    store.prepare()
    return store


def files_in(store: InstanceStore) -> dict[str, bytes]:
    return {str(path.relative_to(store.root)): path.read_bytes() for path in store.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("uid", ["1", "1.2.840.10008.1.2", "1.02.3", "2.25." + "9" * 39, "1" * 64])
def test_a_uid_of_digits_and_single_dots_passes(uid: str) -> None:
    assert InstanceReference(uid, uid, uid).instance_uid == uid


@pytest.mark.parametrize(
    "uid", ["", ".", "..", "1..2", ".1", "1.", "1/2", "../1", "1\n", "1 ", "1\0", "१.२", "a", "1" * 65, "1.2.3\\4"]
)
def test_a_malformed_uid_never_becomes_a_reference(uid: str) -> None:
    for position in range(3):
        uids = ["1.2", "1.2", "1.2"]
        uids[position] = uid
        with pytest.raises(MalformedUID):
            InstanceReference(*uids)


@given(st.text(alphabet="0123456789./\\ \0\na", max_size=70))
def test_no_text_becomes_a_path_outside_its_folder(uid: str) -> None:
    try:
        reference = InstanceReference("1.2", "1.3", uid)
    except MalformedUID:
        return
    path = FolderStore(Path("/store")).path_of(reference, Path())
    assert Path(path).parts == ("instances", "1.2", "1.3", f"{uid}.dcm")


def test_an_accepted_file_is_moved_under_its_study_and_series(store: InstanceStore) -> None:
    temp = a_file(store.incoming)
    assert store.path_of(a_reference(), temp) == PATH
    store.accept(temp, PATH)
    assert files_in(store) == {PATH: b"DICM"}


def test_accepting_never_overwrites(store: InstanceStore) -> None:
    store.accept(a_file(store.incoming, b"first"), PATH)
    second = a_file(store.incoming, b"second")
    with pytest.raises(AlreadyStored):
        store.accept(second, PATH)
    assert files_in(store) == {PATH: b"first", "incoming/received": b"second"}


def test_adopting_replaces_what_a_crash_left(store: InstanceStore) -> None:
    store.accept(a_file(store.incoming, b"orphan"), PATH)
    store.adopt(a_file(store.incoming, b"again"), PATH)
    assert files_in(store) == {PATH: b"again"}


def test_copies_that_contradict_are_all_kept_under_names_that_are_not_used_again(store: InstanceStore) -> None:
    contents = (b"one", b"two", b"three")
    paths = []
    for content in contents:
        paths.append(store.set_aside(a_file(store.incoming, content), a_reference()))
        assert re.fullmatch(r"conflicts/1\.2\.3/1\.2\.3\.1/1\.2\.3\.1\.1/[0-9a-f]{32}\.dcm", paths[-1])
        assert store.resolve(paths[-1]).read_bytes() == content
        store.remove(paths[-1])
    assert len(set(paths)) == len(contents)


def test_file_and_all_its_folders_are_flushed_before_accept_returns(
    store: InstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        flushed.append(os.path.relpath(Path(f"/proc/self/fd/{handle}").readlink(), store.root))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    temp = a_file(store.incoming)
    store.flush(temp)
    store.accept(temp, PATH)
    # The bytes first: a name must not outlive a power cut that its bytes do not.
    assert flushed == ["incoming/received", "instances", "instances/1.2.3", "instances/1.2.3/1.2.3.1"]


def test_a_folder_that_is_on_the_disk_is_flushed_again_only_for_what_is_new_in_it(
    store: InstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.accept(a_file(store.incoming), PATH)
    flushed: list[Path] = []
    monkeypatch.setattr("storage.files._flush", flushed.append)
    store.accept(a_file(store.incoming), PATH.replace("1.1.dcm", "1.2.dcm"))
    assert flushed == [store.root / "instances/1.2.3/1.2.3.1"]
    shutil.rmtree(store.root / "instances/1.2.3")  # as an operator may
    store.accept(a_file(store.incoming), PATH)
    assert flushed[1:] == [store.root / each for each in ("instances", "instances/1.2.3", "instances/1.2.3/1.2.3.1")]


def test_a_result_written_twice_is_one_file(store: InstanceStore) -> None:
    paths = {store.write_result(a_reference("2.25.1"), b"report") for _ in range(2)}
    assert files_in(store) == {paths.pop(): b"report"}
    assert not paths


def test_other_bytes_under_one_uid_overwrite_nothing(store: InstanceStore) -> None:
    first = store.write_result(a_reference("2.25.1"), b"report")
    second = store.write_result(a_reference("2.25.1"), b"other")
    assert files_in(store) == {first: b"report", second: b"other"}


def test_a_result_that_cannot_be_written_leaves_nothing(store: InstanceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write_result(a_reference("2.25.1"), b"report")
    assert files_in(store) == {}


def test_the_sweep_removes_only_what_nobody_writes_any_more(store: InstanceStore) -> None:
    old, new = (a_file(store.incoming, name=name) for name in ("old", "new"))
    an_hour_ago = old.stat().st_mtime - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    assert store.sweep(timedelta(minutes=30)) == 1
    assert set(files_in(store)) == {"incoming/new"}
    assert store.sweep(timedelta(0)) == 1
    assert not new.exists()


def test_the_sweep_removes_the_copy_of_the_database_that_a_killed_restore_has_left(store: InstanceStore) -> None:
    scratch = Path(tempfile.mkdtemp(dir=store.incoming))
    (scratch / "backup.sqlite").write_bytes(b"patients")
    assert store.sweep(timedelta(minutes=30)) == 0
    assert store.sweep(timedelta(0)) == 1
    assert not scratch.exists()


def test_the_sweep_at_the_start_spares_what_a_worker_is_writing(store: InstanceStore) -> None:
    result = a_file(store.root / "outgoing")
    assert store.sweep(timedelta(0)) == 0
    two_hours_ago = result.stat().st_mtime - 7200
    os.utime(result, (two_hours_ago, two_hours_ago))
    assert store.sweep(timedelta(0)) == 1


def test_the_sweep_touches_no_stored_instance(store: InstanceStore) -> None:
    store.accept(a_file(store.incoming), PATH)
    store.sweep(timedelta(0))
    assert set(files_in(store)) == {PATH}


def test_only_the_owner_may_look_inside(store: InstanceStore) -> None:
    store.accept(a_file(store.incoming), PATH)
    folders = [store.root, *(path for path in store.root.rglob("*") if path.is_dir())]
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


def test_a_disk_with_room_passes_and_a_full_one_says_how_full(store: InstanceStore) -> None:
    store.require_space(Watermark(max_used_fraction=1.0, min_free_bytes=0))
    with pytest.raises(DiskLow, match="GB free"):
        store.require_space(Watermark(max_used_fraction=1.0, min_free_bytes=store.usage().total + 1))
    with pytest.raises(DiskLow, match="% used"):
        store.require_space(Watermark(max_used_fraction=0.0, min_free_bytes=0))


@pytest.mark.parametrize(("number", "starts"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, False)])
def test_a_full_disk_keeps_nobody_from_starting_and_a_read_only_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, starts: bool
) -> None:
    def write(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", write)
    with nullcontext() if starts else pytest.raises(OSError, match=os.strerror(number)):
        FolderStore(tmp_path).prepare()
