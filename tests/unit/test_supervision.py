"""What a service manager is told, and what feeds its watchdog."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from config.errors import InvalidSettings
from config.settings import Dicom, ExamClock, Settings, Storage
from node import working
from node.intake import Intake
from node.parts import open_parts
from node.progress import Progress
from node.running import Chore, Signals, Watch, read_again, run_until_stopped
from node.supervision import PARENT, PR_SET_PDEATHSIG, VARIABLES, ServiceManager, end_with_parent, for_children
from node.troubles import Troubles
from storage.errors import DatabaseUnavailable
from tests.doors import ROOM_ENOUGH, Room, phantom_images
from tests.supervised import a_listener, manager_of


class Seconds:
    """A monotonic clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_every_message_is_one_datagram(tmp_path: Path) -> None:
    with a_listener(tmp_path) as listener:
        manager = manager_of(listener)
        manager.ready("first\nsecond")
        manager.reloading()
        manager.alive()
        manager.stopping("ends")
        ready, reloading, alive, stopping = listener.told()
    assert ready == {"READY": "1", "STATUS": "first second"}
    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0
    assert alive == {"WATCHDOG": "1"}
    assert stopping == {"STOPPING": "1", "STATUS": "ends"}


def test_a_name_in_the_abstract_name_space_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0mammonode-test-{os.getpid()}")
        ServiceManager(f"@mammonode-test-{os.getpid()}").status("here")
        assert listener.recv(100) == b"STATUS=here"


def test_without_a_service_manager_and_with_one_that_is_gone_nothing_happens(tmp_path: Path) -> None:
    ServiceManager().ready("nobody hears it")
    ServiceManager(str(tmp_path / "gone")).ready("nobody hears it")


def test_the_environment_says_who_it_is_and_a_watchdog_of_another_process_is_not_ours() -> None:
    told = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000"}
    assert ServiceManager.from_environment(told) == ServiceManager("/run/x", 3)
    assert ServiceManager.from_environment(told | {"WATCHDOG_PID": str(os.getpid())}).watchdog == 3
    assert ServiceManager.from_environment(told | {"WATCHDOG_PID": "1"}).watchdog is None
    assert ServiceManager.from_environment({}) == ServiceManager()


def test_children_do_not_speak_for_their_parent() -> None:
    told = for_children({"PATH": "/bin", **dict.fromkeys(VARIABLES, "x")})
    assert told == {"PATH": "/bin", PARENT: str(os.getpid())}


UP = """
import sys, time
from node.supervisor import Child
child = Child("part", [sys.executable, "-c", sys.argv[1]])
child.tend()
time.sleep(60)
"""
PART = """
import os, signal
from node.running import Signals
signals = Signals()
signals.listen()
print("works", flush=True)
signals.rest(20)
print("stopped in order" if signals.stop_asked() else "left alone", flush=True)
"""


def test_the_parts_of_an_up_that_is_killed_end_in_order() -> None:
    with subprocess.Popen([sys.executable, "-c", UP, PART], stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout
        said = iter(up.stdout.readline, "")  # until the part has ended, too
        assert "works\n" in said
        up.kill()
        assert list(said) == ["stopped in order\n"]


def test_a_part_whose_parent_has_ended_before_it_could_ask_is_to_stop() -> None:
    signals = Signals()
    before = signal.signal(signal.SIGTERM, signals.heard)
    try:
        end_with_parent({PARENT: "1" if os.getppid() != 1 else "2"})
        assert signals.stop_asked()
    finally:
        signal.signal(signal.SIGTERM, before)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)


def test_without_a_watchdog_no_sign_of_life_is_given(tmp_path: Path) -> None:
    with a_listener(tmp_path) as listener:
        manager_of(listener, watchdog=None).alive()
        assert listener.told() == []


