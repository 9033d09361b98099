"""Facts on their way into the trail: a line in a file at once, which a killed process leaves behind for the next.

Writing a line takes microseconds and waits for no database, so that nothing which is accepted waits for its audit
message. What does not fit is counted.
"""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock

from node.audit.facts import Fact

MOST_BYTES = 64 << 20
"""Of facts that wait: some 300,000, days of a busy node whose database is gone."""


class Spool:
    """A folder of files with a fact in each line.

    Parameters
    ----------
    folder
        For it alone; made when it is absent.
    most
        Bytes of facts that may wait.
    """

    def __init__(self, folder: Path, most: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most = most
        self._lock = Lock()
        self._file: int | None = None
        self._path = folder
        # What another process has left counts.
        self._size = sum(path.stat().st_size for path in folder.glob("*.facts"))
        self._number = 0
        self._lost = 0

    def put(self, fact: Fact) -> bool:
        """Keep a fact; tell whether it was kept."""
        with self._lock:
            kept = self._put(fact, self._most)
            self._lost += not kept
        return kept

    def _put(self, fact: Fact, most: float) -> bool:
        line = (fact.to_json() + "\n").encode()
        if self._size + len(line) > most:
            return False
        try:
            if self._file is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._number += 1
                self._path = self._folder / f"{os.getpid():08d}-{self._number:08d}.facts"
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(self._file, line)
        except OSError:
            return False
        self._size += len(line)
        return True

    def put_what_was_lost(self, told: Callable[[int], Fact]) -> None:
        """Keep a fact of how many were lost since the last such one, if any were; however many wait."""
        with self._lock:
            if self._lost and self._put(told(self._lost), math.inf):
                self._lost = 0

    def batches(self) -> Iterator[tuple[Path, list[Fact]]]:
        """Yield each file that waits, with its facts; a line that was cut off by a crash is passed over."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
        for path in sorted(self._folder.glob("*.facts"), key=lambda found: (found.stat().st_mtime_ns, found.name)):
            if path != self._path or self._file is None:
                yield path, list(_read(path))

    def done(self, path: Path) -> None:
        """Take away a file whose facts are in the trail."""
        with self._lock:
            size = path.stat().st_size
            path.unlink()
            self._size = max(self._size - size, 0)


def _read(path: Path) -> Iterator[Fact]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield Fact.from_json(line)
        except (ValueError, KeyError, TypeError):
            continue
