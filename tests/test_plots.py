"""What the pictures of the benchmarks show is what was measured; nothing is drawn here.

Drawing needs matplotlib, which the tests do not: see `drawing.py`, which nox runs.
"""

from __future__ import annotations

import importlib
import math
import select
import subprocess
import sys
from itertools import combinations, pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ABOUT = {"machine": "Babbage 1", "python": "Python 3", "versions": "trio 0", "date": "never"}


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules that draw nothing; `benchmarks/` is no part of the package."""
    monkeypatch.syspath_prepend(str(ROOT))
    names = ("figures", "places", "words")
    return SimpleNamespace(
        **{name: importlib.import_module(f"benchmarks.{name}") for name in names}
    )


def row(suite: str, case: str, server: str, repeat: int = 0, **values: float) -> dict[str, Any]:
    """One measurement. `values` are named as in Python: `messages_s` for "messages/s"."""
    names = {
        "messages_s": "messages/s",
        "cpu": "CPU us/message",
        "p50": "p50 us",
        "p99": "p99 us",
        "load": "load CPU",
        "size": "bytes/connection",
    }
    return {
        "suite": suite,
        "case": case,
        "server": server,
        "repeat": repeat,
        "values": {names[name]: value for name, value in values.items()},
    }


def draw(plots: Any, *rows: dict[str, Any]) -> dict[str, Any]:
    """The figures of a document of these measurements, by name."""
    found = plots.figures.figures({"about": ABOUT, "measurements": list(rows)})
    return {figure.name: figure for figure in found}


# -- what is there and what is not -----------------------------------------------------------------


def test_only_what_was_measured_is_drawn(plots: Any) -> None:
    """A suite that did not run has no figure, a quantity that is not there no panel."""
    figures = draw(plots, row("echo", "100x1", "trio_ws", messages_s=5, cpu=20))
    assert list(figures) == ["overview", "throughput", "cpu"]
    assert [len(figure.panels) for figure in figures.values()] == [1, 1, 1]
    assert draw(plots) == {}


def test_a_line_to_compare_with_is_no_panel_of_its_own(plots: Any) -> None:
    """A case in which only `raw` was measured compares nothing."""
    figures = draw(
        plots, row("echo", "1x1", "raw", messages_s=9), row("echo", "2x1", "picows", messages_s=5)
    )
    assert [panel.title for panel in figures["throughput"].panels] == ["2x1"]


def test_servers_stand_in_one_order_whatever_the_order_measured(plots: Any) -> None:
    """Ours on top, then trio's, then asyncio's, strangers behind them by name; `raw` last of the
    known ones, and of the kind of line it is."""
    known = ["trio_ws", "trio-websocket", "websockets", "websockets-asyncio", "aiohttp", "picows"]
    order = [*known, "raw", "a new one", "yet another"]
    rows = [row("echo", "100x1", server, messages_s=5) for server in sorted(order, reverse=True)]
    figure = draw(plots, *rows)["throughput"]
    assert list(figure.servers) == list(figure.panels[0].marks) == order
    assert plots.words.label_of("a new one") == "a new one"
    assert figure.kinds == ("ours", "trio", "asyncio", "raw")


def test_cases_stand_in_the_order_measured(plots: Any) -> None:
    """An unknown case is called what it is called in the document."""
    rows = [row("echo", case, "trio_ws", messages_s=1) for case in ("16x16", "7x7", "1x1")]
    titles = [panel.title for panel in draw(plots, *rows)["throughput"].panels]
    assert titles == ["16 connections, 16 in flight", "7x7", "1 connection, 1 in flight"]


# -- numbers ---------------------------------------------------------------------------------------


def test_a_bar_is_the_median_and_its_whisker_the_extremes(plots: Any) -> None:
    rows = [row("echo", "100x1", "trio_ws", n, messages_s=v) for n, v in enumerate((900, 4, 700))]
    mark = draw(plots, *rows)["throughput"].panels[0].marks["trio_ws"]
    assert (mark.spread.median, mark.spread.low, mark.spread.high) == (700, 4, 900)
    assert mark.text == "700"
    assert mark.far is None


def test_memory_is_shown_in_kib(plots: Any) -> None:
    panel = draw(plots, row("idle", "1000", "trio_ws", size=7 * 1024))["memory"].panels[0]
    assert (panel.unit, panel.better) == ("KiB per connection", "shorter")
    assert panel.marks["trio_ws"].text == "7.00"


def test_latency_shows_both_percentiles_in_one_unit(plots: Any) -> None:
    """Milliseconds for everybody in the panel if most of them need them."""
    rows = [
        row("echo", "100x1", "trio_ws", p50=500, p99=700),
        row("echo", "100x1", "aiohttp", p50=2000, p99=3000),
        row("echo", "1x1", "trio_ws", p50=20, p99=40),
    ]
    slow, fast = draw(plots, *rows)["latency"].panels
    assert slow.unit == "ms, p50 / p99"
    assert [mark.text for mark in slow.marks.values()] == ["0.50 / 0.70", "2.00 / 3.00"]
    assert slow.marks["aiohttp"].far.median == 3
    assert fast.unit == "µs, p50 / p99"
    assert fast.marks["trio_ws"].text == "20.0 / 40.0"


def test_a_rate_that_may_be_the_loads_is_marked(plots: Any) -> None:
    """By the median of the repeats, on rates only, and the caption says what the mark means."""
    rows = [
        row("echo", "16x16", "trio_ws", n, messages_s=9, cpu=3, p50=1, load=load)
        for n, load in enumerate((0.99, 0.97, 0.2))
    ]
    figures = draw(plots, *rows, row("echo", "16x16", "picows", messages_s=5, load=0.95))
    marks = figures["throughput"].panels[0].marks
    assert [mark.text for mark in marks.values()] == ["9.00*", "5.00"]
    assert "* the load was the limit" in figures["throughput"].caption
    for name in ("cpu", "latency"):
        assert "*" not in figures[name].panels[0].marks["trio_ws"].text
        assert "*" not in figures[name].caption


def test_curves_go_from_the_fewest_connections_to_the_most(plots: Any) -> None:
    """Each server has the points it was measured at. Memory below zero is noise, and no point."""
    rows = [
        row("scale", "10000", "trio_ws", cpu=40, size=2048),
        row("scale", "1", "trio_ws", cpu=20, size=-5),
        row("scale", "100", "trio_ws", cpu=30, size=1024),
        row("scale", "100", "raw", cpu=10),
    ]
    cost, memory = draw(plots, *rows)["scale"].charts
    assert [(x, s.median) for x, s in cost.curves["trio_ws"]] == [(1, 20), (100, 30), (10000, 40)]
    assert list(cost.curves) == ["trio_ws", "raw"]
    assert [(x, s.median) for x, s in memory.curves["trio_ws"]] == [(100, 1), (10000, 2)]
    assert list(memory.curves) == ["trio_ws"]


def test_only_curves_that_end_together_end_with_a_number(plots: Any) -> None:
    """Numbers beside each other are read as of the same number of connections."""
    rows = [row("scale", case, "trio_ws", cpu=20) for case in ("1", "100")]
    figure = draw(plots, *rows, row("scale", "1", "raw", cpu=10))["scale"]
    assert [figure.charts[0].ending(server) for server in figure.servers] == [
        "trio_ws 20.0",
        "raw trio",
    ]
    assert figure.caption.endswith("A curve that ends early was not measured beyond its end.")
    assert "ends early" not in draw(plots, *rows)["scale"].caption


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.96, "100"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (45_230, "45.2k"),
        (999_600, "1.00M"),
        (-1_234, "-1.23k"),
    ],
)
def test_numbers_have_three_digits(plots: Any, value: float, text: str) -> None:
    """Also where rounding makes one more."""
    assert plots.words.short(value) == text


# -- words and colours -----------------------------------------------------------------------------


def test_a_caption_says_how_on_what_and_with_what(plots: Any) -> None:
    """The number of repeats is that of the figure's own suites."""
    rows = [row("echo", "100x1", "trio_ws", n, messages_s=9, p50=1, p99=2) for n in range(5)]
    rows += [row("idle", "1000", "trio_ws", n, size=9) for n in range(3)]
    figures = draw(plots, *rows, row("scale", "1", "trio_ws", cpu=5))
    where = "Babbage 1. Python 3. trio 0."
    captions = {name: figure.caption for name, figure in figures.items()}
    assert captions == {
        "overview": f"Medians of 3 to 5 interleaved repeats, whiskers min-max. {where}",
        "throughput": f"Medians of 5 interleaved repeats, whiskers min-max. {where}",
        "latency": f"Medians of 5 interleaved repeats. {where}",
        "memory": f"Medians of 3 interleaved repeats, whiskers min-max. {where}",
        "scale": f"One measurement each. {where}",
    }


