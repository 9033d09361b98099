"""FROC and ROC curves and reliability as figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ai.calibration import Level
from ai.evaluation.calibration import Reliability, Scored
from ai.evaluation.detection import Curve, Events
from ai.evaluation.statistics import auc

LIMITS: Final = (0.02, 10.0)
"""False positives per image that are shown."""
TICKS: Final = (0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)


@dataclass(frozen=True, eq=False)
class Froc:
    """A curve with a name.

    Attributes
    ----------
    name
        For the legend.
    fppi, sensitivity
        Shape (n,), rising, of equal length; no points at all give an empty entry of the legend.
    published
        False positives per image to the sensitivity that a paper printed; on its own data, so beside the curve.
    """

    name: str
    fppi: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    published: Mapping[float, float] = field(default_factory=dict)


def froc(name: str, events: Sequence[Events], published: Mapping[float, float] | None = None) -> Froc:
    """Return the curve of some images."""
    _, found, false = Curve(events).points()
    return Froc(name, false, found, published or {})


def plot_froc(curves: Sequence[Froc], path: Path, title: str) -> Path:
    """Draw curves over a logarithmic axis, published points as open circles in the curve's colour.

    Parameters
    ----------
    path
        Its suffix says the format: .png or .svg.
    title
        What was scored, and by which rule.
    """
    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    styles = ("-", "--", ":")
    for number, curve in enumerate(curves):
        colour = f"C{number % 10}"
        line = styles[number // 10 % len(styles)]
        x = np.concatenate([[LIMITS[0]], np.clip(curve.fppi, *LIMITS), [LIMITS[1]]])
        best = np.maximum.accumulate(np.concatenate([[0.0], curve.sensitivity]))
        start = best[np.searchsorted(curve.fppi, LIMITS[0], side="right")]
        y = np.concatenate([[start], np.maximum(best[1:], start), [best[-1]]])
        axes.step(x, y, line, where="post", color=colour, label=curve.name, linewidth=1.5)
        if curve.published:
            axes.plot(
                list(curve.published), list(curve.published.values()), "o", color=colour, fillstyle="none", markersize=6
            )
    axes.set_xscale("log")
    axes.set_xlim(*LIMITS)
    axes.set_ylim(0, 1)
    axes.set_xticks(TICKS, [f"{t:g}" for t in TICKS])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.set_xlabel("false positives per image")
    axes.set_ylabel("sensitivity per mass")
    axes.set_title(title, fontsize=11)
    handles, _ = axes.get_legend_handles_labels()
    if any(curve.published for curve in curves):
        handles += axes.plot(
            [], [], "o", color="grey", fillstyle="none", label="published, on the paper's own data, by its rule"
        )
    axes.legend(handles=handles, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def plot_roc(levels: Mapping[Level, Sequence[Scored]], path: Path, title: str) -> Path:
    """Draw sensitivity against the share of others that are called cancer, a curve for each level."""
    figure = Figure(figsize=(5.6, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for level, scored in levels.items():
        score, cancer = np.array([s.score for s in scored]), np.array([s.cancer for s in scored], bool)
        above = score[None] >= np.arange(101, -1, -1)[:, None]
        label = f"{level}: {auc(score.tolist(), cancer.tolist()):.2f} of {len(scored)}"
        axes.plot(above[:, ~cancer].mean(1), above[:, cancer].mean(1), label=label, linewidth=1.5)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    _square(axes, "share of the others at or above the score", "share of the cancers at or above the score", title)
    axes.legend(fontsize=8, loc="lower right", title="area under the curve", title_fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def plot_reliability(levels: Mapping[Level, Reliability], path: Path, title: str) -> Path:
    """Draw, for each level, the share of cancers against the probability that was told, by bins of equal count."""
    figure = Figure(figsize=(10.4, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (level, told) in zip(figure.subplots(1, len(levels), squeeze=False)[0], levels.items(), strict=True):
        said, true, count = told.points.T
        spread = 1.96 * np.sqrt(true * (1 - true) / count)
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        axes.errorbar(
            said,
            true,
            yerr=np.stack([np.minimum(spread, true), np.minimum(spread, 1 - true)]),
            fmt="o-",
            markersize=4,
            linewidth=1,
        )
        _square(axes, "probability told", "share of cancers", f"{level}: {told.count}, error {told.error.value:.2f}")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    return path


def _square(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(alpha=0.3)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.set_title(title, fontsize=10)
