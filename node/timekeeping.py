"""Whether this machine's clock is kept by another: exams are told apart, and certificates judged, by its time."""

import ctypes
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from node.telemetry import logger

log = logger("timekeeping")

TIMEX: Final = struct.Struct("@Illllilll")
"""The first fields of struct timex (adjtimex(2)): modes, offset, freq, maxerror, esterror, status …"""
ROOM: Final = 512
"""Bytes; the whole structure takes 208."""
UNSYNCHRONISED: Final = 0x0040
NANOSECONDS: Final = 0x2000
"""Bits of its status: nobody keeps the clock; the offset is in ns, not µs."""
OFF: Final = 1.0
"""Seconds by which a clock is too far off, though it is being put right: those of two machines tell the order of events."""
JUMP: Final = 60.0
"""Seconds that a clock goes at once, and not by being put right little by little: 0.3 s in ten minutes (adjtimex(2))."""
FORWARD: Final = 3600.0
DOUBTED: Final = 86400.0
"""Seconds by which, and for which, a clock that went forward is not believed to say what is old."""


@dataclass(frozen=True)
class ClockState:
    """What is known of the clock.

    Attributes
    ----------
    synchronised
        Whether somebody (chrony, ntpd, systemd-timesyncd, the host of a virtual machine) keeps it; None: not to be found
        out here.
    offset
        Seconds by which it is still to be put right; None where only the service knows.
    error
        Seconds by which it may be wrong at most, as the kernel reckons; None as above.
    """

    synchronised: bool | None
    offset: float | None = None
    error: float | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether somebody should look at it."""
        return self.synchronised is False or abs(self.offset or 0.0) > OFF

    @property
    def words(self) -> str:
        """The same for people."""
        if self.synchronised is None:
            return "cannot be found out here"
        told = "kept by NTP" if self.synchronised else "not kept by NTP"
        off = "" if self.offset is None else f", {self.offset:+.3f} s to go"
        return f"{told}{off}" + ("" if self.error is None else f", wrong by at most {self.error:.3f} s")


def clock_state() -> ClockState:
    """Ask the kernel; where a sandbox forbids that, systemd."""
    return _of_the_kernel() or _of_systemd()


def _of_the_kernel() -> ClockState | None:
    try:
        ask = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):  # no glibc, no Linux
        return None
    answer = ctypes.create_string_buffer(ROOM)
    # With modes 0 it changes nothing, and anybody may ask.
    return None if ask(answer) < 0 else read_timex(answer.raw)


def read_timex(raw: bytes) -> ClockState:
    """Return what a struct timex says."""
    _, offset, _, error, _, status, *_ = TIMEX.unpack_from(raw)
    unit = 1e9 if status & NANOSECONDS else 1e6
    return ClockState(not status & UNSYNCHRONISED, offset / unit, error / 1e6)


def _of_systemd() -> ClockState:
    program = shutil.which("timedatectl")
    if program is None:
        return ClockState(None)
    command = [program, "show", "--property=NTPSynchronized", "--value"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()  # noqa: S603 (constant)
    except (OSError, subprocess.TimeoutExpired):
        return ClockState(None)
    return ClockState({"yes": True, "no": False}.get(told))


def since_boot() -> float:
    """Return seconds that nobody puts forward or back; those that the machine slept count."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Timekeeping:
    """Looks at the clock now and then, and tells when somebody should.

    Parameters
    ----------
    ask
        Returns what is known of the clock.
    wall, steady
        Return seconds: by the clock, and by one that never jumps.
    """

    def __init__(
        self,
        ask: Callable[[], ClockState] = clock_state,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = since_boot,
    ) -> None:
        self._ask = ask
        self._wall = wall
        self._steady = steady
        self._apart = wall() - steady()
        self._ahead, self._ahead_since = 0.0, 0.0
        self.last = ClockState(None)

    def is_doubtful(self) -> bool:
        """Tell whether the clock went forward within a day and not back: what is old by it may be young."""
        self._compare()
        return self._ahead > FORWARD

    def tick(self) -> None:
        """Look, and tell what has changed."""
        self._compare()
        before, self.last = self.last, self._ask()
        if self.last.is_wrong and not before.is_wrong:
            log.warning("clock not kept", offset=self.last.offset, cause=self.last.words)
        elif before.is_wrong and self.last.synchronised and not self.last.is_wrong:
            log.info("clock kept again", offset=self.last.offset)

    def _compare(self) -> None:
        steady = self._steady()
        if steady - self._ahead_since >= DOUBTED:
            self._ahead = 0.0
        before, self._apart = self._apart, self._wall() - steady
        by = self._apart - before
        if abs(by) < JUMP:
            return
        log.warning("clock jumped", seconds=round(by))
        if by > 0:
            self._ahead_since = steady
        self._ahead = max(self._ahead + by, 0.0)
