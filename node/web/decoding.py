"""Decoding pixels for the HTTP door, never in its own process: a native decoder that aborts must not take it down."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, Final

from node.errors import NotRenderable, Overloaded
from node.telemetry import logger

log = logger("web")

SECONDS: Final = 60.0
"""That one task may take."""
PATIENCE: Final = 30.0
"""Seconds that a request waits for a decoder to be free."""
TASKS: Final = 500
"""After so many a process is replaced: native decoders leak."""
COMMAND: Final = (sys.executable, "-P", "-m", "node.web.decoder")


class Decoders:
    """Processes that decode, started when they are needed.

    Parameters
    ----------
    number
        How many at once.
    seconds
        How long one task may take.
    command
        What is started.
    """

    def __init__(self, number: int = 2, seconds: float = SECONDS, command: Sequence[str] = COMMAND) -> None:
        self._seconds = seconds
        self._command = tuple(command)
        self._free: LifoQueue[_Process | None] = LifoQueue()
        for _ in range(number):
            self._free.put(None)

    def frame(self, path: Path, number: int) -> bytes:
        """Return a frame, counted from 1, as it is in Explicit VR Little Endian.

        Raises
        ------
        NotRenderable
            When it cannot be decoded.
        Overloaded
            When all processes were busy for too long.
        """
        return self._do({"do": "frame", "path": str(path), "number": number})

    def native(self, path: Path, target: Path) -> None:
        """Write an instance to another file in Explicit VR Little Endian; raises as `frame` does."""
        self._do({"do": "native", "path": str(path), "target": str(target)})

    def picture(self, path: Path, number: int, **how: Any) -> bytes:
        """Return a frame as JPEG or PNG; raises as `frame` does.

        Parameters
        ----------
        how
            ``format`` (``.jpg``, ``.png``), ``quality`` (1 to 100), ``size`` to fit into (width, height) and whether to
            ``enlarge`` for it, ``region`` (left, top, width, height), ``window`` (centre, width, function).
        """
        return self._do({"do": "picture", "path": str(path), "number": number, **how})

    def close(self) -> None:
        """End the processes that are free."""
        while True:
            try:
                process = self._free.get_nowait()
            except Empty:
                return
            if process:
                process.end()

    def _do(self, task: Mapping[str, Any]) -> bytes:
        try:
            process = self._free.get(timeout=PATIENCE)
        except Empty:
            raise Overloaded("all decoders are busy") from None
        try:
            process = process or _Process(self._command)
            answer, data = process.do(task, self._seconds)
        except (OSError, ValueError, TimeoutError) as error:
            if process:
                process.end()
            process = None
            log.warning("a decoder was ended", do=task["do"], cause=type(error).__name__)
            raise NotRenderable from error
        finally:
            if process and process.done >= TASKS:
                process.end()
                process = None
            self._free.put(process)
        if "error" in answer:
            raise NotRenderable(answer["error"])
        return data


class _Process:
    def __init__(self, command: Sequence[str]) -> None:
        self.done = 0
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )

    def do(self, task: Mapping[str, Any], seconds: float) -> tuple[Mapping[str, Any], bytes]:
        """Give a task and return the answer.

        Raises
        ------
        OSError, ValueError, TimeoutError
            When the process has ended, or takes too long.
        """
        self.done += 1
        deadline = time.monotonic() + seconds
        assert self._process.stdin  # noqa: S101 - a pipe was asked for
        self._process.stdin.write(json.dumps(task).encode() + b"\n")
        self._process.stdin.flush()
        head = self._read_until(deadline)
        line, _, data = head.partition(b"\n")
        answer = json.loads(line)
        pieces, left = [data], int(answer.get("size", 0)) - len(data)
        while left > 0:
            pieces.append(self._some(deadline))
            left -= len(pieces[-1])
        return answer, b"".join(pieces)

    def _read_until(self, deadline: float) -> bytes:
        head = b""
        while b"\n" not in head:
            head += self._some(deadline)
        return head

    def _some(self, deadline: float) -> bytes:
        assert self._process.stdout  # noqa: S101 - a pipe was asked for
        handle = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(handle, selectors.EVENT_READ)
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise TimeoutError
        data = os.read(handle, 1 << 20)
        if not data:
            raise BrokenPipeError
        return data

    def end(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
