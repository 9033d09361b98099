"""Places for results are tried before any work."""

from pathlib import Path

import pytest

from ai.errors import Unwritable
from ai.outputs import writable_file, writable_folder


def test_a_place_that_can_be_written_to_is_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert writable_file(file) == file
    assert not list(tmp_path.iterdir())
    file.write_text("before")
    writable_file(file)
    assert file.read_text() == "before"
    folder = writable_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert not list(folder.iterdir())


def test_a_place_that_cannot_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(Unwritable, match="file: is a file"):
        writable_folder(file)
    with pytest.raises(Unwritable, match="file/x: Not a directory"):
        writable_folder(file / "x")
    with pytest.raises(Unwritable, match="is a folder"):
        writable_file(tmp_path)
    with pytest.raises(Unwritable, match=r"nowhere/out\.json: No such file or directory"):
        writable_file(tmp_path / "nowhere" / "out.json")
    # One that cannot even be looked at, as one in a folder that is closed to us.
    with pytest.raises(Unwritable, match=r"out\.json: File name too long"):
        writable_file(tmp_path / ("x" * 300) / "out.json")
