"""What the pictures show: a document of measurements in, figures as values out.

Lives here: which figure holds which panel, in which order, and the numbers in it. Must never live
here: matplotlib, or any measure of length: this is tested where nothing can draw.

The theory. A figure is a table: a row for each server, always in the same order, a panel for each
case. Scales differ from case to case by orders of magnitude, so every panel has its own scale, from
zero, and every bar says its number. What was not measured is left out: a panel without a
measurement, a figure without a panel. `raw` has no bar: it is no library, it is a line in each
panel that the others are compared with.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from .report import Spread
from .words import (
    BARS,
    CURVES,
    FAR,
    KEY,
    OVERVIEW,
    QUANTITIES,
    RAW,
    TITLES,
    kind_of,
    label_of,
    rank,
    short,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from .words import Kind, Wanted

ABOUT: Final = ("machine", "python", "versions")
"""What the caption says of the run; the document has more."""

LOAD_BOUND: Final = 0.95
"""As in the tables: above this part of the window on its CPU, the load may have been the limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One server in one panel; `far` is p99 where `spread` is p50."""

    spread: Spread
    text: str
    far: Spread | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One case: a mark for each server that was measured in it, `raw` among them if it was."""

    title: str
    unit: str
    better: str
    marks: dict[str, Mark]

    @property
    def end(self) -> float:
        """The largest number in it."""
        spreads = [far for mark in self.marks.values() for far in (mark.spread, mark.far) if far]
        return max(spread.high for spread in spreads)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One quantity against a number: for each server its points, from left to right."""

    title: str
    better: str
    curves: dict[str, tuple[tuple[float, Spread], ...]]

    @property
    def last(self) -> float:
        """How far the longest curve goes."""
        return max(curve[-1][0] for curve in self.curves.values())

    def ending(self, server: str) -> str:
        """The name at the end of a curve, and the number there if others can be compared with
        it."""
        x, spread = self.curves[server][-1]
        return f"{label_of(server)} {short(spread.median)}" if x == self.last else label_of(server)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One picture, of panels or of charts; `name` is its file's, without the suffix."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...] = ()
    charts: tuple[Chart, ...] = ()

    @property
    def servers(self) -> tuple[str, ...]:
        """Who is in it, from the top."""
        there = {server for panel in self.panels for server in panel.marks}
        there |= {server for chart in self.charts for server in chart.curves}
        return tuple(sorted(there, key=rank))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What the key has to explain."""
        there = {kind_of(server) for server in self.servers}
        return tuple(kind for kind in KEY if kind in there)


class Document:
    """The measurements of one run, and what is asked of them."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.about: dict[str, str] = document["about"]
        self._measurements: list[dict[str, Any]] = document["measurements"]

    def cases(self, suite: str) -> list[str]:
        """The cases of a suite, in the order measured."""
        return list(dict.fromkeys(m["case"] for m in self._measurements if m["suite"] == suite))

    def values(self, wanted: Wanted) -> dict[str, list[float]]:
        """By server, from the top, one value for each repeat that has it."""
        suite, case, quantity = wanted
        found: dict[str, list[float]] = {}
        for m in self._measurements:
            if (m["suite"], m["case"]) == (suite, case) and quantity in m["values"]:
                found.setdefault(m["server"], []).append(m["values"][quantity])
        return {server: found[server] for server in sorted(found, key=rank)}

    def spreads(self, wanted: Wanted, scale: float = 1.0) -> dict[str, Spread]:
        """The same, summarised, in the unit of the picture times `scale`."""
        factor = QUANTITIES[wanted[2]].factor * scale
        return {
            server: Spread.of(value * factor for value in values)
            for server, values in self.values(wanted).items()
        }

    def load_bound(self, suite: str, case: str) -> set[str]:
        """Servers whose rate here may be the load's."""
        loads = self.values((suite, case, "load CPU"))
        return {server for server, values in loads.items() if median(values) > LOAD_BOUND}

    def repeats(self, cases: Collection[tuple[str, str]]) -> str:
        """How often each server was measured in these cases, in words."""
        counts = Counter((m["suite"], m["case"], m["server"]) for m in self._measurements)
        found = {count for (suite, case, _), count in counts.items() if (suite, case) in cases}
        if found == {1}:
            return "One measurement each"
        times = " to ".join(str(count) for count in sorted({min(found), max(found)}))
        return f"Medians of {times} interleaved repeats, whiskers min-max"


