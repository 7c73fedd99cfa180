"""The benchmark says what it measured: statistics on numbers, tables, the command line.

Lives here: everything behind the counting. Must never live here: the loads (test_benchmarks), or
how fast anything was.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from .benchmarks_world import linux, modules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = linux

CPU = "CPU us/message"
RATE = "messages/s"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of `benchmarks/`."""
    return modules(monkeypatch)


@pytest.mark.parametrize(
    ("text", "case"),
    [("16x4", (16, 4, 32)), ("16 KiB 16x4", (16, 4, 1 << 14)), ("1 MiB 1x4", (1, 4, 1 << 20))],
)
def test_a_case_says_size_connections_and_messages(
    bench: Any, text: str, case: tuple[int, int, int]
) -> None:
    """The size is 32 bytes where it is not said."""
    parsed = bench.load.Case.parse(text)
    assert (parsed.connections, parsed.in_flight, parsed.size) == case


@pytest.mark.parametrize("suite", ["echo", "broadcast", "handshakes", "idle", "scale"])
@pytest.mark.parametrize(
    "text", ["", "x", "16x", "x16", "0x1", "1x0", "-1x1", "1x1x1", "1 GiB 1x1", "0", "²", "0 at a"]
)
def test_a_case_that_is_none_is_refused(bench: Any, suite: str, text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="a case"):
        bench.suites.SUITES[suite].check(text)


def test_a_publisher_is_not_asked_for_more_than_a_buffer_takes(bench: Any) -> None:
    """A message of broadcast leaves in one write."""
    with pytest.raises(ValueError, match="all at once"):
        bench.suites.SUITES["broadcast"].check("1 MiB 10x1")


def test_percentiles_weigh_each_pair_by_its_messages(bench: Any) -> None:
    """Ninety-eight messages shared one latency: they are ninety-eight, not one."""
    latencies = [(9.0, 1), (1.0, 98), (5.0, 1)]
    assert bench.report.percentile(latencies, 0.50) == 1.0
    assert bench.report.percentile(latencies, 0.98) == 1.0
    assert bench.report.percentile(latencies, 0.99) == 5.0
    assert bench.report.percentile(latencies, 1.0) == 9.0


@pytest.fixture
def results(bench: Any) -> Any:
    """Three repeats on a machine that gets twice as slow in between; ours costs 2 x raw."""

    def measurement(server: str, repeat: int, cpu: float) -> Any:
        values = {RATE: 1e6 / cpu, CPU: cpu, "load CPU": 0.99 if server == "raw" else 0.5}
        return bench.report.Measurement(
            suite="echo", case="100x1", server=server, repeat=repeat, values=values
        )

    costs = {
        "raw": [10.0, 20.0, 40.0],
        "one": [60.0, 120.0, 200.0],
        "other": [50.0, 100.0, 400.0],
        "trio_ws": [20.0, 40.0, 80.0],
    }
    measurements = [
        measurement(s, i, cpu) for s, cpus in costs.items() for i, cpu in enumerate(cpus)
    ]
    return bench.report.Results(measurements, libraries=["one", "other", "absent"])


def test_ratios_are_paired_within_a_repeat(bench: Any, results: Any) -> None:
    """A machine that slows down from repeat to repeat leaves a constant ratio constant; a ratio
    over 1 means that we are better, in rates as in costs."""
    spread = bench.report.Spread
    assert results.spread("echo", "100x1", "trio_ws", CPU) == spread(
        median=40.0, low=20.0, high=80.0
    )
    for quantity in (CPU, RATE):
        raw = results.advantage("echo", "100x1", "raw", quantity)
        other = results.advantage("echo", "100x1", "other", quantity)
        assert (raw.low, raw.high) == pytest.approx((0.5, 0.5))
        assert (other.low, other.median, other.high) == pytest.approx((2.5, 2.5, 5.0))
        assert results.advantage("echo", "100x1", "absent", quantity) is None


def test_the_better_library_is_the_one_with_the_better_median(results: Any) -> None:
    """Less CPU, more messages: 100 beats 120, whatever one bad repeat says."""
    for quantity in (CPU, RATE):
        assert results.better_library("echo", "100x1", quantity) == "other"
    assert results.better_library("echo", "1x1", CPU) is None


def test_the_table_shows_medians_ranges_ratios_and_a_busy_load(results: Any) -> None:
    """One line for each server; what was not measured has no column."""
    text = results.table("echo", "100x1", (RATE, CPU, "p50 us", "load CPU"))
    [raw] = [line for line in text.splitlines() if line.startswith("| raw ")]
    assert [cell.strip() for cell in raw.strip("| ").split("|")] == [
        *("raw", "50,000", "(25,000-100,000)", "20.0", "(10.0-40.0)", "99%"),
        *("0.50 (0.50-0.50)", "0.50 (0.50-0.50)"),
    ]
    assert "p50" not in text
    assert "The load was the limit for raw:" in text


def test_the_summary_compares_with_the_better_library_and_each_peer(results: Any) -> None:
    """A line that was not measured is left out."""
    lines = [("echo", "100x1", CPU), ("echo", "1x1", CPU)]
    text = results.summary(lines, ["raw", "one", "other", "absent"])
    header, _, line = text.splitlines()
    cells = [[cell.strip() for cell in row.strip("| ").split("|")] for row in (header, line)]
    assert cells == [
        ["case", "quantity", "better trio library", "raw"],
        ["echo 100x1", CPU, "2.50 (2.50-5.00)", "0.50 (0.50-0.50)"],
    ]


