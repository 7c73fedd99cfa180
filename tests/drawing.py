"""The pictures of the benchmarks, drawn: whole, readable, the same each time. Needs matplotlib.

Lives here: what only a drawn picture can show. Must never live here: which numbers it shows (see
`test_plots.py`, which draws nothing). Not collected by its name, as the tests need no matplotlib:

    python -m pytest tests/drawing.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SERVERS = (
    "raw",
    "trio_ws",
    "trio-websocket",
    "websockets",
    "websockets-asyncio",
    "aiohttp",
    "picows",
)
CASES = {
    "echo": ("1x1", "100x1", "16x16", "16 KiB 16x4", "1 MiB 1x4"),
    "broadcast": ("100x1", "1000x1", "100x16", "1000x16"),
    "handshakes": ("1 at a time", "16 at a time"),
    "idle": ("1000",),
    "scale": ("1", "100", "1000", "10000"),
}
FIGURES = [
    "broadcast",
    "cpu",
    "handshakes",
    "latency",
    "memory",
    "overview",
    "scale",
    "throughput",
]
SVG = "{http://www.w3.org/2000/svg}"


def measurement(suite: str, case: str, number: int, repeat: int) -> dict[str, Any]:
    """Made up, with bars, dots and labels near each other and far apart."""
    rate = 37.0 ** (1 + number / 2) * (1 + repeat / 9)
    return {
        "suite": suite,
        "case": case,
        "server": SERVERS[number],
        "repeat": repeat,
        "values": {
            f"{name}/s": rate for name in ("messages", "deliveries", "handshakes")
        } | {f"CPU us/{name}": 1e6 / rate for name in ("message", "delivery", "handshake")}
        | {
            "p50 us": 1e5 / rate,
            "p99 us": 3e5 / rate,
            "load CPU": 0.99 if case == "16x16" else 0.5,
            "bytes/connection": 90_000.0 - repeat if number == 3 else 9000.0 + 40 * number,
        },
    }  # fmt: skip


@pytest.fixture
def document() -> dict[str, Any]:
    """Everything measured, of everybody."""
    measurements = [
        measurement(suite, case, number, repeat)
        for repeat in range(3)
        for suite, cases in CASES.items()
        for case in cases
        for number in range(suite == "broadcast", len(SERVERS))
    ]
    about = {
        "machine": "A Processor (R) Of A Rather Long Name @ 2.20GHz, 2 CPUs, Linux 6.1.0-18-amd64",
        "python": "CPython 3.11.7, asyncio's own loop",
        "versions": ", ".join(f"{server} 12.3.4" for server in SERVERS),
    }
    return {"about": about, "measurements": measurements}


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.plots import write

    return write


def texts(path: Path) -> Iterator[tuple[str, float, float, float]]:
    """Each text of the picture, where it begins and ends, and its base line."""
    for element in ET.parse(path).iter(f"{SVG}text"):
        style = element.attrib["style"]
        size = re.search(r"font-size: ([\d.]+)px", style)
        anchor = re.search(r"text-anchor: (\w+)", style)
        assert size is not None
        assert anchor is not None
        assert element.text is not None
        weight = "bold" if "font-weight: 700" in style else "normal"
        font = FontProperties(family="DejaVu Sans", weight=weight, size=float(size[1]))
        width, *_ = text_to_path.get_text_width_height_descent(element.text, font, ismath=False)
        start = float(element.attrib["x"])
        start -= {"start": 0.0, "middle": width / 2, "end": width}[anchor[1]]
        yield element.text, start, start + width, float(element.attrib["y"])


def test_every_picture_is_there_and_says_what_it_is(
    write: Any, document: dict[str, Any], tmp_path: Path
) -> None:
    """Text is text, with a font that every reader has at the end of the list."""
    paths = write(document, tmp_path / "made" / "here")
    assert sorted(path.name for path in paths) == [f"{name}.svg" for name in FIGURES]
    for path in paths:
        found = {text for text, *_ in texts(path)}
        assert "trio_ws" in found
        assert any(text.startswith(("Medians of 3 ", "whiskers")) for text in found)
        fonts = set(re.findall(r"font-family: ([^;\"]*)", path.read_text("utf-8")))
        assert all(font.endswith(", sans-serif") for font in fonts)
        assert fonts


def test_no_text_leaves_the_card_or_runs_into_another(
    write: Any, document: dict[str, Any], tmp_path: Path
) -> None:
    """In the widest font; fonts of readers are narrower."""
    for path in write(document, tmp_path):
        placed = sorted(texts(path), key=lambda text: (text[3], text[1]))
        assert all(0 < start < end < 800 for _, start, end, _ in placed), path.name
        for number, (text, start, end, base) in enumerate(placed):
            for other, its_start, its_end, its_base in placed[number + 1 :]:
                apart = its_start >= end or start >= its_end or its_base - base >= 12
                assert apart, f"{path.name}: {text!r} and {other!r}"


def test_the_same_document_gives_the_same_bytes(
    write: Any, document: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever the user's settings and the seed of the process."""
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path"}):
        first = {path.name: path.read_bytes() for path in write(document, tmp_path / "here")}
    (tmp_path / "all.json").write_text(json.dumps(document))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plots", tmp_path / "all.json", tmp_path / "there"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.splitlines()] == list(first)
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == first


@pytest.mark.parametrize("suite", CASES)
def test_a_part_of_it_can_be_drawn(
    write: Any, document: dict[str, Any], tmp_path: Path, suite: str
) -> None:
    """One suite, two servers, one of which is missing from some cases, one repeat."""
    cases = CASES[suite]
    document["measurements"] = [
        m
        for m in document["measurements"]
        if m["suite"] == suite
        and m["repeat"] == 0
        and (m["server"] == "trio_ws" or (m["server"] == "picows" and m["case"] != cases[-1]))
    ]
    paths = write(document, tmp_path)
    assert paths
    assert all(any(text == "trio_ws" for text, *_ in texts(path)) for path in paths)


def test_nothing_measured_is_nothing_drawn(write: Any, tmp_path: Path) -> None:
    assert write({"about": {}, "measurements": []}, tmp_path) == []
