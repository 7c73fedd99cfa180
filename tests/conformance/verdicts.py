"""What the Autobahn test suite says of us, and what it is expected to say.

Lives here: all that its two directions share: the command line, the specification of a run, reading
the verdicts, comparing them. Must never live here: processes, connections, or excuses; a case that
does not pass strictly is in the file of expectations for everyone to see, or it fails.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
AGENT = "trio_ws"
MAX_MESSAGE = 32 * 1024 * 1024
"""Group 9 sends messages of 16 MiB."""

Result: TypeAlias = tuple[str, str]
"""What Autobahn says of a case: its behavior, and the behavior in closing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What was asked for on the command line.

    Attributes:
        wstest: the program of the test suite.
        report: the folder for its verdicts; index.json there is the sum of them.
        timeout: seconds for all cases.
        groups: of cases.
    """

    wstest: str
    report: Path
    timeout: float
    groups: list[str]

    def specification(self, **more: Any) -> dict[str, Any]:
        """What wstest is told to run, and `more` about whom it runs it against."""
        return {
            "outdir": str(self.report),
            "cases": [f"{group}.*" for group in self.groups],
            "exclude-cases": [],
            "exclude-agent-cases": {},
            **more,
        }


def judge(
    run: Callable[[Order], list[str]], *, about: str | None, name: str, timeout: float
) -> int:
    """Be a driver's `main`: have the cases run, print what came of them, compare it.

    Args:
        run: runs all cases; returns a line for each thing that went wrong beside them.
        about: the driver's docstring.
        name: of the file of expectations, and of the folder of reports.
        timeout: seconds, unless the command line says something else.

    Returns:
        The exit status: 0 if all is as expected.
    """
    expectations = HERE / f"expected{name}.json"
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--wstest", required=True)
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / f"autobahn{name}")
    parser.add_argument("--timeout", type=float, default=timeout, help="seconds for all cases")
    parser.add_argument("--write", action="store_true", help="record the results as expected")
    parser.add_argument("groups", nargs="+")
    args = parser.parse_args()
    order = Order(
        wstest=args.wstest, report=args.report.resolve(), timeout=args.timeout, groups=args.groups
    )
    order.report.mkdir(parents=True, exist_ok=True)
    (order.report / "index.json").unlink(missing_ok=True)  # never judge an older run

    started = time.monotonic()
    wrong = run(order)
    found = read_results(order.report)
    print(f"{summarise(found)}, {time.monotonic() - started:.0f} s")
    if args.write:
        record(found, expectations)
    wrong = compare(found, read_expected(expectations, order.groups)) + wrong
    for line in wrong:
        print(f"  {line}")
    return 1 if wrong or not found else 0


def read_results(report: Path) -> dict[str, Result]:
    index = json.loads((report / "index.json").read_text())[AGENT]
    return {
        case: (verdict["behavior"], verdict["behaviorClose"]) for case, verdict in index.items()
    }


def read_expected(expectations: Path, groups: list[str]) -> dict[str, Result]:
    known = json.loads(expectations.read_text())
    return {
        case: (behavior, closing)
        for case, (behavior, closing) in known.items()
        if case.partition(".")[0] in groups
    }


def record(found: dict[str, Result], expectations: Path) -> None:
    """From now on these are expected; of the groups that were not run, what was known stays."""
    known = json.loads(expectations.read_text()) if expectations.exists() else {}
    known |= found
    lines = (f'  "{case}": {json.dumps(known[case])}' for case in sorted(known, key=in_order))
    expectations.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def in_order(case: str) -> list[int]:
    return [int(number) for number in case.split(".")]


def compare(found: dict[str, Result], expected: dict[str, Result]) -> list[str]:
    """One line per case that is not as expected, missing and unexpected ones included."""
    return [
        f"{case}: expected {expected.get(case)}, found {found.get(case)}"
        for case in sorted(found.keys() | expected.keys(), key=in_order)
        if found.get(case) != expected.get(case)
    ]


def summarise(found: dict[str, Result]) -> str:
    verdicts = list(found.values())
    failed = sum(
        "FAILED" in verdict or "WRONG CODE" in verdict or "UNCLEAN" in verdict
        for verdict in verdicts
    )
    non_strict = sum("NON-STRICT" in verdict for verdict in verdicts)
    informational = sum(verdict[0] == "INFORMATIONAL" for verdict in verdicts)
    passed = len(verdicts) - failed - non_strict - informational
    return (
        f"autobahn: {len(verdicts)} cases: {passed} passed, {informational} informational, "
        f"{non_strict} non-strict, {failed} failed"
    )
