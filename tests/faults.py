"""The node's processes, quick to start, and made to die where a test says.

One program imports everything once and forks a process for every command, so that a start takes a tenth of a second
instead of three and many kills fit into little time. What runs is the node's own ``serve`` and ``work``; only the
reading system is a stand-in, which needs no torch.
"""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ai.exam import Exam
    from ai.findings import ExamFindings

POINTS = {
    "serve": ("fsync", "link", "commit", "intake", "send"),
    "work": ("fsync", "link", "commit", "read"),
}
"""Where a process can be made to die: before or after its n-th call of one of these."""


class Nursery:
    """The side of the tests: asks the program for processes.

    Parameters
    ----------
    program
        The program that forks, with pipes.
    """

    def __init__(self, program: "subprocess.Popen[str]") -> None:
        self._program = program
        self._lock = threading.Lock()

    def ask(self, **request: Any) -> Any:
        """Send a request, and return its answer."""
        with self._lock:
            assert self._program.stdin
            assert self._program.stdout
            self._program.stdin.write(json.dumps(request) + "\n")
            self._program.stdin.flush()
            return json.loads(self._program.stdout.readline())

    def start(self, command: str, config: Path, log: Path, **faults: Any) -> "Offspring":
        """Start ``serve`` or ``work`` with a settings file.

        Parameters
        ----------
        log
            File that its events are added to.
        faults
            ``crash = (point, when, hit)`` kills it before or after its n-th call of a point; ``abort_on = UID`` aborts
            it when that image is decoded; ``chances = {"disk": 0.01, "memory": ..., "hang": ..., "abort": ...}`` let a
            flush of a file or a reading fail now and then, drawn from ``seed``; ``clock = FILE`` shifts its clock by as
            many seconds as stand there; ``slow = SECONDS`` lets a reading take so long; ``masses = False`` lets the stand-in find none.
        """
        log.touch()
        began = log.stat().st_size
        pid = self.ask(do="start", command=command, config=str(config), log=str(log), faults=faults)
        return Offspring(self, pid, log, began)


@dataclass
class Offspring:
    """A process of the node.

    Attributes
    ----------
    pid
        Its number, and that of its group.
    log
        Its events, from byte ``began`` on.
    status
        How it ended: exit status, or minus the signal; None while it runs.
    """

    nursery: Nursery
    pid: int
    log: Path
    began: int
    status: int | None = None

    def alive(self) -> bool:
        """Tell whether it runs."""
        if self.status is None:
            self.status = self.nursery.ask(do="poll", pid=self.pid)
        return self.status is None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, and wait until it has ended."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = 60) -> int:
        """Wait for its end, and return its status."""
        deadline = time.monotonic() + seconds
        while self.alive():
            assert time.monotonic() < deadline, self.tail()
            time.sleep(0.01)
        assert self.status is not None
        return self.status

    def lines(self) -> list[dict[str, Any]]:
        """Return the events that it has logged."""
        with self.log.open("rb") as file:
            file.seek(self.began)
            whole = file.read().decode().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def has_logged(self, event: str) -> bool:
        """Tell whether it has logged an event; fails the test when it has ended without it."""
        found = any(line["event"] == event for line in self.lines())
        assert found or self.alive(), self.tail()
        return found

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(encoding="utf-8")[-3000:]


@contextmanager
def a_nursery(*wrapper: str) -> Iterator[Nursery]:
    """Run the program that forks; all that it has started ends with the context.

    Parameters
    ----------
    wrapper
        A command line that runs the program, such as ``strace``.
    """
    command = [*wrapper, sys.executable, "-P", "-m", "tests.faults"]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    nursery = Nursery(program)
    try:
        assert nursery.ask(do="hello") == "ready"
        yield nursery
    finally:
        assert program.stdin
        assert program.stdout
        program.stdin.close()
        program.wait(60)
        program.stdout.close()


