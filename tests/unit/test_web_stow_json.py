"""JSON documents of a request: parsed in their turn, of which nothing stays."""

from pathlib import Path

import pytest

from node.errors import TooManyParts
from node.web.stow_json import Documents


def written(folder: Path, text: str) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(text)
    return path


def test_a_document_is_read_when_it_is_its_turn(tmp_path: Path) -> None:
    documents = Documents(tmp_path, 10)
    first, second = written(tmp_path, "[1, 2]"), written(tmp_path, "{")
    documents.document(first)
    documents.document(second)
    made = documents.instances()
    next(made)
    assert (first.exists(), second.exists()) == (False, True)
    second.write_text("[3, 4, 5]")
    assert len(list(made)) == 4
    assert not documents.waiting
    assert not list(tmp_path.iterdir())


def test_what_is_not_read_is_removed(tmp_path: Path) -> None:
    documents = Documents(tmp_path, 10)
    documents.document(written(tmp_path, "[]"))
    documents.close()
    assert not documents.waiting
    assert not list(tmp_path.iterdir())


def test_of_too_many_data_sets_none_is_made(tmp_path: Path) -> None:
    documents = Documents(tmp_path, 2)
    documents.document(written(tmp_path, "[1, 2, 3]"))
    with pytest.raises(TooManyParts):
        next(documents.instances())


def test_a_document_may_have_what_the_others_have_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.web.stow_json.LARGEST_DOCUMENTS", 10)
    documents = Documents(tmp_path, 10)
    assert documents.room == 10
    documents.document(written(tmp_path, "[1, 2]"))
    assert documents.room == 4
