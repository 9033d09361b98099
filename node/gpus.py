"""How a worker's GPU does, as its driver says; no torch, and nothing where there is none."""

import shutil
import subprocess

from storage.workers import Gpu

WITHIN = 10.0


def gpu_now(device: str, visible: str = "") -> Gpu:
    """Return how the GPU does that a worker reads on.

    Parameters
    ----------
    device
        ``cpu``, ``cuda`` or ``cuda:N``.
    visible
        CUDA_VISIBLE_DEVICES: which GPU the N-th is.
    """
    program = shutil.which("nvidia-smi")
    if not device.startswith("cuda") or program is None:
        return Gpu()
    number = int(device.partition(":")[2] or 0)
    ids = [each.strip() for each in visible.split(",") if each.strip()]
    chosen = ids[number] if number < len(ids) else str(number)
    asked = "--query-gpu=name,memory.used,memory.total,utilization.gpu"
    command = [program, f"--id={chosen}", asked, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return Gpu()
    return parsed(done.stdout)


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
