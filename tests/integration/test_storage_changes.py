"""Whether anything was committed, told by SQLite; and loops that rest until it is so."""

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from threading import Event

import pytest
from sqlalchemy import Engine, insert

from node.pace import LONGEST, LOOKS, News, Pace
from storage.changes import ASKS_EVERY, SETTLES, Changes
from storage.database import open_database, reading, writing
from storage.tables import patients
from tests.databases import SQLiteDatabases

pytestmark = pytest.mark.sqlite_alone


@pytest.fixture
def commit(engine: Engine) -> Callable[[str], None]:
    def add(number: str) -> None:
        with writing(engine) as connection:
            connection.execute(insert(patients).values(issuer="", patient_id=number, name="", birth_date="", sex="F"))

    return add


def test_a_commit_is_told_by_every_one_that_looks(engine: Engine, commit: Callable[[str], None]) -> None:
    one, other = Changes(engine), Changes(engine)
    before = one.version(), other.version()
    with reading(engine):
        pass
    assert (one.version(), other.version()) == before
    commit("1")
    first = one.version(), other.version()
    assert first[0] != before[0]
    assert first[1] != before[1]
    assert (one.version(), other.version()) == first
    one.close()
    other.close()


def test_what_is_not_committed_is_not_told_and_nobody_is_held_up(engine: Engine, commit: Callable[[str], None]) -> None:
    changes = Changes(engine)
    before = changes.version()
    with writing(engine) as connection:
        connection.execute(insert(patients).values(issuer="", patient_id="1", name="", birth_date="", sex="F"))
        assert changes.version() == before
    assert changes.version() != before
    commit("2")
    changes.close()


def test_a_commit_of_another_process_is_told(sqlite_databases: SQLiteDatabases) -> None:
    url = sqlite_databases.fresh()
    changes, theirs = Changes(open_database(url)), open_database(url)  # SQLite knows connections, not processes
    before = changes.version()
    with writing(theirs) as connection:
        connection.execute(insert(patients).values(issuer="", patient_id="1", name="", birth_date="", sex="F"))
    assert changes.version() != before
    changes.close()


class Watch:
    """A clock that is put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def test_where_the_file_is_a_link_the_log_that_counts_lies_beside_what_it_names(
    tmp_path: Path, sqlite_databases: SQLiteDatabases
) -> None:
    file = open_database(sqlite_databases.fresh()).url.database
    assert file
    link = tmp_path / "linked.sqlite"
    link.symlink_to(file)
    (tmp_path / "linked.sqlite-wal").touch()  # left behind when the database was moved
    engine, watch = open_database(f"sqlite:///{link}"), Watch()
    changes = Changes(engine, watch)
    watch.ahead = SETTLES + 1
    before = changes.version()
    with writing(engine) as connection:
        connection.execute(insert(patients).values(issuer="", patient_id="1", name="", birth_date="", sex="F"))
    assert changes.version() != before
    changes.close()


def test_sqlite_is_not_asked_while_its_log_is_the_same_but_for_a_commit_that_may_be_under_way(
    engine: Engine, commit: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    changes = Changes(engine, watch)
    first = changes.version()
    commit("1")
    written = Path(f"{engine.url.database}-wal").stat()
    # As if all that follows had been written by now, and were committed only when its flush has ended.
    monkeypatch.setattr(Path, "stat", lambda _: written)
    second = changes.version()
    commit("2")
    third = changes.version()
    assert len({first, second, third}) == 3
    watch.ahead = SETTLES + 1
    assert changes.version() == third
    commit("3")
    assert changes.version() == third
    watch.ahead += ASKS_EVERY
    assert changes.version() not in {first, second, third}
    changes.close()


class Waits(Event):
    """Notes for how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Do not."""
        self.seconds.append(timeout)
        return self.is_set()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    event = Waits()
    monkeypatch.setattr("node.pace.Event", lambda: event)
    return event


def test_a_database_that_cannot_tell_is_looked_at_every_time(engine: Engine, waits: Waits) -> None:
    changes = Changes(engine)
    changes.close()
    assert changes.version() is None
    news = News(changes)
    for pace in (Pace(news), Pace()):
        for due in (0, None, 30.0):
            pace.rest(1, due)
    assert waits.seconds == [1] * 6
    assert [news.look() for _ in range(3)] == [True] * 3
    assert not waits.is_set()


@pytest.mark.parametrize(
    ("due", "seconds"), [(None, LONGEST), (0, LOOKS), (-5.0, LOOKS), (0.25, 0.25), (7.5, 7.5), (1e9, LONGEST)]
)
def test_a_loop_that_is_told_rests_until_something_is_due(
    engine: Engine, waits: Waits, due: float | None, seconds: float
) -> None:
    changes = Changes(engine)
    Pace(News(changes)).rest(1, due)
    assert waits.seconds == [seconds]
    changes.close()


@pytest.mark.parametrize("due", [None, 0, 1e9])
def test_a_long_poll_is_neither_cut_short_nor_made_longer(engine: Engine, waits: Waits, due: float | None) -> None:
    changes = Changes(engine)
    Pace(News(changes)).rest(600, due)
    assert waits.seconds == [600]
    changes.close()


def test_one_look_wakes_every_loop_once_for_each_commit(engine: Engine, commit: Callable[[str], None]) -> None:
    changes = Changes(engine)
    news = News(changes)
    woken: Queue[int] = Queue()
    paces = [Pace(news) for _ in range(3)]

    def loop(number: int, pace: Pace) -> None:
        while True:
            pace.rest(3600, None)
            if pace.stopped:
                return
            woken.put(number)

    threads = [threading.Thread(target=loop, args=each) for each in enumerate(paces)]
    for thread in threads:
        thread.start()
    assert news.look()  # the first
    assert sorted(woken.get(timeout=60) for _ in range(3)) == [0, 1, 2]
    assert not news.look()
    commit("1")
    assert news.look()
    assert not news.look()
    assert sorted(woken.get(timeout=60) for _ in range(3)) == [0, 1, 2]
    for pace in paces:
        pace.stop()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert woken.empty()
    changes.close()


def test_what_is_committed_while_a_loop_looks_is_not_slept_through(
    engine: Engine, commit: Callable[[str], None]
) -> None:
    changes = Changes(engine)
    news = News(changes)
    pace = Pace(news)
    commit("1")  # after it has looked, and before it rests
    assert news.look()
    pace.rest(3600, None)
    assert not pace.stopped
    changes.close()


def test_a_loop_that_is_gone_is_not_told(engine: Engine, commit: Callable[[str], None]) -> None:
    changes = Changes(engine)
    news = News(changes)
    pace, gone = Pace(news), weakref.ref(Pace(news))
    commit("1")
    assert news.look()
    assert gone() is None
    pace.rest(3600)
    changes.close()
