"""The README's own code and links.

Lives here: what a reader of README.md would copy or click. Its commands are run by `.ci/run`.
"""

from __future__ import annotations

import re
import runpy
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from trio_ws.testing import RawPeer

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LINKS = sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def open_stream(port: int) -> trio.SocketStream:
    """Connect as soon as the server listens."""
    with trio.fail_after(10):
        while True:
            try:
                return await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.lowlevel.checkpoint()


async def test_the_echo_of_the_readme_echoes(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Copied into a file and started, it answers; cancelled, it says 1001."""
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "8000" in snippet
    assert len([line for line in snippet.splitlines() if line]) <= 15
    port = free_port()
    script = tmp_path / "echo.py"
    script.write_text(snippet.replace("8000", str(port)))
    main: Callable[[], object] = runpy.run_path(str(script))["main"]

    with trio.fail_after(30):
        nursery.start_soon(main)  # type: ignore[arg-type]
        async with RawPeer(await open_stream(port)) as peer:
            await peer.request()
            await peer.send_message("hello")
            assert await peer.receive_message() == "hello"
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await peer.expect_close(1001)


@pytest.mark.parametrize("link", LINKS)
def test_a_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_each_command_is_there_once_and_on_one_line() -> None:
    """`.ci/run` takes them from the README by these marks."""
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert sum("pytest" in command for command in commands) == 1
    assert sum("server.py" in command for command in commands) == 1
