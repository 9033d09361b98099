"""How a worker's GPU does, as its driver says; no torch, and nothing where there is none."""

import shutil
import subprocess

from storage.workers import Gpu

WITHIN = 10.0
"""Seconds."""


class GpuDriver:
    """Asked how the GPU does that a worker reads on.

    One that hangs keeps whoever asks it in the kernel, where no signal ends it: its answer is not waited for, and it is not
    asked again before that one has ended.

    Parameters
    ----------
    device
        ``cpu``, ``cuda`` or ``cuda:N``.
    visible
        CUDA_VISIBLE_DEVICES: which GPU the N-th is.
    within
        Seconds that an answer may take.
    """

    def __init__(self, device: str, visible: str = "", within: float = WITHIN) -> None:
        number = int(device.partition(":")[2] or 0)
        ids = [each.strip() for each in visible.split(",") if each.strip()]
        self._chosen = ids[number] if number < len(ids) else str(number)
        self._program = shutil.which("nvidia-smi") if device.startswith("cuda") else None
        self._within = within
        self._hangs: subprocess.Popen[str] | None = None

    def now(self) -> Gpu:
        """Return what it says, or nothing."""
        if self._program is None or (self._hangs is not None and self._hangs.poll() is None):
            return Gpu()
        asked = "--query-gpu=name,memory.used,memory.total,utilization.gpu"
        command = [self._program, f"--id={self._chosen}", asked, "--format=csv,noheader,nounits"]
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603
        except OSError:
            return Gpu()
        try:
            said, _ = process.communicate(timeout=self._within)
        except subprocess.TimeoutExpired:
            process.kill()
            if process.stdout:
                process.stdout.close()
            self._hangs = process
            return Gpu()
        return parsed(said) if process.returncode == 0 else Gpu()


def parsed(line: str) -> Gpu:
    """Return what ``nvidia-smi`` says in one line of CSV: name, MiB used, MiB, per cent."""
    try:
        name, used, total, busy = (each.strip() for each in line.strip().splitlines()[0].rsplit(",", 3))
    except (IndexError, ValueError):
        return Gpu()
    busy_share = _number(busy)
    return Gpu(name, _mebibytes(used), _mebibytes(total), None if busy_share is None else busy_share / 100)


def _mebibytes(text: str) -> int | None:
    number = _number(text)
    return None if number is None else int(number * 1024 * 1024)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return None