def test_the_watchdog_is_fed_only_while_every_part_gets_on(tmp_path: Path) -> None:
    clock = Seconds()
    progress = Progress(clock)
    lane, door = progress.expect("lane pacs 1", 60), progress.expect("DICOM door", 100)
    with a_listener(tmp_path) as listener, capture_logs() as logs:
        watch = Watch(manager_of(listener), progress)
        clock.now = 60
        watch.tick()
        assert listener.told() == [{"WATCHDOG": "1"}]
        clock.now = 61
        watch.tick()
        watch.tick()
        assert listener.told() == []
        assert [(line["event"], line["part"], line["log_level"]) for line in logs] == [
            ("part stuck", "lane pacs 1", "critical")
        ]
        lane.beat()
        watch.tick()
        assert listener.told() == [{"WATCHDOG": "1"}]
        clock.now = 200
        assert progress.stuck() == ["DICOM door", "lane pacs 1"]
        lane.end()
        door.beat()
        watch.tick()
        assert listener.told() == [{"WATCHDOG": "1"}]


def a_process(*chores: Chore, reload: Callable[[], object] = lambda: None) -> tuple[Signals, threading.Thread]:
    signals = Signals()
    thread = threading.Thread(target=run_until_stopped, args=(signals, chores, reload))
    return signals, thread


def test_a_chore_that_fails_is_done_again_and_holds_up_no_other() -> None:
    turns: list[str] = []

    def fails() -> None:
        turns.append("fails")
        raise ValueError

    def goes_well() -> None:
        turns.append("well")
        if turns.count("well") == 3:
            signals.heard(signal.SIGTERM)

    signals, thread = a_process(Chore(fails, 0.01), Chore(goes_well, 0.01))
    with capture_logs() as logs:
        thread.start()
        thread.join(60)
    assert turns.count("fails") >= 3
    assert [line["event"] for line in logs] == ["will be tried again"]


def test_a_chore_is_done_early_with_another_only_if_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, done = Seconds(), list[str]()
    monkeypatch.setattr("time.monotonic", clock)
    chores = [Chore(partial(done.append, "early"), 1, 0.05), Chore(partial(done.append, "exact"), 1, 0.05, early=0)]
    signals = Signals()

    def rested(seconds: float) -> None:
        done.append(f"{seconds:.2f}")
        clock.now += seconds
        if clock.now >= 1:
            signals.heard(signal.SIGTERM)

    monkeypatch.setattr(signals, "rest", rested)
    run_until_stopped(signals, chores, lambda: None)
    assert done == ["early", "0.05", "exact", "0.95"]


def test_a_reload_that_fails_ends_nothing() -> None:
    def fails() -> None:
        raise OSError("stale file handle")

    turns = threading.Semaphore(0)
    signals, thread = a_process(Chore(turns.release, 0.01), reload=fails)
    signals.heard(signal.SIGHUP)
    with capture_logs() as logs:
        thread.start()
        for _ in range(3):
            assert turns.acquire(timeout=60)
        signals.heard(signal.SIGTERM)
        thread.join(60)
    assert [line["event"] for line in logs] == ["reload failed"]


def test_a_database_that_is_down_is_told_once_for_all_chores_and_when_it_answers_again() -> None:
    turns = 0

    def asks() -> None:
        if turns < 3:
            raise DatabaseUnavailable("no route to host")

    def counts() -> None:
        nonlocal turns
        turns += 1
        if turns == 5:
            signals.heard(signal.SIGTERM)

    signals, thread = a_process(*(Chore(asks, 0.01) for _ in range(5)), Chore(counts, 0.01))
    with capture_logs() as logs:
        thread.start()
        thread.join(60)
    assert [line["event"] for line in logs] == ["will be tried again", "goes on again"]
    assert "no route to host" in logs[0]["cause"]
    assert "exc_info" not in logs[0]


def test_a_trouble_that_lasts_is_told_again_now_and_then() -> None:
    now = 0.0
    troubles = Troubles(600, lambda: now)
    assert troubles.begin(DatabaseUnavailable())
    assert not troubles.begin(DatabaseUnavailable(), part=1)
    assert troubles.begin(OSError())
    now = 600.0
    assert troubles.begin(DatabaseUnavailable())
    assert not troubles.end(part=2)
    assert not troubles.end()
    assert troubles.end(part=1)
    assert troubles.begin(DatabaseUnavailable())


