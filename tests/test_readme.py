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
    from collections.abc import Awaitable, Callable

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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


def main_of(block: str, port: int, directory: Path) -> Callable[[], Awaitable[object]]:
    """The `main` of a block that was copied into a file and aimed at another port."""
    assert "8000" in block
    assert len([line for line in block.splitlines() if line]) <= 15
    script = directory / "copied.py"
    script.write_text(block.replace("8000", str(port)))
    main: Callable[[], Awaitable[object]] = runpy.run_path(str(script))["main"]
    return main


def test_there_are_a_server_and_a_client() -> None:
    assert len(BLOCKS) == 2


async def test_the_echo_of_the_readme_echoes(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Copied into a file and started, it answers; cancelled, it says 1001."""
    port = free_port()
    with trio.fail_after(30):
        nursery.start_soon(main_of(BLOCKS[0], port, tmp_path))
        async with RawPeer(await open_stream(port)) as peer:
            await peer.request()
            await peer.send_message("hello")
            assert await peer.receive_message() == "hello"
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await peer.expect_close(1001)


async def test_the_client_of_the_readme_talks_to_its_server(
    nursery: trio.Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with trio.fail_after(30):
        nursery.start_soon(main_of(BLOCKS[0], port, tmp_path))
        await (await open_stream(port)).aclose()
        await main_of(BLOCKS[1], port, tmp_path)()
        nursery.cancel_scope.cancel()
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize("link", LINKS)
def test_a_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_each_command_is_there_once_and_on_one_line() -> None:
    """`.ci/run` takes them from the README by these marks."""
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert sum("pytest" in command for command in commands) == 1
    assert sum("server.py" in command for command in commands) == 1