@pytest.fixture
def unpinned(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test process stays where it is."""
    monkeypatch.setattr(bench.machine.os, "sched_getaffinity", lambda _: {0})


@pytest.mark.usefixtures("unpinned")
def test_one_command_prints_tables_and_writes_json(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command, very short: two servers, one suite, one case, two repeats."""
    target = tmp_path / "echo.json"
    status = bench.command.main(
        "--suites=echo --servers=raw,trio_ws --cases=2x2 --repeats=2 --seconds=0.05 "
        f"--json={target}".split()
    )
    assert status == 0
    output = capsys.readouterr().out
    assert "## echo 2x2" in output
    assert " engine)" in output
    document = json.loads(target.read_text())
    assert all(isinstance(word, str) for word in document["about"].values())
    order = [(m["repeat"], m["server"]) for m in document["measurements"]]
    assert order == [(0, "raw"), (0, "trio_ws"), (1, "trio_ws"), (1, "raw")]
    first = document["measurements"][0]
    assert (first["suite"], first["case"]) == ("echo", "2x2")
    assert first["values"][RATE] > 0


@pytest.fixture
def measuring(bench: Any, monkeypatch: pytest.MonkeyPatch, unpinned: None) -> Any:
    """Replaces the measurement itself, by a function of suite, case and server; all servers count
    as installed, and the machine holds as many connections as anybody likes."""
    monkeypatch.setattr(bench.servers.Adapter, "version", lambda _: "1.0")
    monkeypatch.setattr(bench.population, "most_connections", lambda: 1 << 20)

    def replace(measure: Callable[[str, str, str], dict[str, float]]) -> None:
        def once(suite: str, case: str, name: str, **_: Any) -> dict[str, float]:
            return measure(suite, case, name)

        monkeypatch.setattr(bench.suites, "measure_once", once)

    return replace


def test_a_server_that_fails_once_is_out_of_that_case_only(
    bench: Any, measuring: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its earlier repeats, said in the table and in the document; the status is 1."""
    calls: list[tuple[str, ...]] = []

    def measure(*what: str) -> dict[str, float]:
        calls.append(what)
        if what == ("echo", "2x2", "raw") and calls.count(what) == 2:
            raise bench.connections.LoadError("not the reply")
        return {RATE: 1.0, CPU: 1.0}

    measuring(measure)
    target = tmp_path / "echo.json"
    arguments = "--suites=echo --servers=raw,trio_ws --cases=1x1,2x2 --repeats=3"
    assert bench.command.main([*arguments.split(), f"--json={target}"]) == 1
    document = json.loads(target.read_text())
    kept = {(m["case"], m["server"]) for m in document["measurements"]}
    assert kept == {("1x1", "raw"), ("1x1", "trio_ws"), ("2x2", "trio_ws")}
    assert len(document["measurements"]) == 9
    assert document["about"]["missing: echo 2x2 raw"] == "LoadError: not the reply"
    assert "missing: echo 2x2 raw" in capsys.readouterr().out


def test_a_repeat_that_came_too_late_is_missing_alone(
    bench: Any, measuring: Any, tmp_path: Path
) -> None:
    """It says nothing about the server: its other repeats stay."""
    calls: list[str] = []

    def measure(*_: str) -> dict[str, float]:
        calls.append("")
        if len(calls) == 2:
            raise bench.connections.Unmeasurable("it took 19 seconds")
        return {RATE: 1.0, CPU: 1.0}

    measuring(measure)
    target = tmp_path / "scale.json"
    arguments = ["--suites=scale", "--servers=raw", "--cases=10", "--repeats=3"]
    assert bench.command.main([*arguments, f"--json={target}"]) == 1
    document = json.loads(target.read_text())
    assert [m["repeat"] for m in document["measurements"]] == [0, 2]
    assert document["about"]["missing: scale 10 raw"] == "Unmeasurable: it took 19 seconds"


def test_every_suite_visits_who_has_its_role(bench: Any, measuring: Any) -> None:
    """Rooms for those that have them, everything else for all; slow suites less often."""
    calls: list[tuple[str, ...]] = []

    def measure(*what: str) -> dict[str, float]:
        calls.append(what)
        return {"messages/s": 1.0}

    measuring(measure)
    assert bench.command.main([]) == 0
    assert calls.count(("echo", "1 MiB 1x4", "raw")) == 5
    assert calls.count(("scale", "10000", "picows")) == 3
    assert not [what for what in calls if what[0] == "broadcast" and what[2] == "raw"]
    assert {what[2] for what in calls if what[0] == "broadcast"} == {
        *("trio_ws", "trio-websocket", "websockets", "websockets-asyncio", "aiohttp", "picows")
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["--servers=nginx"],
        ["--suites=speed"],
        ["--suites=echo", "--cases=1"],
        ["--cases=1x1"],
        ["--seconds=0"],
        ["--seconds=99"],
        ["--repeats=-1"],
    ],
)
def test_a_wrong_command_line_is_refused_before_any_server_starts(
    bench: Any, arguments: list[str]
) -> None:
    """Status 2 and words, as from any command."""
    with pytest.raises(SystemExit) as caught:
        bench.command.main(arguments)
    assert caught.value.code == 2
