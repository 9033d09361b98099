"""From exec to the first answered C-ECHO, what idling costs, and how long commands take that need no model."""

import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from benchmarks import receivers
from benchmarks.sender import associate, exactly
from benchmarks.values import US, Value

VERIFICATION = b"1.2.840.10008.1.1"
ASSOCIATIONS = 20
SETTLES = 15
"""Seconds after which a node does nothing more of its start: what it has written meanwhile has woken all its loops."""
IDLE_SECONDS = 30
LOADS = 60
"""Seconds after which a worker beside it has loaded its model, tried it, and waits."""
KNOCKS = 120
"""Seconds in which the node knocks once at its own doors."""
FOLDER = Path(".artefacts/bench")
COMMANDS = ("--help", "exams", "exams --json", "jobs", "lanes", "destinations", "senders", "tokens list")


def values(repeats: int) -> Iterator[Value]:
    """Yield seconds and percents of one core."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        for repeat in range(repeats + 1):  # the first one makes the database, and warms up
            for name in (US, "storescp", "orthanc"):
                if not receivers.is_missing(name):
                    place = Path(scratch, name)
                    place.mkdir(exist_ok=True)
                    found = list(_life(name, place))
                    yield from found if repeat else ()
            environment = os.environ | {"MAMMONODE_STORAGE__FOLDER": str(Path(scratch, US, "store"))}
            # As it is installed: what was compiled is kept, and the first round keeps it.
            environment["PYTHONPYCACHEPREFIX"] = str(Path(scratch, "compiled"))
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            for command in COMMANDS:
                began = time.perf_counter()
                words = [sys.executable, "-P", "-m", "node", *command.split()]
                subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=True)
                if repeat:
                    yield Value(f"command {command}", "s", US, time.perf_counter() - began)
        yield from _whole(Path(scratch, "whole"))


def _life(name: str, place: Path) -> Iterator[Value]:
    began = time.perf_counter()
    running = receivers.RECEIVERS[name](place)
    try:
        port = running.ports["store"]
        while time.perf_counter() - began < 60:
            with suppress(OSError), _associated(port):
                break
            time.sleep(0.01)
        yield Value("exec to C-ECHO", "s", name, time.perf_counter() - began)
        if name != US:
            return
        time.sleep(2)
        yield Value("idle memory", "MB", name, running.server.memory())
        time.sleep(SETTLES)
        alone = _percent(running)
        yield Value("idle processor", "% of a core", name, alone)
        with ExitStack() as stack:
            for _ in range(ASSOCIATIONS):
                stack.enter_context(_associated(port))
            many = _percent(running)
        yield Value("idle association", "% of a core", name, max(0.0, many - alone) / ASSOCIATIONS)
    finally:
        running.server.stop()


def _whole(place: Path) -> Iterator[Value]:
    """Yield what doors and a worker cost that wait, a knock of the node at its own doors included."""
    place.mkdir()
    running = receivers.node(place, "up")
    try:
        running.server.wait()
        time.sleep(LOADS)
        yield Value("idle processor, doors and worker", "% of a core", US, _percent(running, KNOCKS))
        yield Value("idle memory, doors and worker", "MB", US, running.server.memory())
    finally:
        running.server.stop()


def _percent(running: receivers.Running, seconds: float = IDLE_SECONDS) -> float:
    time.sleep(0.5)
    before, began = running.server.cpu(), time.perf_counter()
    time.sleep(seconds)
    return 100 * (running.server.cpu() - before) / (time.perf_counter() - began)


def _associated(port: int) -> "closing[socket.socket]":
    """Return an association on which a C-ECHO was answered.

    Raises
    ------
    OSError
        When there is nobody, or no answer.
    """
    line = socket.create_connection(("127.0.0.1", port), 10)
    line.sendall(associate(VERIFICATION))
    _, _, length = struct.unpack(">BBI", exactly(line, 6))
    exactly(line, length)
    elements = ((0x0002, VERIFICATION + b"\0"), (0x0100, b"\x30\0"), (0x0110, b"\1\0"), (0x0800, b"\1\1"))
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in elements)
    command = struct.pack("<HHII", 0, 0, 4, len(body)) + body
    line.sendall(struct.pack(">BBIIBB", 4, 0, len(command) + 6, len(command) + 2, 1, 3) + command)
    _, _, length = struct.unpack(">BBI", exactly(line, 6))
    exactly(line, length)
    return closing(line)