def test_every_quantity_of_a_figure_has_words(plots: Any) -> None:
    words = plots.words
    shown = {quantity for *_, quantities in words.BARS.values() for quantity in quantities}
    shown |= set(words.CURVES[2]) | set(words.FAR.values()) | {key[2] for key in words.OVERVIEW}
    assert shown == set(words.QUANTITIES)


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="the benchmarks are for Linux")
def test_every_server_of_the_benchmarks_has_words(plots: Any) -> None:
    servers = importlib.import_module("benchmarks.servers")
    assert set(servers.ADAPTERS) <= set(plots.words.SERVERS)


def luminance(colour: str) -> float:
    """As WCAG 2 defines it, 0 (black) to 1 (white)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_stand_out_from_the_card_and_from_each_other(plots: Any) -> None:
    """Without any hue, too: 3 to 1 against white (WCAG 2, 1.4.11), no two bars equally light."""
    light = {kind: luminance(colour) for kind, colour in plots.words.COLOURS.items()}
    assert all(1.05 / (value + 0.05) >= 3 for value in light.values())
    bars = [value + 0.05 for kind, value in light.items() if kind != "raw"]
    assert all(max(a, b) / min(a, b) >= 1.3 for a, b in combinations(bars, 2))


# -- places ----------------------------------------------------------------------------------------


def test_labels_that_do_not_touch_stay_where_they_are(plots: Any) -> None:
    places = {"a": 0.0, "b": 10.0, "c": 30.0}
    assert plots.places.apart(places, 10) == places


def test_labels_that_would_touch_move_apart_around_their_middle(plots: Any) -> None:
    assert plots.places.apart({"b": 11.0, "a": 10.0, "c": 12.0, "d": 99.0}, 10) == {
        "a": 1.0,
        "b": 11.0,
        "c": 21.0,
        "d": 99.0,
    }


def test_labels_never_overlap_and_keep_their_order(plots: Any) -> None:
    """Also where one block of labels runs into another."""
    for wanted in product((0.0, 3.0, 4.0, 20.0), repeat=4):
        places = dict(zip("abcd", wanted, strict=True))
        found = plots.places.apart(places, 5)
        order = [found[name] for name in sorted(places, key=lambda name: places[name])]
        assert all(above - below >= 5 - 1e-9 for below, above in pairwise(order)), wanted


def test_equal_factors_are_equal_lengths(plots: Any) -> None:
    scale = plots.places.LogScale.of([1, 10_000, 50], start=100, end=500)
    assert [scale.at(10.0**power) for power in range(5)] == pytest.approx([100, 200, 300, 400, 500])
    assert scale.steps()[:5] == [1, 2, 5, 10, 20]
    assert scale.steps()[-1] == 10_000


def test_a_scale_of_one_value_has_it_in_its_middle(plots: Any) -> None:
    scale = plots.places.LogScale.of([7, 7], start=0, end=10)
    assert math.isclose(scale.at(7), 5)


def test_nothing_of_this_needs_matplotlib() -> None:
    """What is to be drawn can be asked for where nothing can draw."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import benchmarks.figures, benchmarks.places, benchmarks.words"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
