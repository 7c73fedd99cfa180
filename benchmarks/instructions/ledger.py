"""What is made of the counts: ratios, the recorded ones, the verdict. Pure; standard library only.

Lives here: callgrind's total, costs, ratios, the file of recorded ratios, the comparison.
Must never live here: how anything is counted (`guard`, `workload`), printing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

TOLERANCE: Final = 0.02
"""For the interpreter and the packages that the record was made with. Runs differ by 0.2 % at the
most; the rest is for what the facts do not tell."""

FOREIGN_TOLERANCE: Final = 0.15
"""For any others. Other compiler options alone move a ratio by 4 % (compiled) or 10 % (wsproto),
another minor version of Python by 8 %."""

Outcome: TypeAlias = Literal["same", "grown", "shrunk", "new", "gone"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What one engine cost.

    Attributes:
        facts: what decides the counts beside our code: interpreter, packages, machine.
        ratios: for each case, its instructions as a multiple of its yardstick's.
    """

    facts: Mapping[str, str]
    ratios: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One case: recorded, found, and what that is called. A number that is not there is None."""

    case: str
    recorded: float | None
    found: float | None
    outcome: Outcome

    @property
    def change(self) -> float | None:
        """Found against recorded: 0.1 is a tenth more."""
        if self.recorded is None or self.found is None:
            return None
        return self.found / self.recorded - 1


def total_untrusted(dump: str) -> int:
    """Instructions in one dump of callgrind.

    Raises:
        ValueError: there is no total in it, or more than one, or it is 0.
    """
    totals = re.findall(r"^totals: (\d+)$", dump, re.MULTILINE)
    if len(totals) != 1 or int(totals[0]) == 0:
        raise ValueError(f"one total wanted in callgrind's dump, found {totals}")
    return int(totals[0])


def ratios(costs: Mapping[str, float], yardsticks: Mapping[str, str]) -> dict[str, float]:
    """Each case of `yardsticks` as a multiple of its yardstick; `costs` are instructions for each
    message."""
    return {case: costs[case] / costs[yardstick] for case, yardstick in yardsticks.items()}


def middle(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each case the median."""
    return {case: median(run[case] for run in runs) for case in runs[0]}


def spread(runs: Sequence[Mapping[str, float]], case: str) -> float:
    """The largest minus the smallest, as a share of the median."""
    values = [run[case] for run in runs]
    return (max(values) - min(values)) / median(values)


def tolerance(recorded: Record, found: Record) -> float:
    """How far a ratio may be off."""
    return TOLERANCE if recorded.facts == found.facts else FOREIGN_TOLERANCE


def differences(recorded: Record, found: Record) -> Iterator[str]:
    """The facts that are not the same, in words."""
    for name in sorted({*recorded.facts, *found.facts}):
        then, now = recorded.facts.get(name, "unknown"), found.facts.get(name, "unknown")
        if then != now:
            yield f"{name}: recorded {then}, here {now}"


def judge(recorded: Record, found: Record) -> list[Verdict]:
    """One verdict for each case of either.

    Both directions count: a gain that is not recorded would let as much be lost unseen.
    """
    bound = tolerance(recorded, found)
    verdicts = []
    for case in {**found.ratios, **recorded.ratios}:
        then, now = recorded.ratios.get(case), found.ratios.get(case)
        verdicts.append(
            Verdict(case=case, recorded=then, found=now, outcome=_outcome(then, now, bound))
        )
    return verdicts


def _outcome(then: float | None, now: float | None, bound: float) -> Outcome:
    if then is None:
        return "new"
    if now is None:
        return "gone"
    if now > then * (1 + bound):
        return "grown"
    return "shrunk" if now < then * (1 - bound) else "same"


def read(path: Path) -> dict[str, Record]:
    """The records, by engine; none if there is no file."""
    if not path.exists():
        return {}
    return {engine: Record(**record) for engine, record in json.loads(path.read_text()).items()}


def write(path: Path, records: Mapping[str, Record]) -> None:
    """Write them so that a change is a line of a diff."""
    document = {
        engine: {
            "facts": dict(record.facts),
            "ratios": {case: round(ratio, 5) for case, ratio in record.ratios.items()},
        }
        for engine, record in sorted(records.items())
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
