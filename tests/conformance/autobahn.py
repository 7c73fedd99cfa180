"""Run the Autobahn fuzzing client against the echo server and compare with expected.json.

Lives here: starting both, bounding both, comparing. Must never live here: excuses; a case that does
not pass strictly is in expected.json for everyone to see, or it fails.

    python tests/conformance/autobahn.py --wstest PATH [--report DIR] [--write] GROUP ...
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
EXPECTED = HERE / "expected.json"
MAX_MESSAGE = 32 * 1024 * 1024
"""Group 9 sends messages of 16 MiB."""

Result = tuple[str, str]
"""What Autobahn says of a case: its behavior, and the behavior in closing."""


def start_echo_server() -> tuple[subprocess.Popen[str], int]:
    """The example, on a port of its choice."""
    command = [sys.executable, "-u", str(ROOT / "examples" / "echo_server.py")]
    command += ["--port", "0", "--max-message", str(MAX_MESSAGE), "--compression"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    match = re.search(r"listening on ws://.*:(\d+)", line)
    if match is None:
        server.kill()
        raise SystemExit(f"the echo server did not start: {line!r}")
    return server, int(match[1])


def run_cases(wstest: str, port: int, groups: list[str], report: Path, timeout: float) -> None:
    """Run every case of `groups`; the verdicts are in `report`/index.json afterwards."""
    specification = {
        "outdir": str(report),
        "servers": [{"agent": "trio_ws", "url": f"ws://127.0.0.1:{port}"}],
        "cases": [f"{group}.*" for group in groups],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as spec:
        json.dump(specification, spec)
        spec.flush()
        command = [wstest, "--mode=fuzzingclient", f"--spec={spec.name}"]
        done = subprocess.run(
            command, timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    if done.returncode:
        raise SystemExit(f"wstest ended with {done.returncode}:\n{done.stdout[-4000:]}")


def read_results(report: Path) -> dict[str, Result]:
    index = json.loads((report / "index.json").read_text())["trio_ws"]
    return {
        case: (verdict["behavior"], verdict["behaviorClose"]) for case, verdict in index.items()
    }


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


def stop(server: subprocess.Popen[str]) -> int:
    """End the echo server as a person would; it has ten seconds."""
    server.send_signal(signal.SIGINT)
    try:
        return server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return -1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wstest", required=True)
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "autobahn")
    parser.add_argument("--timeout", type=float, default=1700, help="seconds for all cases")
    parser.add_argument("--write", action="store_true", help="record the results as expected")
    parser.add_argument("groups", nargs="+")
    options = parser.parse_args()
    report = options.report.resolve()
    report.mkdir(parents=True, exist_ok=True)
    (report / "index.json").unlink(missing_ok=True)  # never judge an older run

    server, port = start_echo_server()
    started = time.monotonic()
    try:
        run_cases(options.wstest, port, options.groups, report, options.timeout)
    finally:
        status = stop(server)
    found = read_results(report)
    print(f"{summarise(found)}, {time.monotonic() - started:.0f} s")

    if options.write:
        known = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
        known |= found  # of the groups that were not run, what was known stays
        lines = (f'  "{case}": {json.dumps(known[case])}' for case in sorted(known, key=in_order))
        EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    everything = {
        case: tuple(verdict) for case, verdict in json.loads(EXPECTED.read_text()).items()
    }
    expected = {case: v for case, v in everything.items() if case.split(".")[0] in options.groups}
    differences = compare(found, expected)
    for line in differences:
        print(f"  {line}")
    if status:
        print(f"  the echo server ended with {status} when it was interrupted")
    return 1 if differences or status or not found else 0


if __name__ == "__main__":
    sys.exit(main())
