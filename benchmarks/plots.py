"""The pictures: figures in, one SVG for each out.

    python -m benchmarks.plots FILE.json FOLDER    # FILE is what the benchmarks wrote with --json

Lives here: drawing panels of bars, panels of dots, charts of curves. Must never live here: which
figures there are and what they say (`figures`, `words`).

The same document gives the same bytes: no date, no random name, no setting of the user's.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .canvas import CARD, DASHED, EDGE, GRID, HEAD, INK, MARGIN, PALE, WIDTH, Canvas, style
from .figures import figures
from .places import LogScale, apart
from .words import COLOURS, RAW, kind_of, label_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .figures import Chart, Figure, Mark, Panel
    from .report import Spread

NAMES: Final = 190.0
"""Width of the names of the servers, left of their bars."""

ROW: Final = 28.0
BAR: Final = 17.0
PANEL_HEAD: Final = 48.0
RAW_HEAD: Final = 18.0
"""Title and unit, and the words at the line of `raw` where there is one."""

SPACE: Final = 9.0
"""Between the end of a bar and its number."""

BETWEEN: Final = 26.0
COLUMNS: Final = 2
CHART: Final = 250.0
CHART_HEAD: Final = 52.0
CHART_FOOT: Final = 72.0
MARKERS: Final = {"trio-websocket": "s", "aiohttp": "s", "picows": "^"}
"""Curves of one colour differ in their marks."""


def write(document: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what `document` has measurements for.

    Returns:
        The files written, all in `folder`, which is made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for figure in figures(document):
        path = folder / f"{figure.name}.svg"
        with style():
            draw(figure).save(path)
        paths.append(path)
    return paths


def draw(figure: Figure) -> Canvas:
    """The figure on its card."""
    return _bars(figure) if figure.panels else _curves(figure)


# -- bars and dots -------------------------------------------------------------------------------


def _bars(figure: Figure) -> Canvas:
    """Panels side by side, the names of the servers once for each line of panels."""
    servers = [server for server in figure.servers if server != RAW]
    columns = min(COLUMNS, len(figure.panels))
    lines = -(-len(figure.panels) // columns)
    head = PANEL_HEAD + (RAW_HEAD if RAW in figure.servers else 0.0)
    tall = head + ROW * len(servers) + BETWEEN
    canvas = Canvas(figure, tall * lines - BETWEEN)
    wide = (WIDTH - 2 * MARGIN - NAMES - BETWEEN * (columns - 1)) / columns
    for number, panel in enumerate(figure.panels):
        line, column = divmod(number, columns)
        top = HEAD + tall * line
        left = MARGIN + NAMES + (wide + BETWEEN) * column
        if not column:
            _names(canvas, servers, top + head)
        _heading(canvas, left, top, panel.title, f"{panel.unit}, {panel.better} is better")
        field = Field(canvas, left, top + head, wide, _scale(canvas, panel, wide))
        field.draw(panel, servers)
    return canvas


def _names(canvas: Canvas, servers: Sequence[str], top: float) -> None:
    for row, server in enumerate(servers):
        colour = COLOURS["ours"] if kind_of(server) == "ours" else INK
        canvas.text(
            MARGIN + NAMES - 12,
            top + ROW * (row + 0.5),
            label_of(server),
            colour=colour,
            weight=_weight(server),
            align="right",
        )


def _heading(canvas: Canvas, left: float, top: float, title: str, below: str) -> None:
    canvas.text(left, top + 9, title, size=16, weight="bold")
    canvas.text(left, top + 31, below, size=13.5, colour=PALE)


def _weight(server: str) -> str:
    return "bold" if kind_of(server) == "ours" else "normal"


def _end(mark: Mark) -> float:
    """The rightmost number that is drawn of it."""
    return mark.spread.high if mark.far is None else max(mark.spread.median, mark.far.median)


def _scale(canvas: Canvas, panel: Panel, wide: float) -> float:
    """Units of length per unit of the quantity, such that every bar and its number find room."""
    scales = []
    for server, mark in panel.marks.items():
        words = 4.0
        if server != RAW:
            words += SPACE + canvas.width_of(mark.text, weight=_weight(server))
        scales.append((wide - words) / max(_end(mark), 1e-9))
    return min(scales)


@dataclass(frozen=True, slots=True)
class Field:
    """Where the bars of one panel are drawn: `left` is zero, `top` the top of the first row."""

    canvas: Canvas
    left: float
    top: float
    wide: float
    scale: float

    def x(self, value: float) -> float:
        return self.left + value * self.scale

    def draw(self, panel: Panel, servers: Sequence[str]) -> None:
        bottom = self.top + ROW * len(servers)
        if RAW in panel.marks:
            self.ceiling(panel.marks[RAW], bottom)
        for row, server in enumerate(servers):
            y = self.top + ROW * (row + 0.5)
            mark = panel.marks.get(server)
            if mark is None:
                self.canvas.text(self.left + SPACE, y, "not measured", size=12.5, colour=PALE)
                continue
            (self.bar if mark.far is None else self.dots)(mark, COLOURS[kind_of(server)], y)
            at = self.x(_end(mark)) + SPACE
            self.canvas.text(at, y, mark.text, weight=_weight(server), ground=CARD)
        self.canvas.line([(self.left, self.top), (self.left, bottom)], PALE)

    def bar(self, mark: Mark, colour: str, y: float) -> None:
        """From zero to the median, with a whisker."""
        spread = mark.spread
        self.canvas.line([(self.left, y), (self.x(spread.median), y)], colour, linewidth=BAR)
        self.whisker(spread, INK, y)

    def dots(self, mark: Mark, colour: str, y: float) -> None:
        """A full dot at the first number, an empty one at the second."""
        assert mark.far is not None
        near, far = self.x(mark.spread.median), self.x(mark.far.median)
        self.canvas.line([(near, y), (far, y)], colour, linewidth=3)
        self.canvas.mark(far, y, "o", colour, mfc=CARD, markeredgewidth=2.2, markersize=10)
        self.canvas.mark(near, y, "o", colour, markersize=11, mew=0)

    def ceiling(self, mark: Mark, bottom: float) -> None:
        """`raw`: a dashed line through the panel, its number and its whisker above it."""
        canvas, colour, x = self.canvas, COLOURS["raw"], self.x(mark.spread.median)
        canvas.line([(x, self.top), (x, bottom)], colour, zorder=1, **DASHED)
        if mark.far is None:
            self.whisker(mark.spread, colour, self.top)
        text = f"{label_of(RAW)} {mark.text}"
        half = canvas.width_of(text, size=13) / 2
        middle = min(max(x, self.left + half), self.left + self.wide - half)
        canvas.text(middle, self.top - 13, text, size=13, colour=colour, align="center")

    def whisker(self, spread: Spread, colour: str, y: float) -> None:
        """From the smallest to the largest, on a pale edge that a dark bar does not swallow; none
        where there was but one value."""
        if spread.low == spread.high:
            return
        low, high = self.x(spread.low), self.x(spread.high)
        for tint, more in ((CARD, 2.0), (colour, 0.0)):
            how = {"linewidth": 1.4 + more, "zorder": 3, "solid_capstyle": "projecting"}
            self.canvas.line([(low, y), (high, y)], tint, **how)
            for end in (low, high):
                self.canvas.line([(end, y - 3), (end, y + 3)], tint, **how)


# -- curves --------------------------------------------------------------------------------------


def _curves(figure: Figure) -> Canvas:
    """Charts one below the other; each curve has its name at its end."""
    tall = CHART_HEAD + CHART + CHART_FOOT
    canvas = Canvas(figure, tall * len(figure.charts) - 16)
    numbers = {x for chart in figure.charts for curve in chart.curves.values() for x, _ in curve}
    for number, chart in enumerate(figure.charts):
        _chart(canvas, chart, HEAD + tall * number, sorted(numbers))
    return canvas


def _chart(canvas: Canvas, chart: Chart, top: float, numbers: Sequence[float]) -> None:
    """Both axes are logarithmic: equal factors are equal lengths. All charts share `numbers`."""
    _heading(canvas, MARGIN, top, chart.title, f"{chart.better} is better")
    endings = {server: chart.ending(server) for server in chart.curves}
    room = max(canvas.width_of(text, weight=_weight(name)) for name, text in endings.items())
    left, right = MARGIN + 40, WIDTH - MARGIN - room - 34
    bottom = top + CHART_HEAD + CHART
    spreads = [spread for curve in chart.curves.values() for _, spread in curve]
    values = [value for spread in spreads for value in (spread.low, spread.high)]
    across = LogScale.of(numbers, start=left + 12, end=right - 12)
    down = LogScale.of(values, start=bottom - 8, end=top + CHART_HEAD + 8)
    for step in down.steps():
        y = down.at(step)
        canvas.line([(left, y), (right, y)], GRID, zorder=0)
        canvas.text(left - 10, y, f"{step:g}", size=13, colour=PALE, align="right")
    for x in numbers:
        canvas.text(across.at(x), bottom + 14, f"{x:,.0f}", size=14, align="center")
    middle = (left + right) / 2
    canvas.text(middle, bottom + 36, "connections", size=13.5, colour=PALE, align="center")
    ends = {}
    for server, curve in chart.curves.items():
        placed = [(across.at(x), spread) for x, spread in curve]
        _curve(canvas, server, placed, down)
        ends[server] = (placed[-1][0], down.at(placed[-1][1].median))
    _endings(canvas, endings, ends, right)


def _curve(
    canvas: Canvas, server: str, curve: Sequence[tuple[float, Spread]], down: LogScale
) -> None:
    """Through the medians, each with its mark and its whisker."""
    kind = kind_of(server)
    ours = kind == "ours"
    how: dict[str, Any] = DASHED if kind == "raw" else {"linewidth": 3.2 if ours else 2}
    depth = 3 if ours else 2
    medians = [(x, down.at(spread.median)) for x, spread in curve]
    canvas.line(medians, COLOURS[kind], **how, zorder=depth)
    for (x, y), (_, spread) in zip(medians, curve, strict=True):
        ends = [(x, down.at(spread.low)), (x, down.at(spread.high))]
        canvas.line(ends, COLOURS[kind], linewidth=1.5, zorder=depth)
        canvas.mark(x, y, MARKERS.get(server, "o"), COLOURS[kind], ms=8, mec=CARD, zorder=depth)


def _endings(
    canvas: Canvas,
    endings: dict[str, str],
    ends: dict[str, tuple[float, float]],
    right: float,
) -> None:
    """Names beside the ends of the curves, kept apart, each with a line to its own."""
    for server, y in apart({server: end[1] for server, end in ends.items()}, ROW - 8).items():
        x, its_y = ends[server]
        canvas.line([(x + 8, its_y), (right, its_y), (right + 22, y)], EDGE, zorder=1)
        colour = COLOURS[kind_of(server)]
        canvas.text(right + 28, y, endings[server], colour=colour, weight=_weight(server))


def main(arguments: list[str] | None = None) -> None:
    """Draw the document of a file; print the names of the files drawn."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description="Pictures.")
    parser.add_argument("file", type=Path, help="what the benchmarks wrote with --json")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args(arguments)
    for path in write(json.loads(options.file.read_text("utf-8")), options.folder):
        print(path)


if __name__ == "__main__":
    main()
