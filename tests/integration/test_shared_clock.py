"""Workers of hosts whose clocks differ go by one time, that of the database's server."""

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, event
from structlog.testing import capture_logs

from node.intake import utc_now
from node.shared_clock import ASKED_EVERY, SharedClock
from storage.database import open_database
from storage.jobs import JobQueue
from tests.databases import PostgreSQLDatabases
from tests.records import LEASE, POLICY, SECOND, a_closed_exam


@pytest.fixture
def postgresql(postgresql_databases: PostgreSQLDatabases) -> Iterator[Engine]:
    opened = open_database(postgresql_databases.fresh())
    yield opened
    opened.dispose()


@pytest.mark.parametrize("apart", [timedelta(seconds=70), timedelta(days=-7)])
def test_workers_of_hosts_with_other_times_leave_one_another_their_jobs(postgresql: Engine, apart: timedelta) -> None:
    a_closed_exam(postgresql, now=utc_now())
    queue = JobQueue(postgresql, POLICY, LEASE)
    began = time.monotonic()
    with capture_logs() as logs:
        right, wrong = SharedClock(postgresql), SharedClock(postgresql, lambda: utc_now() + apart)
        job = queue.claim("right", right())
        assert job
        assert [queue.claim(name, clock()) for name, clock in (("wrong", wrong), ("right too", right))] == [None, None]
        assert queue.renew(job, "right", right())
        assert queue.claim("wrong", wrong()) is None
    [line] = logs
    assert line["event"] == "clock apart"
    # More by what lies between the server's answer and the look at the clock, which a slow machine may make seconds of.
    more = line["offset"] - apart.total_seconds()
    assert -0.1 <= more <= time.monotonic() - began + 0.1


def test_time_goes_on_while_the_server_does_not_answer(postgresql: Engine) -> None:
    steady = [0.0]
    gone = open_database("postgresql://nobody@127.0.0.1:1/none")
    never = SharedClock(gone, utc_now, lambda: steady[0])
    assert abs(never() - utc_now()) < timedelta(minutes=1)
    clock = SharedClock(postgresql, utc_now, lambda: steady[0])
    began = clock()
    steady[0] = ASKED_EVERY
    assert clock() - began == timedelta(seconds=ASKED_EVERY)
    steady[0] += 1
    assert clock() - began < timedelta(seconds=ASKED_EVERY), "asked again, the server says that little time has gone by"


def test_the_time_that_giving_the_connection_back_takes_has_gone_by(postgresql: Engine) -> None:
    steady = [0.0]

    def slowly(*_: object) -> None:
        steady[0] += 30

    event.listen(postgresql, "checkin", slowly)
    clock = SharedClock(postgresql, utc_now, lambda: steady[0])
    # Behind the server's, a lease would end before its time, and another host would take the job.
    assert clock() - utc_now() > timedelta(seconds=29)


@pytest.mark.sqlite_alone
def test_where_there_is_no_server_this_machine_s_clock_counts(engine: Engine) -> None:
    now = utc_now() - 9 * SECOND
    assert SharedClock(engine, lambda: now)() == now
