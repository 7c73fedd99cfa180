"""A histogram of latencies as one SVG file.

Lives here: buckets and drawing: numbers in, text out. Must never live here: measuring.

Latencies spread over orders of magnitude and their tail is what matters, so the axis is
logarithmic: equal widths are equal ratios. Counts are linear, so that areas compare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from .words import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 800, 360
LEFT, RIGHT, TOP, BOTTOM = 24, 24, 122, 44
BUCKETS: Final = 72

STYLE: Final = """\
text { font: 13px system-ui, sans-serif; fill: #57606a }
.title { font-size: 18px; font-weight: 600; fill: #1f2328 }
.ground { fill: #ffffff }
.bar { fill: #2f81f7 }
.axis { stroke: #d0d7de }
.mark { stroke: #cf222e; stroke-dasharray: 3 3 }
.name { font-size: 12px; fill: #cf222e }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 }
.title { fill: #f0f6fc }
.ground { fill: #0d1117 }
.axis { stroke: #3d444d }
.mark { stroke: #ff7b72 }
.name { fill: #ff7b72 }
}"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Seconds to pixels, logarithmic."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> Axis:
        """Room for all of them, and at least a factor of ten."""
        low, high = math.log10(min(values)), math.log10(max(values))
        spare = max(0.04 * (high - low), (1 - (high - low)) / 2)
        return cls(low=low - spare, high=high + spare)

    def part(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        return (math.log10(value) - self.low) / (self.high - self.low)

    def x(self, value: float) -> float:
        """Where a value lies on the page."""
        return LEFT + self.part(value) * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        """Round values to write below it: 1, 2, 5 of each power of ten, or 1 alone if many."""
        steps = (1, 2, 5) if self.high - self.low < 3 else (1,)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        values = [step * 10.0**power for power in powers for step in steps]
        return [value for value in values if 0.03 < self.part(value) < 0.97]


def histogram_svg(
    latencies: Sequence[float], *, title: str, subtitle: str, marks: Mapping[str, float]
) -> str:
    """Draw it.

    Args:
        latencies: in seconds, at least one, all above 0.
        title, subtitle: lines of plain text.
        marks: named values to point at: percentiles.
    """
    axis = Axis.around(latencies)
    label = escape(f"{title}: {subtitle}", quote=True)
    body = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            f' width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{label}">'
        ),
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        f'<text class="title" x="{LEFT}" y="34">{escape(title)}</text>',
        f'<text x="{LEFT}" y="56">{escape(subtitle)}</text>',
        *_bars(latencies, axis),
        *_axis(axis),
        *_marks(marks, axis),
        "</svg>",
    ]
    return "\n".join(body) + "\n"


def _bars(latencies: Sequence[float], axis: Axis) -> list[str]:
    counts = [0] * BUCKETS
    for value in latencies:
        counts[min(BUCKETS - 1, int(axis.part(value) * BUCKETS))] += 1
    width, most = (WIDTH - LEFT - RIGHT) / BUCKETS, max(counts)
    bars = []
    for index, count in enumerate(counts):
        if count:
            # A single slow message stays visible beside a million fast ones.
            height = max(2.0, count / most * (HEIGHT - TOP - BOTTOM))
            x, y = LEFT + index * width, HEIGHT - BOTTOM - height
            bars.append(
                f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width - 1.5:.1f}"'
                f' height="{height:.1f}" rx="1"><title>{count}</title></rect>'
            )
    return bars


def _axis(axis: Axis) -> list[str]:
    y = HEIGHT - BOTTOM
    lines = [f'<path class="axis" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>']
    for value in axis.ticks():
        x, text = axis.x(value), _round(value)
        lines.append(f'<path class="axis" d="M{x:.1f} {y}v5"/>')
        lines.append(f'<text x="{x:.1f}" y="{y + 22}" text-anchor="middle">{text}</text>')
    return lines


def _marks(marks: Mapping[str, float], axis: Axis) -> list[str]:
    """Lines down from their names, in ascending order. The greater, the higher its name begins and
    left of its line: so no line runs through a name."""
    lines = []
    for row, (name, value) in enumerate(reversed([*marks.items()])):
        text, x = f"{name} {duration(value)}", axis.x(value)
        y = TOP - 34 + 15 * row
        fits = x - 7 * len(text) > LEFT
        where = f'x="{x - 5:.1f}" text-anchor="end"' if fits else f'x="{x + 5:.1f}"'
        lines.append(f'<path class="mark" d="M{x:.1f} {y - 10}V{HEIGHT - BOTTOM}"/>')
        lines.append(f'<text class="name" {where} y="{y}">{escape(text)}</text>')
    return lines


def _round(value: float) -> str:
    unit, size = ("s", 1.0) if value > 0.9 else ("ms", 1e-3) if value > 0.9e-3 else ("us", 1e-6)
    return f"{value / size:g} {unit}"
