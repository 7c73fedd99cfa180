"""Opening the sockets a server accepts on: TCP on every family with one port, unix sockets by path.

Lives here: binding, listening, and the file a unix socket leaves in the file system. Must never
live here: accepting, or anything that knows what is spoken over the streams.

A unix socket's file outlives its process, so opening means deciding whether the file in the way is
stale. Looking and binding are two steps; a lock on the directory makes them one among programs
that do as we do. The order within it does the rest: nobody can connect before `listen`, so the mode
is right before it matters, and a file is unlinked while its socket still listens, so nobody takes
it for stale and puts his own there in between.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["open_tcp_listeners", "open_unix_listener"]

MAX_BACKLOG = 0xFFFF
"""As good as "whatever the system allows": it truncates silently, but some store 16 bits."""

PORT_ATTEMPTS = 32
"""Tries to find one port that is free on every family. The second try is already rare."""

LOCK_POLL = 0.01
"""Seconds between tries for the lock on the directory; its holders need well under one."""


async def open_tcp_listeners(
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    reuse_port: bool = False,
) -> list[trio.SocketListener]:
    """Listen for TCP connections: `trio.open_tcp_listeners`, with two differences.

    Port 0 means a free port that the system chooses *once*: the listeners of all address families
    share it. And `reuse_port` exists.

    Args:
        port: 0 to 65535.
        host: a name or address of a local interface; all its addresses are listened on. None
            means every interface, IPv4 and IPv6; ``"0.0.0.0"`` and ``"::"`` mean one family.
        backlog: connections the kernel queues until they are accepted; None means as many as it
            is configured to allow.
        reuse_port: set SO_REUSEPORT, so that several processes can listen on the same port and
            the kernel spreads connections among them.

    Returns:
        One listener per address. The caller owns them; `serve_listeners` takes them over.

    Raises:
        TypeError: `port` or `backlog` is not an int.
        ValueError: `port` is out of range.
        RuntimeError: `reuse_port`, where the platform has no such thing.
        OSError: an address cannot be bound; nothing stays open.

    Cancellation: only name resolution waits; nothing stays open if cancelled.
    """
    if type(port) is not int:
        raise TypeError(f"port must be an int, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be between 0 and 65535, not {port}")
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise RuntimeError("this platform has no SO_REUSEPORT")
    queue = _queue_length(backlog)
    found = await trio.socket.getaddrinfo(
        host, port, type=trio.socket.SOCK_STREAM, flags=trio.socket.AI_PASSIVE
    )
    addresses = [(family, tuple(sockaddr)) for family, _, _, _, sockaddr in found]
    for attempt in range(1, PORT_ATTEMPTS + 1):
        try:
            return await _listen_everywhere(addresses, port, queue, reuse_port=reuse_port)
        except OSError as exc:
            # A port the system chose for one family may be taken on the next: choose again.
            if port != 0 or exc.errno != errno.EADDRINUSE or attempt == PORT_ATTEMPTS:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _queue_length(backlog: int | None) -> int:
    if backlog is None:
        return MAX_BACKLOG
    if type(backlog) is not int:
        raise TypeError(f"backlog must be an int or None, not {backlog!r}")
    return min(backlog, MAX_BACKLOG)


async def _listen_everywhere(
    addresses: Sequence[tuple[socket.AddressFamily, tuple[object, ...]]],
    port: int,
    backlog: int,
    *,
    reuse_port: bool,
) -> list[trio.SocketListener]:
    """One listener per address, all on one port, or an exception and nothing left open."""
    sockets: list[trio.socket.SocketType] = []
    missing: list[OSError] = []
    try:
        for family, sockaddr in addresses:
            address = (sockaddr[0], port, *sockaddr[2:])
            try:
                sock = await _listen_on(family, address, backlog, reuse_port=reuse_port)
            except OSError as exc:
                if not _family_is_missing(exc, family):
                    raise
                missing.append(exc)
                continue
            sockets.append(sock)
            port = sock.getsockname()[1]
        if not sockets:
            raise OSError(
                errno.EAFNOSUPPORT, "no address family of this host is available here"
            ) from ExceptionGroup("one error per address", missing)
        return [trio.SocketListener(sock) for sock in sockets]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise


def _family_is_missing(exc: OSError, family: socket.AddressFamily) -> bool:
    """Whether the machine lacks this family, as opposed to the address being wrong or taken.

    Names resolve to IPv6 addresses on machines that have IPv6 switched off; as long as another
    address works, that is no error.
    """
    if exc.errno == errno.EAFNOSUPPORT:
        return True
    return family == socket.AF_INET6 and exc.errno == errno.EADDRNOTAVAIL


async def _listen_on(
    family: socket.AddressFamily, address: tuple[object, ...], backlog: int, *, reuse_port: bool
) -> trio.socket.SocketType:
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it means that others may steal the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """A listener on a unix socket that removes its file when it is closed."""

    def __init__(self, sock: trio.socket.SocketType, path: Path) -> None:
        self.socket = sock
        self._listener = trio.SocketListener(sock)
        self._path = path
        self._file = _identity(path)

    def __repr__(self) -> str:
        return f"<UnixListener {str(self._path)!r}>"

    async def accept(self) -> trio.SocketStream:
        """Wait for a connection; see `trio.SocketListener.accept`."""
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Remove the socket file, if it still is this listener's, and close. Idempotent."""
        if self._file is not None:
            # While the socket still listens: nobody takes the file for stale and replaces it.
            if _identity(self._path) == self._file:
                with suppress(OSError):
                    self._path.unlink()
            self._file = None
        await self._listener.aclose()


