"""The guard over instruction counts, without valgrind: what it counts, what it makes of counts."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "instructions"


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of `benchmarks/instructions/`, which are scripts."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("guard", "ledger", "workload")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def _record(instructions: Any, python: str = "3.11.7", **ratios: float) -> Any:
    return instructions.ledger.Record(facts={"python": python}, ratios=ratios)


# -- the comparison ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (1.0, "same"),
        (1.019, "same"),
        (0.981, "same"),
        (1.021, "grown"),
        (0.979, "shrunk"),
    ],
)
def test_a_change_beyond_the_tolerance_counts_in_both_directions(
    instructions: Any, found: float, outcome: str
) -> None:
    [verdict] = instructions.ledger.judge(
        _record(instructions, case=1.0), _record(instructions, case=found)
    )
    assert verdict.outcome == outcome
    assert verdict.change == pytest.approx(found - 1)


@pytest.mark.parametrize(
    ("found", "outcome"), [(1.14, "same"), (0.86, "same"), (1.16, "grown"), (0.84, "shrunk")]
)
def test_another_interpreter_is_judged_widely_and_named(
    instructions: Any, found: float, outcome: str
) -> None:
    recorded = _record(instructions, case=1.0)
    here = _record(instructions, "3.13.0", case=found)
    [verdict] = instructions.ledger.judge(recorded, here)
    assert verdict.outcome == outcome
    assert list(instructions.ledger.differences(recorded, here)) == [
        "python: recorded 3.11.7, here 3.13.0"
    ]


def test_a_case_that_came_or_went_is_no_pass(instructions: Any) -> None:
    verdicts = instructions.ledger.judge(
        _record(instructions, old=1.0), _record(instructions, new=1.0)
    )
    assert {verdict.case: verdict.outcome for verdict in verdicts} == {"new": "new", "old": "gone"}
    assert all(verdict.change is None for verdict in verdicts)
    assert "new (new), old (gone)" in instructions.guard.advice(verdicts)


def test_advice_names_what_changed_and_what_to_do(instructions: Any) -> None:
    recorded = _record(instructions, slow=1.0, fast=1.0, same=1.0)
    judge, advice = instructions.ledger.judge, instructions.guard.advice
    assert advice(judge(recorded, recorded)) == ""
    worse = advice(judge(recorded, _record(instructions, slow=1.1, fast=0.9, same=1.0)))
    assert worse.startswith("not as recorded: slow (grown), fast (shrunk)\nFind out")
    better = advice(judge(recorded, _record(instructions, slow=1.0, fast=0.9, same=1.0)))
    assert better.startswith("not as recorded: fast (shrunk)\nRecord it")


def test_a_planted_fault_must_stand_out_from_the_tolerance(instructions: Any) -> None:
    found = _record(instructions, **{"1x1": 0.64})
    assert instructions.guard.sees(found, 0.64 * 1.03)
    assert not instructions.guard.sees(found, 0.64 * 1.01)


def test_a_ratio_is_against_its_own_yardstick(instructions: Any) -> None:
    costs = {"raw a": 100.0, "raw b": 50.0, "a": 150.0, "b": 25.0}
    found = instructions.ledger.ratios(costs, {"a": "raw a", "b": "raw b"})
    assert found == {"a": 1.5, "b": 0.5}


def test_of_several_runs_the_median_counts_and_the_spread_is_told(instructions: Any) -> None:
    runs = [{"a": 1.0}, {"a": 4.0}, {"a": 2.0}]
    assert instructions.ledger.middle(runs) == {"a": 2.0}
    assert instructions.ledger.spread(runs, "a") == 1.5


@pytest.mark.parametrize("dump", ["", "events: Ir\n", "totals: 0\n", "totals: 1\ntotals: 2\n"])
def test_a_dump_without_one_total_is_an_error(instructions: Any, dump: str) -> None:
    with pytest.raises(ValueError, match="one total"):
        instructions.ledger.total_untrusted(dump)


def test_the_total_of_a_dump(instructions: Any) -> None:
    dump = "version: 1\nevents: Ir\nsummary: 36201097\nfn=(1) f\n1 2\n\ntotals: 36201097\n"
    assert instructions.ledger.total_untrusted(dump) == 36201097


def test_a_record_is_read_as_written(instructions: Any, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert instructions.ledger.read(path) == {}
    records = {"wsproto": _record(instructions, a=1.25), "compiled": _record(instructions, a=0.5)}
    instructions.ledger.write(path, records)
    assert instructions.ledger.read(path) == records


def test_the_record_of_the_project_is_of_the_cases_there_are(instructions: Any) -> None:
    records = instructions.ledger.read(FOLDER / "record.json")
    assert set(records) == {"compiled", "wsproto"}
    cases = set(instructions.workload.YARDSTICKS) - {instructions.guard.CONTROL}
    for record in records.values():
        assert set(record.ratios) == cases
        assert set(record.facts) == set(instructions.guard.facts())


def test_the_table_has_a_line_for_every_verdict(instructions: Any) -> None:
    costs = dict.fromkeys(instructions.workload.CASES, 2000.0)
    recorded = _record(instructions, **{"1x1": 1.0, "forgotten": 1.0})
    verdicts = instructions.ledger.judge(recorded, _record(instructions, **{"1x1": 1.0}))
    lines = instructions.guard.table(verdicts, [costs, costs]).splitlines()[2:]
    assert lines == [
        "| 1x1 | 2,000 | raw 1x1 | 1.0000 | 1.0000 | +0.00% | 0.00% |",
        "| forgotten | | | 1.0000 | | | gone |",
    ]


# -- what is counted -----------------------------------------------------------------------------

CASES = [
    "raw 1x1",
    "raw 100x1",
    "raw 64 KiB",
    "1x1",
    "100x1",
    "16x16",
    "64 KiB",
    "room of 100",
    "handshake and close",
    "planted",
]
needs_unix = pytest.mark.skipif(sys.platform == "win32", reason="the workload uses unix sockets")


def _run(instructions: Any, case: Any, path: Path) -> None:
    clock = MockClock()
    trio.run(instructions.workload.run, case, str(path), clock, clock=clock)


@needs_unix
@pytest.mark.parametrize("name", CASES)
def test_every_case_runs_to_its_end_and_marks_twice(
    instructions: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks: list[None] = []
    monkeypatch.setattr(instructions.workload, "mark", lambda: marks.append(None))
    _run(instructions, instructions.workload.CASES[name], tmp_path / "socket")
    assert len(marks) == 2


def test_these_are_all_cases_in_their_order(instructions: Any) -> None:
    assert list(instructions.workload.CASES) == CASES
    assert set(instructions.workload.YARDSTICKS.values()) <= {c for c in CASES if "raw" in c}


@needs_unix
def test_a_wrong_answer_voids_the_count(instructions: Any, tmp_path: Path) -> None:
    async def shout(ws: Any) -> None:
        async for message in ws:
            await ws.send(message.upper() + b"!")

    case = instructions.workload.talking(shout, rounds=1)
    with pytest.raises(AssertionError):
        _run(instructions, case, tmp_path / "socket")
