"""Run our client through the Autobahn fuzzing server and compare with expected_client.json.

Lives here: an echo client that does one case after another. Must never live here: a second way to
judge the verdicts (`autobahn` has it).

    python tests/conformance/autobahn_client.py --wstest PATH [--report DIR] [--write] GROUP ...
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from autobahn import MAX_MESSAGE, ROOT, Result, compare, in_order, read_results, summarise

from trio_ws import ConnectionClosed, Deflate, HandshakeError, Limits, WebSocket, connect

EXPECTED = Path(__file__).parent / "expected_client.json"
LIMITS = Limits(max_message=MAX_MESSAGE, max_fragments=None)
DEFLATE = Deflate(server_max_window_bits=15, client_max_window_bits=15)  # group 13 asks for all


def free_port() -> int:
    """wstest cannot choose a port and say which."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def fuzzing_server(wstest: str, port: int, groups: list[str], report: Path) -> Iterator[None]:
    specification = {
        "url": f"ws://127.0.0.1:{port}",
        "outdir": str(report),
        "cases": [f"{group}.*" for group in groups],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps(specification))
        command = [wstest, "--mode=fuzzingserver", f"--spec={spec}", "--webport=0"]
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            try:
                yield
            finally:
                server.kill()


async def echo(ws: WebSocket) -> None:
    """What the fuzzing server wants of a client, however it behaves itself."""
    try:
        async for message in ws:
            await ws.send(message)
    except ConnectionClosed:
        pass  # it broke the protocol, as the case has it


async def run_cases(port: int) -> None:
    base = f"ws://127.0.0.1:{port}"
    async with connect(f"{base}/getCaseCount", proxy=None) as ws:
        count = int(await ws.receive())
    for case in range(1, count + 1):
        url = f"{base}/runCase?case={case}&agent=trio_ws"
        async with connect(url, proxy=None, limits=LIMITS, compression=DEFLATE) as ws:
            await echo(ws)
    async with connect(f"{base}/updateReports?agent=trio_ws", proxy=None) as ws:
        await ws.wait_closed()


async def when_listening(port: int, timeout: float) -> None:
    """All cases, once the server is there, in `timeout` seconds."""
    with trio.fail_after(timeout):
        for _ in range(100):
            try:
                async with connect(f"ws://127.0.0.1:{port}/getCaseCount", proxy=None) as ws:
                    await ws.receive()
                break
            except HandshakeError:
                await trio.sleep(0.2)
        await run_cases(port)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wstest", required=True)
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "autobahn-client")
    parser.add_argument("--timeout", type=float, default=2300, help="seconds for all cases")
    parser.add_argument("--write", action="store_true", help="record the results as expected")
    parser.add_argument("groups", nargs="+")
    options = parser.parse_args()
    report = options.report.resolve()
    report.mkdir(parents=True, exist_ok=True)
    (report / "index.json").unlink(missing_ok=True)  # never judge an older run

    port, started = free_port(), time.monotonic()
    with fuzzing_server(options.wstest, port, options.groups, report):
        trio.run(when_listening, port, options.timeout)
    found = read_results(report)
    print(f"{summarise(found)}, {time.monotonic() - started:.0f} s")

    known: dict[str, Result] = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    if options.write:
        known |= found  # of the groups that were not run, what was known stays
        lines = (f'  "{case}": {json.dumps(known[case])}' for case in sorted(known, key=in_order))
        EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    expected = {
        case: (verdict[0], verdict[1])
        for case, verdict in known.items()
        if case.split(".")[0] in options.groups
    }
    differences = compare(found, expected)
    for line in differences:
        print(f"  {line}")
    return 1 if differences or not found else 0


if __name__ == "__main__":
    sys.exit(main())
