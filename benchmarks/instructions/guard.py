"""One command: did a message become more expensive? Counted in instructions, which are not noisy.

    python benchmarks/instructions/guard.py            # under a minute; wants valgrind

Lives here: the command line, valgrind, what is printed. Must never live here: what is counted
(`workload`), what is made of it (`ledger`).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import ledger
import workload

import trio_ws

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = Path(__file__).resolve().parent
PACKAGES: Final = ("trio", "h11", "wsproto")
CONTROL: Final = "planted"
TIMEOUT: Final = 600.0
"""Seconds for one run; it takes 20 to 60."""


def facts() -> dict[str, str]:
    """What decides the counts beside our code."""
    configured = str(sysconfig.get_config_var("CONFIG_ARGS"))
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
        "profile-guided": "yes" if "--enable-optimizations" in configured else "no",
        "machine": platform.machine(),
        "processor": processor(),  # libc copies with what it finds there
        "libc": " ".join(platform.libc_ver()),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def processor() -> str:
    """The processor's model, where Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def count(folder: Path) -> dict[str, float]:
    """Run every case under valgrind, once.

    Returns:
        For each case the instructions of one message. The dumps stay in `folder`, one for each
        case, for callgrind_annotate.

    Raises:
        SystemExit: valgrind or the workload failed.
    """
    command = [
        "valgrind",
        "--tool=callgrind",
        f"--dump-before={workload.MARKER}",
        "--compress-strings=no",  # each dump is read alone
        f"--callgrind-out-file={folder}/dump",
        sys.executable,
        str(FOLDER / "workload.py"),
        *workload.CASES,
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # sets in the same order each time
    try:
        run = subprocess.run(
            command, env=environment, check=False, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"the workload hung: it was not done after {TIMEOUT:.0f} s")
    if run.returncode:
        sys.exit(f"the workload failed (status {run.returncode}):\n{run.stderr}")
    costs = {}
    for number, (name, case) in enumerate(workload.CASES.items()):
        # Each case has two marks; what was before the first one is a dump, too.
        dump = folder / f"dump.{2 * number + 2}"
        costs[name] = ledger.total_untrusted(dump.read_text()) / case.messages
        dump.rename(folder / f"{name.replace(' ', '-')}.callgrind")
    return costs


@contextmanager
def place_for(keep: Path | None) -> Iterator[Path]:
    """Where the dumps go."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def table(verdicts: list[ledger.Verdict], runs: list[dict[str, float]]) -> str:
    """Markdown; instructions are the first run's."""
    lines = [
        "| case | instructions | yardstick | recorded | found | change | runs differ by |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    measured = [ledger.ratios(run, workload.YARDSTICKS) for run in runs]
    for verdict in verdicts:
        case = verdict.case
        if verdict.found is None:
            lines.append(f"| {case} | | | {verdict.recorded:.4f} | | | gone |")
            continue
        recorded = "" if verdict.recorded is None else f"{verdict.recorded:.4f}"
        change = "" if verdict.change is None else f"{verdict.change:+.2%}"
        varies = f"{ledger.spread(measured, case):.2%}" if len(runs) > 1 else ""
        lines.append(
            f"| {case} | {runs[0][case]:,.0f} | {workload.YARDSTICKS[case]} | {recorded} | "
            f"{verdict.found:.4f} | {change} | {varies} |"
        )
    return "\n".join(lines)


def sees(found: ledger.Record, planted: float) -> bool:
    """Whether a planted fault would be reported: if not, this guard guards nothing."""
    [verdict] = ledger.judge(
        ledger.Record(facts=found.facts, ratios={"1x1": found.ratios["1x1"]}),
        ledger.Record(facts=found.facts, ratios={"1x1": planted}),
    )
    return verdict.outcome == "grown"


def advice(verdicts: list[ledger.Verdict]) -> str:
    """What to do, "" if nothing."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if outcomes <= {"same"}:
        return ""
    named = ", ".join(f"{verdict.case} ({verdict.outcome})" for verdict in verdicts
                      if verdict.outcome != "same")  # fmt: skip
    if "grown" in outcomes:
        what = (
            "Find out what costs more (--keep DIR, docs/instructions.md). If it "
            "is worth it, record it with --write; the diff of the record is then reviewed."
        )
    else:
        what = "Record it with --write, so that it cannot be lost again unseen."
    return f"not as recorded: {named}\n{what}"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Instructions of a message, against the record.")
    add = parser.add_argument
    add("--repeats", type=int, default=1, help="runs, of which the median counts (%(default)s)")
    add("--write", action="store_true", help="record what is found, for the engine in use")
    add("--record", type=Path, default=FOLDER / "record.json", metavar="FILE",
        help="another record than the project's: one of your own machine, say")  # fmt: skip
    add("--keep", type=Path, metavar="DIR", help="keep callgrind's dumps there (the last run's)")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error("at least 1 repeat")
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not on PATH (Debian: apt-get install valgrind)")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Count, print, compare or record; 1 if something is not as recorded."""
    options = parse(arguments)
    with place_for(options.keep) as folder:
        runs = [count(folder) for _ in range(options.repeats)]
    ratios = ledger.middle([ledger.ratios(run, workload.YARDSTICKS) for run in runs])
    planted = ratios.pop(CONTROL)
    found = ledger.Record(facts=facts(), ratios=ratios)
    records = ledger.read(options.record)
    recorded = records.get(trio_ws.ENGINE, ledger.Record(facts={}, ratios={}))
    verdicts = ledger.judge(recorded, found)
    print(f"engine: {trio_ws.ENGINE}")
    print(f"a message of `raw 1x1`: {runs[0]['raw 1x1']:,.0f} instructions\n")
    print(table(verdicts, runs))
    if recorded.ratios:
        print(f"\ntolerance: {ledger.tolerance(recorded, found):.0%}")
        for difference in ledger.differences(recorded, found):
            print(f"  wide, because of {difference}")
    print(f"\na planted checkpoint a message: {planted / ratios['1x1'] - 1:+.2%} of 1x1")
    if not sees(found, planted):
        print("that would not be reported: this guard guards nothing")
        return 1
    if options.write:
        ledger.write(options.record, {**records, trio_ws.ENGINE: found})
        print(f"recorded in {options.record}, engine {trio_ws.ENGINE}")
        return 0
    print(advice(verdicts) or "as recorded")
    return int(bool(advice(verdicts)))


if __name__ == "__main__":
    sys.exit(main())
