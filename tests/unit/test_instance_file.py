"""The file of an instance that comes: whole, whatever the pieces, and its digest."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.digests import digest
from node.instance_file import InstanceFile

HEAD = bytes(128) + b"DICM"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.binary(max_size=70_000), max_size=4), max_size=4),
    st.lists(st.integers(1, 50_000), min_size=1, max_size=5),
)
def test_what_comes_is_in_it_though_the_system_writes_less_than_it_is_given(
    tmp_path: Path, calls: list[list[bytes]], takes: list[int]
) -> None:
    writev, limits = os.writev, [*takes]

    def less(handle: int, parts: list[memoryview]) -> int:
        limits.append(limits.pop(0))
        return writev(handle, [b"".join(parts)[: limits[-1]]])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "writev", less)
        file = InstanceFile(tmp_path, HEAD)
        for parts in calls:
            file.take([memoryview(part) for part in parts])
        file.write(b"the end")
    file.close()
    file.close()
    content = b"".join(part for parts in calls for part in parts) + b"the end"
    assert Path(file.name).read_bytes() == HEAD + content
    assert file.digest == digest(Path(file.name), len(HEAD))
    Path(file.name).unlink()


def test_more_parts_than_the_system_takes_at_once(tmp_path: Path) -> None:
    file = InstanceFile(tmp_path, HEAD)
    parts = [bytes([number % 256]) * 3 for number in range(3000)]
    file.take([memoryview(part) for part in parts])
    file.close()
    assert Path(file.name).read_bytes() == HEAD + b"".join(parts)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = InstanceFile(tmp_path, HEAD)

    def full(_handle: int, _parts: list[memoryview]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OSError, match="No space"):
        file.write(b"x")
    file.close()


def test_a_disk_that_takes_not_even_the_head_costs_no_file_and_no_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles: list[int] = []

    def full(handle: int, _parts: list[memoryview]) -> int:
        handles.append(handle)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OSError, match="No space"):
        InstanceFile(tmp_path, HEAD)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handles[0])
