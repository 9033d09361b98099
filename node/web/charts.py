"""Small charts as inline SVG: bars and lines, with their figures in words for those who do not see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log10

from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 200
LEFT, BOTTOM, TOP, RIGHT = 52, 26, 12, 8


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name, its colour's number, and a value for each place, None where there is none."""

    name: str
    colour: int
    values: Sequence[float | None]


def bars(title: str, labels: Sequence[str], values: Sequence[float]) -> Markup:
    """Return a chart of bars."""
    top = _top(max(values, default=0))
    step = (WIDTH - LEFT - RIGHT) / max(len(values), 1)
    drawn = Markup("").join(
        Markup(
            '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2"><title>{}: {}</title></rect>'
        ).format(
            LEFT + step * number + step * 0.12,
            _y(value, top),
            step * 0.76,
            HEIGHT - BOTTOM - _y(value, top),
            label,
            f"{value:g}",
        )
        for number, (label, value) in enumerate(zip(labels, values, strict=True))
        if value > 0
    )
    told = f"{title}: {sum(values):g}"
    return _chart(told, labels, top, drawn, "")


def lines(title: str, labels: Sequence[str], drawn_lines: Sequence[Line], *, unit: str) -> Markup:
    """Return a chart of lines, with a dot at each value."""
    known = [value for line in drawn_lines for value in line.values if value is not None]
    top = _top(max(known, default=0))
    step = (WIDTH - LEFT - RIGHT) / max(len(labels), 1)
    parts = []
    for line in drawn_lines:
        places = [
            (LEFT + step * (number + 0.5), _y(value, top))
            for number, value in enumerate(line.values)
            if value is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(Markup('<polyline class="curve k{}" points="{}"/>').format(line.colour, path))
        parts += [
            Markup('<circle class="dot k{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}: {}</title></circle>').format(
                line.colour, x, y, line.name, f"{value:.1f} {unit}".strip()
            )
            for (x, y), value in zip(places, [value for value in line.values if value is not None], strict=True)
        ]
    last = "; ".join(
        f"{line.name} {next((v for v in reversed(line.values) if v is not None), 0):.1f} {unit}" for line in drawn_lines
    )
    return _chart(f"{title}, last: {last}", labels, top, Markup("").join(parts), unit)


def sparkline(values: Sequence[float], told: str) -> Markup:
    """Return bars without axes, for a row of a table."""
    top = max(*values, 1) if values else 1
    drawn = Markup("").join(
        Markup('<rect class="bar" x="{}" y="{:.1f}" width="6" height="{:.1f}"/>').format(
            8 * number, 28 - max(26 * value / top, 1), max(26 * value / top, 1)
        )
        for number, value in enumerate(values)
    )
    return Markup('<svg class="spark" viewBox="0 0 {} 28" role="img" aria-label="{}">{}</svg>').format(
        8 * len(values), told, drawn
    )


def _chart(told: str, labels: Sequence[str], top: float, drawn: Markup, unit: str) -> Markup:
    step = (WIDTH - LEFT - RIGHT) / max(len(labels), 1)
    every = max(ceil(len(labels) / 8), 1)
    ticks = Markup("").join(
        Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            LEFT + step * (number + 0.5), HEIGHT - 8, label
        )
        for number, label in enumerate(labels)
        if number % every == 0
    )
    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/><text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
        ).format(
            LEFT,
            WIDTH - RIGHT,
            _y(value, top),
            LEFT - 6,
            _y(value, top) + 4,
            f"{value:g}{' ' + unit if unit and value == top else ''}",
        )
        for value in (0, top / 2, top)
    )
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>').format(
        WIDTH, HEIGHT, escape(told), grid, drawn, ticks
    )


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top


def _top(largest: float) -> float:
    """Return the next round number above."""
    if largest <= 0:
        return 1
    power = 10 ** int(log10(largest)) if largest >= 1 else 1
    return float(next(factor * power for factor in (1, 2, 4, 5, 10) if factor * power >= largest))
