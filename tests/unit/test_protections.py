"""The list of protections stays true: each stands where the list says, and names a test that is there."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.protections import PROTECTIONS, ROOT, Protection, take_out


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda protection: protection.name)
def test_it_stands_where_the_list_says_and_can_be_taken_out(protection: Protection, tmp_path: Path) -> None:
    copy = tmp_path / protection.file
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / protection.file, copy)
    take_out(protection, tmp_path)
    compile(copy.read_text(encoding="utf-8"), protection.file, "exec")
    files = [word for word in shlex.split(protection.test) if word.endswith(".py")]
    assert files
    assert all((ROOT / file).is_file() for file in files)
