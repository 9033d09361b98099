"""What benchmarks measure, and the one table that they make of it: this node, who it is compared with, and the ratio."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

US, LIMIT = "mammonode", "limit"


@dataclass(frozen=True)
class Value:
    """One measured value.

    Attributes
    ----------
    measure, unit
        What was measured.
    name
        Of whom: `US`, a peer, or `LIMIT`, which is what the machine allows.
    value
        The figure.
    more
        Whether more is better.
    """

    measure: str
    unit: str
    name: str
    value: float
    more: bool = False


@dataclass(frozen=True)
class Required:
    """What a measure has to reach.

    Attributes
    ----------
    measure
        Beginning of its name.
    than
        Whom it is compared with; '' for a figure by itself.
    bound
        Of our figure divided by the other's, or of the figure: the least where more is better, else the most.
    """

    measure: str
    than: str
    bound: float


Runs = dict[str, dict[str, list[float]]]
"""Measure → name → values, one a round."""


class Collected:
    """All values so far."""

    def __init__(self) -> None:
        self.runs: Runs = {}
        self.units: dict[str, tuple[str, bool]] = {}

    def add(self, value: Value) -> None:
        """Take one."""
        self.units[value.measure] = (value.unit, value.more)
        self.runs.setdefault(value.measure, {}).setdefault(value.name, []).append(value.value)

    def document(self) -> dict[str, object]:
        """Return all of it for a file."""
        return {
            measure: {"unit": self.units[measure][0], "more": self.units[measure][1], "runs": runs}
            for measure, runs in self.runs.items()
        }

    def table(self, required: Sequence[Required], before: Mapping[str, float]) -> Table:
        """Return the table: a line for each measure and each that it is compared with.

        Parameters
        ----------
        before
            Our medians of another run, for comparison; empty without one.
        """
        table = Table("measured", "unit", box=None, pad_edge=False)
        for heading in ("us", "other", "us / other", "required", *(["before", "us / before"] if before else [])):
            table.add_column(heading, justify="right")
        table.add_column("other is")
        for measure, runs in self.runs.items():
            unit, more = self.units[measure]
            own = runs.get(US, [])
            for number, name in enumerate(_others(runs)):
                cells = [
                    measure if number == 0 else "",
                    unit if number == 0 else "",
                    _figure(own) if number == 0 else "",
                ]
                ratio = _ratio(own, runs[name]) if name and own else None
                figure = ratio if name else (statistics.median(own) if own else None)
                cells += [_figure(runs.get(name, [])), "" if ratio is None else f"{ratio:.2f}"]
                cells.append(_verdict(measure, name, figure, required, more=more))
                if before:
                    former = before.get(measure) if number == 0 else None
                    cells += ["" if former is None else f"{former:.3g}"]
                    cells += ["" if not former or not own else f"{statistics.median(own) / former:.2f}"]
                table.add_row(*cells, name)
        return table


def medians(document: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> dict[str, float]:
    """Return our medians of what `Collected.document` made."""
    return {measure: statistics.median(kept["runs"][US]) for measure, kept in document.items() if kept["runs"].get(US)}


def _others(runs: Iterable[str]) -> list[str]:
    return [name for name in runs if name != US] or [""]


def _figure(values: Sequence[float]) -> str:
    if not values:
        return ""
    median = statistics.median(values)
    return f"{median:.0f}" if median >= 100 else f"{median:.3g}"


def _ratio(own: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: what slows a round down slows both."""
    return statistics.median(mine / its for mine, its in zip(own, other, strict=False) if its)


def _verdict(measure: str, name: str, figure: float | None, required: Sequence[Required], *, more: bool) -> str:
    for rule in required:
        if figure is not None and measure.startswith(rule.measure) and name == rule.than:
            met = figure >= rule.bound if more else figure <= rule.bound
            return f"{'≥' if more else '≤'} {rule.bound:g} {'yes' if met else 'NO'}"
    return ""
