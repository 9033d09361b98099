"""A part that takes its turn: what it tells of troubles, that it goes on, and that it is missed when it hangs."""

from collections.abc import Callable
from threading import Event, Semaphore

from structlog.testing import capture_logs

from node.progress import Progress
from node.turns import PATIENCE, Beat, Turns
from storage.errors import DatabaseUnavailable


def taking(turn: Callable[[Beat], None], progress: Progress | None = None) -> Turns:
    return Turns("worklist", turn, 0.001, progress=progress)


def test_troubles_are_told_once_and_that_it_goes_on() -> None:
    ends: list[Exception | None] = [
        DatabaseUnavailable("no answer"),
        DatabaseUnavailable("no answer"),
        ValueError(),
        None,
    ]
    done = Event()

    def turn(_: Beat) -> None:
        if not ends:
            done.set()
        elif error := ends.pop(0):
            raise error

    with capture_logs() as lines:
        turns = taking(turn)
        turns.start()
        assert done.wait(60)
        turns.stop()
    told = [(line["event"], line["part"], line["log_level"]) for line in lines]
    assert told == [
        ("part waits", "worklist", "error"),
        ("part failed", "worklist", "error"),
        ("goes on again", "worklist", "info"),
    ]
    assert "no answer" in lines[0]["cause"]


def test_a_turn_that_hangs_is_missed_and_one_that_gets_on_is_not() -> None:
    now, progress = [0.0], Progress(lambda: now[0])
    at, go = Semaphore(0), Semaphore(0)

    def turn(beat: Beat) -> None:
        beat()
        at.release()
        go.acquire(timeout=60)

    turns = taking(turn, progress)
    turns.start()
    for _ in range(2):
        assert at.acquire(timeout=60)
        now[0] += 0.9 * PATIENCE
        assert progress.stuck() == []
        go.release()
    assert at.acquire(timeout=60)
    now[0] += 1.1 * PATIENCE
    assert progress.stuck() == ["worklist"]
    go.release(2)
    turns.stop()
    assert progress.stuck() == []
