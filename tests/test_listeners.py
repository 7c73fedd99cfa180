"""Opening listeners: what they bind, replace, remove, and leave alone."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_ws import open_tcp_listeners, open_unix_listener

unix = pytest.mark.skipif(sys.platform == "win32", reason="unix sockets")


async def close_all(listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        await listener.aclose()


def ports(listeners: list[trio.SocketListener]) -> set[int]:
    return {listener.socket.getsockname()[1] for listener in listeners}


# -- TCP -----------------------------------------------------------------------------------------


async def test_port_0_is_chosen_once_for_all_families() -> None:
    """Twenty times, because two independent choices would now and then agree."""
    for _ in range(20):
        listeners = await open_tcp_listeners(0)
        assert {listener.socket.family for listener in listeners} == {
            socket.AF_INET,
            socket.AF_INET6,
        }
        assert len(ports(listeners)) == 1
        await close_all(listeners)


async def test_a_port_taken_in_the_second_family_is_chosen_again() -> None:
    """Port 0, and three times somebody takes the port on IPv6 first: a fourth is found."""
    blockers: list[socket.socket] = []
    trio.socket.set_custom_hostname_resolver(Resolver("127.0.0.1", "::1"))
    real = trio.socket.set_custom_socket_factory(BlockingFactory(blockers, times=3))
    try:
        listeners = await open_tcp_listeners(0, host="both")
    finally:
        trio.socket.set_custom_socket_factory(real)
        trio.socket.set_custom_hostname_resolver(None)
    assert len(blockers) == 3, "the factory took the port three times"
    assert len(ports(listeners)) == 1
    assert ports(listeners).isdisjoint(blocker.getsockname()[1] for blocker in blockers)
    await close_all(listeners)
    for blocker in blockers:
        blocker.close()


class Resolver(trio.abc.HostnameResolver):
    """Resolves to the given addresses, whatever is asked."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts

    async def getaddrinfo(self, _host, port, *_args):  # type: ignore[no-untyped-def]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0))
            if ":" in host
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
            for host in self.hosts
        ]

    async def getnameinfo(self, *_args):  # type: ignore[no-untyped-def]
        raise NotImplementedError


class BlockingFactory(trio.abc.SocketFactory):
    """Whenever IPv6 is asked for, first takes the port that IPv4 has just got, `times` times."""

    def __init__(self, blockers: list[socket.socket], times: int) -> None:
        self.blockers = blockers
        self.times = times
        self.last: socket.socket | None = None

    def socket(self, family=None, type=None, proto=None):  # type: ignore[no-untyped-def]  # noqa: A002
        made = socket.socket(family, type or socket.SOCK_STREAM, proto or 0)
        if family == socket.AF_INET:
            self.last = made
        elif len(self.blockers) < self.times:
            assert self.last is not None
            blocker = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            blocker.bind(("::1", self.last.getsockname()[1]))
            blocker.listen()
            self.blockers.append(blocker)
        return trio.socket.from_stdlib_socket(made)


async def test_a_taken_port_is_an_error_and_leaves_nothing_open() -> None:
    """Where IPv4 is taken after IPv6 was bound, IPv6 is free again afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            await open_tcp_listeners(port, host="localhost")
        assert caught.value.errno == errno.EADDRINUSE
        with socket.create_server(("::1", port), family=socket.AF_INET6):
            pass


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT")
async def test_reuse_port_lets_two_listen_where_one_could() -> None:
    first = await open_tcp_listeners(0, host="127.0.0.1", reuse_port=True)
    (port,) = ports(first)
    second = await open_tcp_listeners(port, host="127.0.0.1", reuse_port=True)
    with pytest.raises(OSError, match="in use"):
        await open_tcp_listeners(port, host="127.0.0.1")
    await close_all(first + second)


@pytest.mark.parametrize(
    ("port", "backlog", "error"),
    [
        ("80", None, TypeError),
        (True, None, TypeError),
        (65536, None, ValueError),
        (-1, None, ValueError),
        (0, "many", TypeError),
    ],
)
async def test_wrong_arguments(port: int, backlog: int | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        await open_tcp_listeners(port, backlog=backlog)


async def test_one_family_alone_is_enough() -> None:
    """An address of a family this machine does not have is passed over while another works; if
    none works, that is an error."""
    nobodys = "2001:db8::1"
    try:
        trio.socket.set_custom_hostname_resolver(Resolver(nobodys, "127.0.0.1"))
        listeners = await open_tcp_listeners(0, host="some")
        assert len(listeners) == 1
        await close_all(listeners)
        trio.socket.set_custom_hostname_resolver(Resolver(nobodys))
        with pytest.raises(OSError, match="address family") as caught:
            await open_tcp_listeners(0, host="none")
        assert caught.value.errno == errno.EAFNOSUPPORT
    finally:
        trio.socket.set_custom_hostname_resolver(None)


# -- unix sockets --------------------------------------------------------------------------------


def leave_stale(path: Path) -> None:
    """What a killed server leaves behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
        dead.listen()


