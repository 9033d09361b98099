"""Policies as values: when to try again, when an exam is complete, when the disk is full."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed attempt is made again.

    Attributes
    ----------
    quick
        Number of quick retries, whose delays double from ``first``.
    first
        Delay before the first retry, more than 0.
    slow
        Delay after the quick ones are used up, and the longest delay of all.
    give_up_after
        Time since the first attempt after which nothing is tried any more.
    attempts
        Number of attempts after which nothing is tried any more; None when only time counts.
    """

    quick: int
    first: timedelta
    slow: timedelta
    give_up_after: timedelta
    attempts: int | None = None

    def delay(self, attempts: int, age: timedelta) -> timedelta | None:
        """Return the wait before the next attempt, or None to give up.

        Parameters
        ----------
        attempts
            Attempts made so far, at least 1.
        age
            Time since the first attempt.
        """
        if age >= self.give_up_after or (self.attempts is not None and attempts >= self.attempts):
            return None
        if attempts > self.quick:
            return self.slow
        doubled: int = 2 ** (attempts - 1)
        # Compared as numbers: as a time, a wait that has doubled fifty times is more than timedelta can hold.
        return self.first * doubled if doubled <= self.slow // self.first else self.slow


@dataclass(frozen=True)
class CompletionPolicy:
    """When an exam's images are taken to be all there (rule R5)."""

    complete_quiet: timedelta
    incomplete_quiet: timedelta
    hard_cap: timedelta


@dataclass(frozen=True)
class Watermark:
    """Below which free space nothing is accepted any more (A700H)."""

    max_used_fraction: float
    min_free_bytes: int