def main() -> None:
    """Fork a process for every request that asks for one; one JSON value a line in, one out."""
    import node.cli.running
    import node.service  # noqa: F401 (so that no process has to import it)
    import tests.chain  # noqa: F401 (as above)

    running: set[int] = set()
    statuses: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        match request["do"]:
            case "start":
                pid = os.fork()
                if pid == 0:
                    _live(request)
                running.add(pid)
                answer: Any = pid
            case "poll":
                if request["pid"] in running:  # else another thread has asked a moment ago
                    ended, status = os.waitpid(request["pid"], os.WNOHANG)
                    if ended:
                        running.discard(ended)
                        statuses[ended] = os.waitstatus_to_exitcode(status)
                answer = statuses.get(request["pid"])
            case _:
                answer = "ready"
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in running:  # whoever asked for them is gone, or is about to go
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _live(request: Mapping[str, Any]) -> NoReturn:
    """Be the process that was asked for."""
    import typer

    from node.cli import running

    status = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _break(request["faults"])
        _use_a_stand_in(masses=request["faults"].get("masses", True))
        {"serve": running.serve, "work": running.work}[request["command"]](config=Path(request["config"]))
        status = 0
    except typer.Exit as end:
        status = end.exit_code
    except BaseException:  # noqa: BLE001 (a child must never go on as its parent)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _use_a_stand_in(*, masses: bool) -> None:
    """Let ``work`` find a reader that needs no torch, but checks the model's files as the real ones do."""
    from ai.models import Model
    from tests.chain import FakeReader

    class Forgetful(FakeReader):
        """Keeps none of the exams that it was given: a long life has many."""

        def read(self, exam: "Exam") -> "ExamFindings":
            found = super().read(exam)
            self.exams.clear()
            return found

    def load_reader(model: Model, _device: str, _threads: int, *, runtime: str) -> FakeReader:
        model.require_reader()
        model.weights()
        return Forgetful(masses=masses, model=model.identity)

    module = ModuleType("ai.readers.registry")
    module.load_reader = load_reader  # type: ignore[attr-defined]
    sys.modules["ai.readers.registry"] = module


def _break(faults: Mapping[str, Any]) -> None:
    """Arm the faults that this process is to have."""
    if crash := faults.get("crash"):
        _crash(*crash)
    if uid := faults.get("abort_on"):
        _abort_on(uid)
    if chances := faults.get("chances"):
        _fail_now_and_then(chances, random.Random(faults["seed"]))  # noqa: S311
    if seconds := faults.get("slow"):
        _slow_down(seconds)
    if clock := faults.get("clock"):
        _shift_the_clock(Path(clock))


def _crash(point: str, when: str, hit: int) -> None:
    from sqlalchemy.engine.default import DefaultDialect

    import node.scu
    import storage.files
    from node.intake import Intake
    from storage.bucket import BucketStore
    from tests.chain import FakeReader

    places: Mapping[str, tuple[Any, str]] = {
        "fsync": (storage.files, "_flush"),
        "link": (os, "link"),
        "put": (BucketStore, "make_way"),
        "commit": (DefaultDialect, "do_commit"),
        "intake": (Intake, "receive"),
        "send": (node.scu, "_send"),
        "read": (FakeReader, "read"),
    }
    owner, name = places[point]
    original: Callable[..., Any] = getattr(owner, name)
    calls: Counter[str] = Counter()
    lock = threading.Lock()

    def reached(moment: str) -> None:
        with lock:
            calls[moment] += 1
            due = moment == when and calls[moment] == hit
        if due:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(*arguments: Any, **named: Any) -> Any:
        reached("before")
        result = original(*arguments, **named)
        reached("after")
        return result

    setattr(owner, name, dying)


def _abort_on(uid: str) -> None:
    from ai.pixels import view_image
    from node import analysis

    def aborting(dataset: Any, view: Any) -> Any:
        if str(dataset.SOPInstanceUID) == uid:
            os.abort()
        return view_image(dataset, view)

    vars(analysis)["view_image"] = aborting


def _fail_now_and_then(chances: Mapping[str, float], rng: random.Random) -> None:
    import storage.files
    from tests.chain import FakeReader

    flush: Callable[[Path], None] = storage.files._flush  # noqa: SLF001
    read: Callable[..., Any] = FakeReader.read

    def flushing(path: Path) -> None:
        if rng.random() < chances.get("disk", 0):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)

    def reading(*arguments: Any) -> Any:
        match rng.choices(("memory", "hang", "abort", ""), _weights(chances))[0]:
            case "memory":
                raise MemoryError
            case "hang":
                time.sleep(3600)
            case "abort":
                os.abort()
        return read(*arguments)

    vars(storage.files)["_flush"] = flushing
    setattr(FakeReader, "read", reading)  # noqa: B010 (a method for a method)


def _slow_down(seconds: float) -> None:
    from tests.chain import FakeReader

    read: Callable[..., Any] = FakeReader.read

    def reading(*arguments: Any) -> Any:
        time.sleep(seconds)
        return read(*arguments)

    setattr(FakeReader, "read", reading)  # noqa: B010 (as above)


def _weights(chances: Mapping[str, float]) -> tuple[float, ...]:
    some = tuple(chances.get(name, 0) for name in ("memory", "hang", "abort"))
    return (*some, 1 - sum(some))


def _shift_the_clock(file: Path) -> None:
    from node import intake

    class Shifted:
        @staticmethod
        def now(zone: tzinfo) -> datetime:
            return datetime.now(zone) + timedelta(seconds=float(file.read_text(encoding="ascii")))

    vars(intake)["datetime"] = Shifted


if __name__ == "__main__":
    main()
