"""Readers of Oulu and of Marita et al., whose networks mark what is bright."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.models import a_model, by_brightness, untrained

if TYPE_CHECKING:
    from torch import nn

    from ai.readers.base import Reader

THRESHOLDS = {"mass": 0.5, "candidate": 0.5}
OULU = {"network": "plain_unet", "options": {"widths": [1]}, "canvas": [512, 512], "mean": 0.5, "std": 0.1}
MARITA = {"network": "tile_unet", "options": {"widths": [1]}, "tile": 128, "reduction": 2}


def bright(name: str, slope: float, middle: float) -> "nn.Module":
    """Return a network that marks what is brighter than ``middle``, in the units of its input."""
    return by_brightness(untrained(name, {"widths": [1]}), slope, -slope * middle)


def loaded(
    folder: Path, reader: str, architecture: dict[str, Any], thresholds: dict[str, float], *folds: "nn.Module"
) -> "Reader":
    """Return a reader on the processor."""
    from ai.readers.registry import load_reader

    networks = {f"fold-{number}": fold for number, fold in enumerate(folds)}
    return load_reader(a_model(folder, reader, architecture, thresholds, networks), "cpu")


def oulu(folder: Path, *folds: "nn.Module", **changes: Any) -> "Reader":
    """Return Oulu's reader; without folds its network marks pixels above 0.8, which are 3 in its units."""
    return loaded(folder, "oulu", OULU | changes, THRESHOLDS, *(folds or [bright("plain_unet", 4, 3)]))


def marita(folder: Path, *folds: "nn.Module", dark: float = 0.05, **changes: Any) -> "Reader":
    """Return the reader of Marita et al.; without folds its network marks pixels above 0.8 of a tile's brightest."""
    thresholds = THRESHOLDS | {"dark": dark}
    return loaded(folder, "marita", MARITA | changes, thresholds, *(folds or [bright("tile_unet", 40, 0.8)]))


def marita_overlapped(folder: Path, *folds: "nn.Module", **changes: Any) -> "Reader":
    """Return the same on tiles that overlap."""
    return marita(folder, *folds, overlapped=True, **changes)
