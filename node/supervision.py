"""What a service manager is told (sd_notify(3)): ready, what goes on, stopping, signs of life; what parts know of their parent."""

import ctypes
import os
import signal
import socket
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Self

PARENT = "MAMMONODE_PARENT"
"""Environment variable with the number of the process that has started this one as a part of itself."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


@dataclass(frozen=True)
class ServiceManager:
    """The service manager that has started this process; without one nothing is told to anybody.

    Attributes
    ----------
    address
        Of its socket: a path, or ``@`` and a name in the abstract name space; '' without a service manager.
    watchdog
        Seconds after which it ends a process that gave no sign of life; None when it does not.
    """

    address: str = ""
    watchdog: float | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the one that this process was started by; a watchdog that is meant for another process is not ours."""
        microseconds = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog = int(microseconds) / 1e6 if ours and microseconds.isdecimal() and int(microseconds) else None
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog)

    def ready(self, status: str) -> None:
        """Tell that the service does its work, after its start or a reload."""
        self._tell("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Tell what goes on."""
        self._tell(f"STATUS={status}")

    def reloading(self) -> None:
        """Tell that the settings are being read again; ``ready`` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Tell that the service ends."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """Tell that work goes on."""
        if self.watchdog is not None:
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        message = "\n".join(line.replace("\n", " ") for line in lines)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            try:
                channel.sendto(message.encode(), address)
            except OSError:  # a service manager that is gone must not end the service
                return


def end_with_parent(environment: Mapping[str, str] = os.environ) -> None:
    """Have the kernel send SIGTERM to a part of ``mammonode up`` when that is gone, however it ended (prctl(2))."""
    if parent := environment.get(PARENT):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it ended before
            signal.raise_signal(signal.SIGTERM)


def for_children(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Return an environment without what only the process itself may tell the service manager, and with who that is."""
    return {name: value for name, value in environment.items() if name not in VARIABLES} | {PARENT: str(os.getpid())}
