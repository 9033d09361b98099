"""The distribution that masses are drawn from: margins, as BI-RADS names them, irregularities and radii."""

from enum import StrEnum

from numpy.random import Generator


class Margin(StrEnum):
    """Kind of a mass's margin (microlobulated ones are told as circumscribed)."""

    CIRCUMSCRIBED = "circumscribed"
    OBSCURED = "obscured"
    INDISTINCT = "indistinct"
    SPICULATED = "spiculated"


MARGIN_SHARES = {Margin.CIRCUMSCRIBED: 0.3, Margin.OBSCURED: 0.2, Margin.INDISTINCT: 0.25, Margin.SPICULATED: 0.25}
"""How often each is drawn."""

IRREGULARITY = {
    Margin.CIRCUMSCRIBED: (0.02, 0.12),
    Margin.OBSCURED: (0.03, 0.14),
    Margin.INDISTINCT: (0.08, 0.22),
    Margin.SPICULATED: (0.08, 0.22),
}
"""Least and largest irregularity of each."""


RADII = (2.5, 14.0)
"""Smallest and largest mean radius of a mass in mm; its logarithm is drawn evenly."""


def draw_margin(rng: Generator) -> Margin:
    """Draw one."""
    return Margin(str(rng.choice([str(margin) for margin in MARGIN_SHARES], p=list(MARGIN_SHARES.values()))))