@unix
async def test_a_unix_listener_accepts_and_removes_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ws.sock"
    listener = await open_unix_listener(path, mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    async with await trio.open_unix_socket(path) as client, await listener.accept() as server:
        await client.send_all(b"hello")
        assert await server.receive_some() == b"hello"
    await listener.aclose()
    assert list(tmp_path.iterdir()) == []
    await listener.aclose()


@unix
async def test_the_default_mode_is_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with await open_unix_listener(tmp_path / "ws.sock"):
            assert stat.S_IMODE((tmp_path / "ws.sock").stat().st_mode) == 0o600
    finally:
        os.umask(before)


@unix
async def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ws.sock"
    leave_stale(path)
    async with await open_unix_listener(path) as listener:
        async with await trio.open_unix_socket(path), await listener.accept():
            pass


@unix
@pytest.mark.parametrize("backlog", [None, 0])
async def test_a_live_server_is_never_replaced(tmp_path: Path, backlog: int | None) -> None:
    """Not even one whose queue is full, which answers EAGAIN instead of accepting."""
    path = tmp_path / "ws.sock"
    async with await open_unix_listener(path, backlog=backlog) as listener:
        if backlog is not None:
            client = await trio.open_unix_socket(path)
        with pytest.raises(OSError, match="listening") as caught:
            await open_unix_listener(path)
        assert caught.value.errno == errno.EADDRINUSE
        if backlog is None:
            client = await trio.open_unix_socket(path)
        async with client, await listener.accept():
            pass


@unix
@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "dangling symlink"])
async def test_what_is_no_socket_is_never_touched(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "ws.sock", tmp_path / "target"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        if kind == "symlink":
            leave_stale(target)
        path.symlink_to(target)
    before = sorted(entry.name for entry in tmp_path.iterdir())
    with pytest.raises(FileExistsError):
        await open_unix_listener(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


@unix
async def test_closing_leaves_a_successors_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "ws.sock"
    first = await open_unix_listener(path)
    path.unlink()
    second = await open_unix_listener(path)
    await first.aclose()
    async with await trio.open_unix_socket(path), await second.accept():
        pass
    await second.aclose()
    assert not path.exists()


@unix
async def test_the_file_goes_even_if_the_directory_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path means what it meant when the listener was opened."""
    monkeypatch.chdir(tmp_path)
    listener = await open_unix_listener("ws.sock")
    monkeypatch.chdir("/")
    await listener.aclose()
    assert list(tmp_path.iterdir()) == []


@unix
async def test_of_many_who_replace_one_stale_file_exactly_one_wins(tmp_path: Path) -> None:
    """Processes of their own, because within one nothing happens between looking and binding."""
    path = tmp_path / "ws.sock"
    program = (
        "import sys, trio\n"
        "from trio_ws import open_unix_listener\n"
        "async def main():\n"
        "    sys.stdin.readline()\n"
        "    try:\n"
        "        listener = await open_unix_listener(sys.argv[1])\n"
        "    except OSError:\n"
        "        print('lost', flush=True)\n"
        "    else:\n"
        "        print('won', flush=True)\n"
        "        sys.stdin.readline()\n"
        "        await listener.aclose()\n"
        "trio.run(main)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    leave_stale(path)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            racers = [
                await nursery.start(
                    lambda task_status: trio.run_process(
                        command,
                        stdin=-1,
                        stdout=-1,
                        task_status=task_status,
                    )
                )
                for _ in range(4)
            ]
            for racer in racers:
                await racer.stdin.send_all(b"go\n")
            said = [(await racer.stdout.receive_some()).strip() for racer in racers]
            assert sorted(said) == [b"lost"] * 3 + [b"won"]
            async with await trio.open_unix_socket(path):
                pass
            for racer in racers:
                await racer.stdin.aclose()
    assert not path.exists()


@unix
async def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        await open_unix_listener(tmp_path / ("x" * 200))
    with pytest.raises(FileNotFoundError):
        await open_unix_listener(tmp_path / "missing" / "ws.sock")
    assert list(tmp_path.iterdir()) == []


@unix
async def test_waiting_for_the_lock_can_be_cancelled(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    import fcntl

    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with trio.move_on_after(5) as scope:
        await open_unix_listener(tmp_path / "ws.sock")
    assert scope.cancelled_caught
    assert list(tmp_path.iterdir()) == []
    os.close(descriptor)
    await (await open_unix_listener(tmp_path / "ws.sock")).aclose()
