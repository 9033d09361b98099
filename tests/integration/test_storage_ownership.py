"""A store is of one installation: a second database that names it removes nothing there, until it takes it over."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from storage.backup import back_up, restore
from storage.database import installation_id, migrate, open_database
from storage.errors import StoreOfAnother
from storage.files import FolderStore
from storage.ownership import claim, require_own, take_over
from tests.databases import Databases


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    found = FolderStore(tmp_path / "store")
    found.prepare()
    return found


@pytest.fixture
def another(databases: Databases) -> Iterator[Engine]:
    """Another database of the same kind."""
    opened = open_database(databases.empty())  # a fresh one is a copy: of the same installation
    migrate(opened)
    yield opened
    opened.dispose()


def test_a_store_is_of_whoever_used_it_first(engine: Engine, another: Engine, store: FolderStore) -> None:
    require_own(another, store)  # nobody's yet
    for _ in range(2):
        claim(engine, store)
        require_own(engine, store)
    for does in (claim, require_own):
        with pytest.raises(StoreOfAnother, match=installation_id(engine)[:12]):
            does(another, store)
    take_over(another, store)
    claim(another, store)
    with pytest.raises(StoreOfAnother):
        claim(engine, store)


def test_it_is_that_of_a_backup_whichever_database_takes_it(
    engine: Engine, another: Engine, store: FolderStore, tmp_path: Path
) -> None:
    claim(engine, store)
    back_up(engine, tmp_path / "backup.sqlite")
    restore(another, tmp_path / "backup.sqlite", store.incoming)
    claim(another, store)


def test_a_full_disk_keeps_nobody_from_making_room_there(
    engine: Engine, another: Engine, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "mark", full)
        claim(another, store)
    claim(engine, store)
    assert store.owner() == installation_id(engine)
