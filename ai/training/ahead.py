"""Work made ready by threads while what came before is used."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")


def ahead(make: Callable[[int], Made], count: int, workers: int) -> Generator[Made, None, None]:
    """Yield what ``make`` makes of 0 to ``count`` - 1, in order, the next ones being made meanwhile."""
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for index in range(count):
            waiting.append(pool.submit(make, index))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