async def open_unix_listener(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    mode: int = 0o600,
    backlog: int | None = None,
) -> trio.abc.Listener[trio.SocketStream]:
    """Listen on a unix socket.

    A socket file that a dead server left behind is replaced. A file with a live server behind it,
    or one that is no socket, is never touched. Closing the listener removes the file, unless
    somebody else has put another in its place.

    Args:
        path: of the socket file; its directory must exist. About 100 bytes at most.
        mode: permissions of the file: who may connect. The default is this user alone; a reverse
            proxy of another user needs ``0o660`` and a common group, or ``0o666``.
        backlog: as in `open_tcp_listeners`.

    Returns:
        The listener. The caller owns it; `serve_listeners` takes it over.

    Raises:
        OSError: with errno EADDRINUSE if a server listens there; `FileExistsError` if the file is
            no socket; anything else that the file system has to say.
        RuntimeError: the platform has no unix sockets.

    Cancellation: waits only while another server is just opening a socket in the same directory;
    if cancelled, nothing has happened.
    """
    if sys.platform == "win32":
        raise RuntimeError("unix sockets are not supported on this platform")
    absolute, queue = _absolute(path), _queue_length(backlog)
    while True:
        await trio.lowlevel.checkpoint()
        with _directory_lock(absolute.parent) as locked:
            if locked:
                return _bind_unix(absolute, mode, queue)
        await trio.sleep(LOCK_POLL)


def _absolute(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Path:
    return Path(os.fsdecode(path)).absolute()


def _bind_unix(path: Path, mode: int, backlog: int) -> UnixListener:
    """Replace a stale file at `path` by a listening socket; never waits."""
    _remove_if_stale(path)
    sock = trio.socket.from_stdlib_socket(_bound_unix_socket(path))
    try:
        path.chmod(mode)
        sock.listen(backlog)
        return UnixListener(sock, path)
    except BaseException:
        path.unlink()
        sock.close()
        raise


def _bound_unix_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_if_stale(path: Path) -> None:
    """Unlink the socket file at `path` if nobody listens on it; OSError if it must stay."""
    before = _identity(path)
    if before is None:
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise FileExistsError(errno.EEXIST, "exists and is not a socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a live server with a full queue answers EAGAIN, at once
        error = probe.connect_ex(str(path))
    if error != errno.ECONNREFUSED or _identity(path) != before:
        raise OSError(errno.EADDRINUSE, "a server is listening there", str(path))
    path.unlink()


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another put under the same name; None if there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _directory_lock(directory: Path) -> Iterator[bool]:
    """Hold the lock on a directory; yields False if somebody else has it. Leaves no file behind."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            # File systems without such locks: go on unprotected, there is nothing better.
            yield exc.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        else:
            yield True
    finally:
        os.close(descriptor)
