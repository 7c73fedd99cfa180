"""Run the Autobahn fuzzing client against the echo server and compare with expected.json.

Lives here: starting both, bounding both. Must never live here: what to think of the verdicts
(`verdicts`).

    python tests/conformance/autobahn.py --wstest PATH [--report DIR] [--write] GROUP ...
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from verdicts import AGENT, MAX_MESSAGE, ROOT, Order, judge


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


def run_fuzzing_client(order: Order, port: int) -> None:
    servers = [{"agent": AGENT, "url": f"ws://127.0.0.1:{port}"}]
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps(order.specification(servers=servers)))
        done = subprocess.run(
            [order.wstest, "--mode=fuzzingclient", f"--spec={spec}"],
            timeout=order.timeout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"wstest ended with {done.returncode}:\n{done.stdout[-4000:]}")


def stop(server: subprocess.Popen[str]) -> int:
    """End the echo server as a person would; it has ten seconds."""
    server.send_signal(signal.SIGINT)
    try:
        return server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return -1


def run(order: Order) -> list[str]:
    server, port = start_echo_server()
    try:
        run_fuzzing_client(order, port)
    finally:
        status = stop(server)
    return [f"the echo server ended with {status} when it was interrupted"] if status else []


if __name__ == "__main__":
    sys.exit(judge(run, about=__doc__, name="", timeout=1700))
