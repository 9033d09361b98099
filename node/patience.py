"""Questions to a database that may hang: whoever asks is told so within seconds, and not each leaves a thread behind."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any, Final, TypeVar

from storage.errors import DatabaseUnavailable

T = TypeVar("T")

SECONDS: Final = 3.0
"""Prometheus waits ten, with two questions in it."""


class Patience:
    """Waits a few seconds for an answer; while a question that took longer has none, no other is asked.

    A server that was stopped keeps its connections open, and whoever has asked it waits for as long as it does.

    Parameters
    ----------
    seconds
        How long.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._hangs: Future[Any] | None = None

    def ask(self, question: Callable[[], T]) -> T:
        """Return the answer, or raise what the question raises.

        Raises
        ------
        DatabaseUnavailable
            When there is none in time.
        """
        if self._hangs is None or self._hangs.done():
            answer = Future[T]()
            Thread(target=_answer, args=(answer, question), name="question", daemon=True).start()
            if wait([answer], self.seconds).done:
                return answer.result()
            self._hangs = answer
        raise DatabaseUnavailable(f"not within {self.seconds:g} s")


def _answer(answer: Future[T], question: Callable[[], T]) -> None:
    try:
        answer.set_result(question())
    except BaseException as error:  # noqa: BLE001 (raised where it was asked)
        answer.set_exception(error)
