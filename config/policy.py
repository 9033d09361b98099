"""Policies as values: when to try again, when an exam is complete, when the disk is full."""

from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Self


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

    def since(self, begun: datetime, due: datetime, now: datetime) -> datetime:
        """Return when it began, moved on by what went by while it was due and not tried: held, paused, off, a clock ahead.

        Parameters
        ----------
        begun
            When the first attempt was made, moved on so far.
        due
            When this one was to be made.
        """
        idle = now - due
        moved = idle if idle > self.slow else timedelta(0)
        return min(begun + moved, now)


@dataclass(frozen=True)
class RecallLimit:
    """From which exam score on a site looks twice.

    Attributes
    ----------
    score
        1 to 100.
    band
        Points on both sides of it within which an exam is borderline.
    senders
        AE titles whose exams it is for; none: all.
    """

    score: int
    band: int = 0
    senders: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScorePolicy:
    """What a site makes of scores.

    Attributes
    ----------
    prevalence
        Share of its exams with cancer, 0 to 1, exclusive; None: no probabilities are told.
    limits
        The first that is for an exam's sender counts.
    """

    prevalence: float | None = None
    limits: tuple[RecallLimit, ...] = ()

    def limit(self, sender: str) -> RecallLimit | None:
        """Return the limit for exams of a sender."""
        return next((limit for limit in self.limits if not limit.senders or sender in limit.senders), None)


@dataclass(frozen=True)
class CompletionPolicy:
    """When an exam's images are taken to be all there (rule R5)."""

    complete_quiet: timedelta
    incomplete_quiet: timedelta
    hard_cap: timedelta


@dataclass(frozen=True)
class Window:
    """A part of every day, in local time; one that begins later than it ends goes on past midnight."""

    begin: time
    end: time

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the window of a text such as ``22:00-06:00``.

        Raises
        ------
        ValueError
            When it is none, or is empty.
        """
        begin, _, end = text.partition("-")
        window = cls(time.fromisoformat(begin.strip()), time.fromisoformat(end.strip()))
        if window.begin == window.end:
            raise ValueError("a window must end at another time than it begins")
        return window

    def __contains__(self, at: time) -> bool:
        """Tell whether a local time lies in it; the end does not."""
        if self.begin < self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end


@dataclass(frozen=True)
class BucketPlace:
    """An S3-compatible bucket, and who we are to it.

    Attributes
    ----------
    name, prefix
        Of the bucket, and what our objects' names begin with.
    endpoint
        URL of the server; empty for Amazon S3.
    region
        Which signatures name.
    access_key_id, secret_access_key
        With which requests are signed.
    ca
        File with authorities beside the system's; empty for none.
    plain_http
        Whether the endpoint may be one without TLS.
    keep_bytes
        What copies on the local disk may take.
    """

    name: str
    prefix: str
    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    ca: str = ""
    plain_http: bool = False
    keep_bytes: int = 0


@dataclass(frozen=True)
class PriorPolicy:
    """Which exams are priors, and whether they are told so.

    Attributes
    ----------
    days
        An exam is a prior when its study was older than this when its first image came; 0 takes none for one.
    answered
        Whether a prior is answered "not analysed".
    """

    days: int = 0
    answered: bool = True

    def is_prior(self, study_date: date, received: date) -> bool:
        """Tell whether a study is a prior."""
        return 0 < self.days < (received - study_date).days


@dataclass(frozen=True)
class RetentionPolicy:
    """When files are removed; their records stay.

    Attributes
    ----------
    sources, results
        Age of an exam's last image after which its images, and its results, are removed; None keeps them.
    max_used_fraction
        Above which the images of the oldest exams are removed, whatever their age; None never does so.
    unproven
        Whether that may happen although the exam's results did not reach a destination.
    """

    sources: timedelta | None = None
    results: timedelta | None = None
    max_used_fraction: float | None = None
    unproven: bool = False


@dataclass(frozen=True)
class Watermark:
    """Below which free space nothing is accepted any more (A700H)."""

    max_used_fraction: float
    min_free_bytes: int
