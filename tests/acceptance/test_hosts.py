"""Two hosts with one database and one store: when the network of one fails in the middle, the other reads its exams, once."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import psycopg
import pytest

from storage.states import ExamState
from tests.acceptance.nodes import Site, a_site, an_exam, patiently, study_of
from tests.databases import PostgreSQLDatabases
from tests.faults import a_nursery

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # pynetdicom does not close the socket of a connection that was refused or cut.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
NETWORK: Final = "10.213.0"
"""Of the namespaces; its first address is that of the host with the database."""


def ip(*words: str) -> None:
    """Change the network."""
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


class Host:
    """A host, whose cable can be pulled out and put in.

    Attributes
    ----------
    name
        Of its network namespace.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def unplug(self) -> None:
        """Pull the cable."""
        ip("link", "set", f"{self.name}-l", "down")

    def plug(self) -> None:
        """Put it in again."""
        ip("link", "set", f"{self.name}-l", "up")


@contextmanager
def a_network(*names: str) -> Iterator[list[Host]]:
    """Make hosts on one switch; skips the test without the right to."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the package iproute2")
    switch = f"mmn{os.getpid()}"[:14]
    with ExitStack() as stack:
        try:
            ip("link", "add", switch, "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        stack.callback(ip, "link", "del", switch)
        ip("addr", "add", f"{NETWORK}.1/24", "dev", switch)
        ip("link", "set", switch, "up")
        for number, name in enumerate(names, 2):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("link", "add", f"{name}-l", "type", "veth", "peer", "name", "eth0", "netns", name)
            # Sockets that wait for an answer keep a namespace, and with it its cable, for a while.
            stack.callback(ip, "link", "del", f"{name}-l")
            ip("link", "set", f"{name}-l", "master", switch, "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield [Host(name) for name in names]


@contextmanager
def on_the_network(url: str) -> Iterator[str]:
    """Let a PostgreSQL server that listens at a Unix socket be reached over TCP too; yields its URL there."""
    path = psycopg.conninfo.conninfo_to_dict(url)["host"]
    with socket.create_server((f"{NETWORK}.1", 0)) as door:
        port = door.getsockname()[1]

        def accept() -> None:
            with suppress(OSError):
                while True:
                    there, _ = door.accept()
                    here = socket.socket(socket.AF_UNIX)
                    here.connect(f"{path}/.s.PGSQL.5432")
                    for ends in ((there, here), (here, there)):
                        threading.Thread(target=pass_on, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        database = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        yield f"postgresql://postgres@{NETWORK}.1:{port}/{database}"
        door.shutdown(socket.SHUT_RDWR)


def pass_on(one: socket.socket, other: socket.socket) -> None:
    """Send on what comes, until one end closes."""
    with suppress(OSError), one, other:
        while data := one.recv(65536):
            other.sendall(data)


def answered_once(site: Site, study: str) -> None:
    """Fail unless a study has one answer, of which the destination got each object once."""
    exam = site.answered(study)
    assert exam.state is ExamState.ANSWERED
    deliveries = site.parts.outbox.of_exam(exam.id)
    arrivals = [uid for uid in site.archives["pacs"].arrivals if uid in {d.result_uid for d in deliveries}]
    assert sorted(arrivals) == sorted({d.result_uid for d in deliveries})
    assert len(site.archives["pacs"].files(study)) == len(arrivals)


def test_a_host_whose_network_fails_in_the_middle_costs_no_exam_and_nothing_is_answered_twice(
    tmp_path: Path, postgresql_databases: PostgreSQLDatabases
) -> None:
    first, second, third = (an_exam(f"HOSTS-{number}") for number in range(3))
    with ExitStack() as stack:
        left, right = stack.enter_context(a_network("mm-left", "mm-right"))
        url = stack.enter_context(on_the_network(postgresql_databases.empty()))
        site = stack.enter_context(a_site(tmp_path, database=url, jobs="lease = 3\ntime_limit = 120"))
        nurseries = {
            host.name: stack.enter_context(a_nursery("ip", "netns", "exec", host.name)) for host in (left, right)
        }
        serve = site.serve()

        def worker(host: Host, **faults: float) -> Callable[[str], bool]:
            started = nurseries[host.name].start("work", site.config, tmp_path / f"{host.name}.log", **faults)
            stack.callback(started.kill)
            assert patiently(lambda: started.has_logged("worker ready"))
            return started.has_logged

        left_has_logged = worker(left, slow=12)
        site.send(first)
        assert patiently(lambda: left_has_logged("job started"))
        left.unplug()
        right_has_logged = worker(right)
        # Its lease ends, as nobody renews it, and the other host reads; new exams too.
        answered_once(site, study_of(first))
        assert right_has_logged("job finished")
        site.send(second)
        answered_once(site, study_of(second))
        left.plug()
        assert patiently(lambda: left_has_logged("job lost") or left_has_logged("job failed"))
        assert not left_has_logged("job finished")
        # Back on the network it goes on by itself.
        right.unplug()
        site.send(third)
        answered_once(site, study_of(third))
        assert left_has_logged("job finished")
        for exam in (first, second):
            answered_once(site, study_of(exam))
        job = site.job(study_of(first))
        assert job
        assert job.attempts == 2
        assert serve.terminate() == 0
