"""A service manager that only listens: what a process tells it (sd_notify(3)), in order."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.supervision import ServiceManager


class Listener:
    """Takes what is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0)

    def told(self) -> list[dict[str, str]]:
        """Return what was told since the last time."""
        messages: list[dict[str, str]] = []
        while True:
            try:
                message = self._socket.recv(65536).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in message.splitlines()))

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@contextmanager
def a_listener(folder: Path) -> Iterator[Listener]:
    """Listen while the context lasts; a socket's path must be short."""
    listener = Listener(folder / "notify")
    try:
        yield listener
    finally:
        listener.close()


def manager_of(listener: Listener, watchdog: float | None = 60) -> ServiceManager:
    """Return what tells a listener."""
    return ServiceManager(str(listener.path), watchdog)
