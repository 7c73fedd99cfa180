"""The echo server as a process of its own, as its users start it.

Lives here: starting and stopping it within bounds. Must never live here: a client.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

ECHO_SERVER = Path(__file__).parents[2] / "examples" / "echo_server.py"


@dataclass(frozen=True, kw_only=True)
class EchoServer:
    """A running echo server. `ca` is the file that its certificate is signed by, None for `ws:`."""

    url: str
    ca: Path | None
    process: subprocess.Popen[str]

    def interrupt(self) -> int:
        """What Ctrl-C does; its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10)


@pytest.fixture(params=["ws", "wss"])
def echo_server(
    request: pytest.FixtureRequest, ca: trustme.CA, tmp_path: Path
) -> Iterator[EchoServer]:
    """An echo server without TLS, then one with it; it must end with status 0 when interrupted."""
    command = [sys.executable, "-u", str(ECHO_SERVER), "--host", "localhost", "--port", "0"]
    ca_file = None
    if request.param == "wss":
        ca_file, certificate, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
        issued = ca.issue_cert("localhost")
        ca.cert_pem.write_to_path(ca_file)
        issued.private_key_pem.write_to_path(key)
        for index, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(certificate, append=index > 0)
        command += ["--tls", str(certificate), str(key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            head, _, url = line.strip().partition("listening on ")
            assert head == "", line
            assert url.startswith(f"{request.param}://"), line
            port = url.rpartition(":")[2].rstrip("/")
            yield EchoServer(
                url=f"{request.param}://localhost:{port}/", ca=ca_file, process=process
            )
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        finally:
            process.kill()