def figures(document: dict[str, Any]) -> list[Figure]:
    """Every figure that the document has measurements for, the overview first."""
    source = Document(document)
    found = [_figure(source, "overview", "trio_ws beside other servers", OVERVIEW)]
    for name, (title, suite, quantities) in BARS.items():
        wanted = {
            (suite, case, quantity): TITLES.get((suite, case), case)
            for quantity in quantities
            for case in source.cases(suite)
        }
        found.append(_figure(source, name, title, wanted))
    found.append(_grown(source))
    return [figure for figure in found if figure is not None]


def _figure(source: Document, name: str, title: str, wanted: dict[Wanted, str]) -> Figure | None:
    """A panel for each that is wanted, with its title; None if there is none."""
    panels = []
    cases = set()
    for (suite, case, quantity), words in wanted.items():
        panel = _panel(source, (suite, case, quantity), words, FAR.get(name))
        if panel is not None:
            panels.append(panel)
            cases.add((suite, case))
    if not panels:
        return None
    marks = [mark for panel in panels for mark in panel.marks.values()]
    caption = _caption(source, cases, marks)
    return Figure(name=name, title=title, caption=caption, panels=tuple(panels))


def _grown(source: Document) -> Figure | None:
    """The figure of curves."""
    suite, title, quantities = CURVES
    charts = [_chart(source, suite, quantity) for quantity in quantities]
    there = tuple(chart for chart in charts if chart.curves)
    if not there:
        return None
    caption = _caption(source, {(suite, case) for case in source.cases(suite)})
    if any(curve[-1][0] < chart.last for chart in there for curve in chart.curves.values()):
        caption += " A curve that ends early was not measured beyond its end."
    return Figure(name=suite, title=title, caption=caption, charts=there)


def _caption(
    source: Document, cases: Collection[tuple[str, str]], marks: Collection[Mark] = ()
) -> str:
    """How it was measured, on what, with which versions: one paragraph."""
    parts = [source.repeats(cases)]
    if any(mark.far for mark in marks):  # dots have no whiskers
        parts[0] = parts[0].removesuffix(", whiskers min-max")
    if any(mark.text.endswith("*") for mark in marks):
        parts.append("* the load was the limit: the server could do more")
    parts += [source.about[key] for key in ABOUT if key in source.about]
    return ". ".join(parts) + "."


def _panel(
    source: Document, wanted: Wanted, title: str, far_quantity: str | None = None
) -> Panel | None:
    """One case; None if only `raw`, or nobody, was measured in it."""
    suite, case, quantity = wanted
    words = QUANTITIES[quantity]
    spreads = source.spreads(wanted)
    if not spreads.keys() - {RAW}:
        return None
    unit, scale = words.unit, 1.0
    if words.thousand and median(spread.median for spread in spreads.values()) >= 1000:
        unit, scale = words.thousand, 1e-3
        spreads = source.spreads(wanted, scale)
    fars = source.spreads((suite, case, far_quantity), scale) if far_quantity else {}
    bound = source.load_bound(suite, case) if words.better == "longer" else set()
    marks = {}
    for server, spread in spreads.items():
        far = fars.get(server)
        text = short(spread.median) + "*" * (server in bound)
        if far is not None:
            text += f" / {short(far.median)}"
        marks[server] = Mark(spread=spread, text=text, far=far)
    if far_quantity:
        unit += f" / {far_quantity.split()[0]}"
    return Panel(title=title, unit=unit, better=words.better, marks=marks)


def _chart(source: Document, suite: str, quantity: str) -> Chart:
    """A quantity against the number that the name of the case is. What is not above zero has no
    place on a logarithmic scale and is left out: memory lost in the noise of one connection."""
    points: dict[str, list[tuple[float, Spread]]] = {}
    for case in sorted(source.cases(suite), key=int):
        for server, spread in source.spreads((suite, case, quantity)).items():
            if spread.low > 0:
                points.setdefault(server, []).append((float(case), spread))
    words = QUANTITIES[quantity]
    curves = {server: tuple(points[server]) for server in sorted(points, key=rank)}
    return Chart(title=words.unit, better=words.better, curves=curves)
