"""Whether anything was committed, told by the database; and loops that rest until it is so."""

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from threading import Event

import pytest
from sqlalchemy import Connection, Engine, func, insert, select, text

from node.pace import LONGEST, LOOKS, News, Pace
from storage.changes import ASKS_EVERY, SETTLES, Changes, SQLiteChanges, Version, changes_of
from storage.database import open_database, reading, writing
from storage.tables import patients
from tests.databases import PostgreSQLDatabases, SQLiteDatabases


def add(connection: Connection, number: str) -> None:
    connection.execute(insert(patients).values(issuer="", patient_id=number, name="", birth_date="", sex="F"))


@pytest.fixture
def commit(engine: Engine) -> Callable[[str], None]:
    def commit(number: str) -> None:
        with writing(engine) as connection:
            add(connection, number)

    return commit


def settled(changes: Changes) -> Version | None:
    """Return a version that two looks agree on: others on a server end transactions as well."""
    looks = ((changes.version(), changes.version()) for _ in range(100))
    return next(one for one, other in looks if one == other)


def test_a_commit_is_told_by_every_one_that_looks(engine: Engine, commit: Callable[[str], None]) -> None:
    one, other = changes_of(engine), changes_of(engine)
    with reading(engine):
        before = settled(one), settled(other)
    assert None not in before
    commit("1")
    first = settled(one), settled(other)
    assert first[0] != before[0]
    assert first[1] != before[1]
    one.close()
    other.close()
    assert (one.version(), other.version()) == (None, None)


def test_each_of_several_transactions_is_told_when_it_ends_in_whatever_order(engine: Engine) -> None:
    changes = changes_of(engine)
    told = [changes.version()]
    with ExitStack() as first:
        add(first.enter_context(writing(engine)), "1")
        if engine.dialect.name == "postgresql":  # SQLite has one writer at a time
            with ExitStack() as second:
                add(second.enter_context(writing(engine)), "2")
                with writing(engine) as connection:
                    add(connection, "3")
                told.append(changes.version())
            told.append(changes.version())
    told.append(changes.version())
    assert None not in told
    assert len(set(told)) == len(told)
    changes.close()


def test_a_connection_that_the_server_has_cut_is_made_anew(postgresql_databases: PostgreSQLDatabases) -> None:
    engine = open_database(postgresql_databases.fresh())
    changes = changes_of(engine)
    before = settled(changes)
    others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with reading(engine) as connection:
        for pid in connection.execute(text(others)).scalars().all():
            connection.execute(select(func.pg_terminate_backend(pid)))
    assert changes.version() is None
    with writing(engine) as connection:
        add(connection, "1")
    assert changes.version() not in {None, before}
    changes.close()
    engine.dispose()


@pytest.mark.sqlite_alone
def test_what_is_not_committed_is_not_told_and_nobody_is_held_up(engine: Engine, commit: Callable[[str], None]) -> None:
    changes = changes_of(engine)
    before = changes.version()
    with writing(engine) as connection:
        add(connection, "1")
        assert changes.version() == before
    assert changes.version() != before
    commit("2")
    changes.close()


@pytest.mark.sqlite_alone
def test_a_commit_of_another_process_is_told(sqlite_databases: SQLiteDatabases) -> None:
    url = sqlite_databases.fresh()
    changes, theirs = changes_of(open_database(url)), open_database(url)  # SQLite knows connections, not processes
    before = changes.version()
    with writing(theirs) as connection:
        add(connection, "1")
    assert changes.version() != before
    changes.close()


class Watch:
    """A clock that is put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.mark.sqlite_alone
def test_where_the_file_is_a_link_the_log_that_counts_lies_beside_what_it_names(
    tmp_path: Path, sqlite_databases: SQLiteDatabases
) -> None:
    file = open_database(sqlite_databases.fresh()).url.database
    assert file
    link = tmp_path / "linked.sqlite"
    link.symlink_to(file)
    (tmp_path / "linked.sqlite-wal").touch()  # left behind when the database was moved
    engine, watch = open_database(f"sqlite:///{link}"), Watch()
    changes = SQLiteChanges(engine, watch)
    watch.ahead = SETTLES + 1
    before = changes.version()
    with writing(engine) as connection:
        add(connection, "1")
    assert changes.version() != before
    changes.close()


@pytest.mark.sqlite_alone
def test_sqlite_is_not_asked_while_its_log_is_the_same_but_for_a_commit_that_may_be_under_way(
    engine: Engine, commit: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    changes = SQLiteChanges(engine, watch)
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


@pytest.mark.sqlite_alone
def test_a_database_that_cannot_tell_is_looked_at_every_time(engine: Engine, waits: Waits) -> None:
    changes = changes_of(engine)
    changes.close()
    assert changes.version() is None
    news = News(changes)
    for pace in (Pace(news), Pace()):
        for due in (0, None, 30.0):
            pace.rest(1, due)
    assert waits.seconds == [1] * 6
    assert [news.look() for _ in range(3)] == [True] * 3
    assert not waits.is_set()


@pytest.mark.sqlite_alone
@pytest.mark.parametrize(
    ("due", "seconds"), [(None, LONGEST), (0, LOOKS), (-5.0, LOOKS), (0.25, 0.25), (7.5, 7.5), (1e9, LONGEST)]
)
def test_a_loop_that_is_told_rests_until_something_is_due(
    engine: Engine, waits: Waits, due: float | None, seconds: float
) -> None:
    changes = changes_of(engine)
    Pace(News(changes)).rest(1, due)
    assert waits.seconds == [seconds]
    changes.close()


@pytest.mark.sqlite_alone
@pytest.mark.parametrize("due", [None, 0, 1e9])
def test_a_long_poll_is_neither_cut_short_nor_made_longer(engine: Engine, waits: Waits, due: float | None) -> None:
    changes = changes_of(engine)
    Pace(News(changes)).rest(600, due)
    assert waits.seconds == [600]
    changes.close()


@pytest.mark.sqlite_alone
def test_one_look_wakes_every_loop_once_for_each_commit(engine: Engine, commit: Callable[[str], None]) -> None:
    changes = changes_of(engine)
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


@pytest.mark.sqlite_alone
def test_what_is_committed_while_a_loop_looks_is_not_slept_through(
    engine: Engine, commit: Callable[[str], None]
) -> None:
    changes = changes_of(engine)
    news = News(changes)
    pace = Pace(news)
    commit("1")  # after it has looked, and before it rests
    assert news.look()
    pace.rest(3600, None)
    assert not pace.stopped
    changes.close()


@pytest.mark.sqlite_alone
def test_a_loop_that_is_gone_is_not_told(engine: Engine, commit: Callable[[str], None]) -> None:
    changes = changes_of(engine)
    news = News(changes)
    pace, gone = Pace(news), weakref.ref(Pace(news))
    commit("1")
    assert news.look()
    assert gone() is None
    pace.rest(3600)
    changes.close()
