"""node's `ws` client (client.mjs) against the echo server, with and without TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import EchoServer

CLIENT = Path(__file__).parent / "client.mjs"


def command(server: EchoServer, closer: str) -> list[str]:
    ca = [str(server.ca)] if server.ca else []
    return ["node", str(CLIENT), server.url, closer, *ca]


def test_everything_echoes_and_the_clients_close_is_answered(echo_server: EchoServer) -> None:
    """Text, empty, binary, 1 MiB, fragments with a ping between; close code 4321 comes back."""
    done = subprocess.run(
        command(echo_server, "client"), capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_the_client_sees_1001_when_the_server_is_interrupted(echo_server: EchoServer) -> None:
    """SIGINT: the open connection gets Close 1001, the server ends with status 0."""
    with subprocess.Popen(
        command(echo_server, "server"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        assert echo_server.interrupt() == 0
        output, errors = client.communicate(timeout=20)
        assert (client.returncode, output) == (0, "ok\n"), errors
