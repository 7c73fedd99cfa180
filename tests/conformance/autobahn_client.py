"""Run our client through the Autobahn fuzzing server and compare with expected_client.json.

Lives here: an echo client that does one case after another. Must never live here: what to think of
the verdicts (`verdicts`).

    python tests/conformance/autobahn_client.py --wstest PATH [--report DIR] [--write] GROUP ...
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from verdicts import AGENT, MAX_MESSAGE, Order, judge

from trio_ws import ConnectionClosed, Deflate, HandshakeError, Limits, WebSocket, connect

LIMITS = Limits(max_message=MAX_MESSAGE, max_fragments=None)
DEFLATE = Deflate(server_max_window_bits=15, client_max_window_bits=15)  # group 13 asks for all


def free_port() -> int:
    """wstest cannot choose a port and say which."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def fuzzing_server(order: Order, port: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps(order.specification(url=f"ws://127.0.0.1:{port}")))
        command = [order.wstest, "--mode=fuzzingserver", f"--spec={spec}", "--webport=0"]
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
        url = f"{base}/runCase?case={case}&agent={AGENT}"
        async with connect(url, proxy=None, limits=LIMITS, compression=DEFLATE) as ws:
            await echo(ws)
    async with connect(f"{base}/updateReports?agent={AGENT}", proxy=None) as ws:
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


def run(order: Order) -> list[str]:
    port = free_port()
    with fuzzing_server(order, port):
        trio.run(when_listening, port, order.timeout)
    return []


if __name__ == "__main__":
    sys.exit(judge(run, about=__doc__, name="_client", timeout=2300))