def test_signals_ask_for_what_they_mean() -> None:
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        signals = Signals()
        signals.listen()
        signal.raise_signal(signal.SIGHUP)
        signals.rest(3600)
        assert not signals.stop_asked()
        assert signals.reload_asked()
        assert not signals.reload_asked()
        signal.raise_signal(signal.SIGTERM)
        assert signals.stop_asked()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def test_settings_that_are_wrong_or_need_a_restart_are_refused_whole() -> None:
    present = Settings()

    def wrong() -> Settings:
        raise InvalidSettings(["exam.zzz: unknown key"])

    both = Settings(dicom=Dicom(port=105), exam=ExamClock(complete_quiet=3))
    with capture_logs() as logs:
        assert read_again(wrong, present, ()) is None
        assert read_again(lambda: both, present, ("dicom.port",)) is None
        assert read_again(lambda: both, present, ("dicom",)) is None
        assert read_again(Settings, present, ()) is None
        assert read_again(lambda: both, present, ("reader",)) is both
    assert [line["event"] for line in logs] == [*["reload refused"] * 3, *["settings read again"] * 2]
    assert logs[0]["faults"] == ["exam.zzz: unknown key"]
    assert logs[1]["faults"] == ["dicom.port: only a restart changes it"]
    assert [line["changed"] for line in logs[3:]] == [[], ["dicom.port", "exam.complete_quiet"]]


def test_a_worker_reads_its_settings_again_between_two_exams_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    signals_of = {2: signal.SIGHUP, 5: signal.SIGTERM}
    quiet = iter([10, 3, 3, 3])

    class NeverIdle:
        def work_once(self) -> bool:
            done.append("exam")
            if number := signals_of.get(done.count("exam")):
                signal.raise_signal(number)
            return True

    def load() -> Settings:
        done.append("settings")
        return Settings(storage=Storage(folder=tmp_path), exam=ExamClock(complete_quiet=next(quiet)))

    # In the place of the module, which imports torch.
    registry = SimpleNamespace(load_reader=lambda *_, **__: SimpleNamespace(device="cpu"))
    monkeypatch.setitem(sys.modules, "ai.readers.registry", registry)
    monkeypatch.setattr(working, "_worker", lambda *_: NeverIdle())
    monkeypatch.setattr(working, "configure", lambda *_: None)
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        working.work(load, ServiceManager())
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    # At the start, when it is ready and finds others, and these once more; then between two exams.
    assert done == ["settings"] * 3 + ["exam"] * 2 + ["settings"] + ["exam"] * 3


def test_a_worker_looks_more_often_while_an_exam_is_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(storage=Storage(folder=tmp_path))
    parts = open_parts(settings)
    seen: list[float] = []

    class Idle:
        def work_once(self) -> bool:
            return False

    def run(_: Signals, chores: Sequence[Chore], __: object) -> None:
        [look] = [chore for chore in chores if "what_is_new" in repr(chore.do)]
        look.do()
        seen.append(look.every)
        room = Room(parts.store, parts.engine, Intake(parts.store, parts.engine, ROOM_ENOUGH))
        room.receive(phantom_images()[0])
        look.do()
        seen.append(look.every)

    monkeypatch.setitem(
        sys.modules, "ai.readers.registry", SimpleNamespace(load_reader=lambda *_, **__: SimpleNamespace(device="cpu"))
    )
    monkeypatch.setattr(working, "_worker", lambda *_: Idle())
    monkeypatch.setattr(working, "run_until_stopped", run)
    monkeypatch.setattr(working, "configure", lambda *_: None)
    monkeypatch.setattr(Signals, "listen", lambda _: None)
    working.work(lambda: settings, ServiceManager())
    parts.engine.dispose()
    assert seen == [working.POLL, working.POLL_WHILE_AWAITED]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_wait_ends_at_once_when_the_process_is_asked_to_stop(number: int) -> None:
    signals, thread = a_process(Chore(lambda: None, 3600))
    thread.start()
    signals.heard(number)
    thread.join(60)
    assert not thread.is_alive()


def test_a_signal_that_comes_at_any_moment_holds_up_nobody() -> None:
    program = """
import signal, sys
from node.running import Chore, Signals, run_until_stopped

signals, turns, heard = Signals(), 0, 0

def turn():
    global turns
    turns += 1
    if turns == 3:
        signal.raise_signal(signal.SIGTERM)

def everywhere(frame, event, _):
    global heard
    heard += 1
    signal.raise_signal(signal.SIGHUP)
    return everywhere

signals.listen()
sys.settrace(everywhere)
run_until_stopped(signals, [Chore(turn, 0.0)], lambda: None)
sys.settrace(None)
print(turns, heard > 50)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "3 True\n"
