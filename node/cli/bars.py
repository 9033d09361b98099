"""How long work goes on: bars in a window, a line a minute where nobody looks at one."""

import time
from collections.abc import Callable
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY: Final = 60.0
"""Seconds between two lines."""


class Bars(Progress):
    """Bars on stderr, so that stdout stays clean for results; lines in a log, where rich would draw nothing until the end.

    Parameters
    ----------
    clock
        Seconds since any moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._clock = clock
        self._told = clock()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Take a task so much further."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        if self.console.is_terminal or self._clock() - self._told < EVERY:
            return
        self._told = self._clock()
        task = self._tasks[task_id]
        of = "" if task.total is None else f" of {task.total:.0f}"
        self.console.print(
            f"{task.description}: {task.completed:.0f}{of}", markup=False, highlight=False, soft_wrap=True
        )
