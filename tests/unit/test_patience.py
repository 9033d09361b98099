"""Whoever asks a database that hangs is told so, and leaves one thread behind however often it asks."""

import threading
from threading import Event

import pytest

from node.patience import Patience
from storage.errors import DatabaseUnavailable
from tests.peers import eventually


def refused() -> None:
    raise LookupError


def test_an_answer_and_a_refusal_are_the_questions_own() -> None:
    patience = Patience()
    assert patience.ask(lambda: 7) == 7
    with pytest.raises(LookupError):
        patience.ask(refused)


def test_while_a_question_hangs_no_other_is_asked_and_then_all_goes_on() -> None:
    patience, thawed = Patience(0.01), Event()
    asked: list[threading.Thread] = []

    def frozen() -> int:
        asked.append(threading.current_thread())
        thawed.wait()
        return 7

    for _ in range(5):
        with pytest.raises(DatabaseUnavailable, match=r"not within 0\.01 s"):
            patience.ask(frozen)
    assert eventually(lambda: bool(asked))
    [thread] = asked
    thawed.set()
    thread.join()
    patience.seconds = 60
    assert patience.ask(frozen) == 7
