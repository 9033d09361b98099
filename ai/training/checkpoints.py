"""The state of a training run on disk."""

import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ai.errors import DamagedCheckpoint, Diverged, ForeignCheckpoint
from ai.training.durable import whole_file


def save_checkpoint(path: Path, plan: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a state, together with what decides what the run learns."""
    with whole_file(path) as file:
        torch.save({"plan": json.dumps(plan, sort_keys=True), **state}, file)


def load_checkpoint(path: Path, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state, on the CPU; None when there is none.

    Raises
    ------
    ForeignCheckpoint
        When it is another plan's; what differs is named.
    DamagedCheckpoint
        When it cannot be read.
    """
    if not path.exists():
        return None
    with damage_named(path):
        with zipfile.ZipFile(path) as archive:  # torch writes checksums and does not read them
            broken = archive.testzip()
        if broken is not None:
            raise DamagedCheckpoint(f"{path}: {broken} has another checksum")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        there = state["plan"]
    now = json.dumps(plan, sort_keys=True)
    if there != now:
        raise ForeignCheckpoint(f"{path} differs in {', '.join(_differences(there, json.loads(now)))}")
    return state


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what fails while a checkpoint is taken up into :class:`DamagedCheckpoint`."""
    try:
        yield
    except (
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        raise DamagedCheckpoint(
            f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error


def export(state: Mapping[str, Tensor], path: Path) -> Path:
    """Write tensors as safetensors, floats in half precision.

    Raises
    ------
    Diverged
        When a value is beyond half precision, 65504.
    """
    tensors = {k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in state.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise Diverged(f"{name} is beyond what half precision can hold.")
    with whole_file(path) as file:  # safetensors' own save_file makes a file that its owner alone can read
        file.write(save(tensors))
    return path


def _differences(there: object, now: Mapping[str, Any]) -> list[str]:
    """Name the keys, to the second level, in which two plans differ."""
    before = json.loads(there) if isinstance(there, str) else {}
    keys = []
    for key in sorted(now.keys() | before.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            keys += [f"{key}.{k}" for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
        elif old != new:
            keys.append(key)
    return keys
