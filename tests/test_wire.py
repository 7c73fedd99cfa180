"""The two wires: a socket's descriptor and any trio stream.

Lives here: `_wire` alone, over socket pairs and memory streams. Must never live here: frames.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_ws._wire import MAX_READ_SIZE, READ_SIZE, SocketWire, StreamWire, open_wire, size_for

posix = pytest.mark.skipif(sys.platform == "win32", reason="descriptors are used on Unix only")


@asynccontextmanager
async def socket_pair() -> AsyncIterator[tuple[SocketWire, trio.SocketStream]]:
    """A wire, and the peer as a stream."""
    near, far = (
        trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair()
    )
    wire = open_wire(near)
    assert isinstance(wire, SocketWire)
    async with near, far:
        yield wire, far


class Whole(trio.abc.Stream):
    """Passes everything on and, as TLS, cannot be half-closed."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


# -- which one -----------------------------------------------------------------------------------


@posix
async def test_only_a_plain_socket_is_used_by_its_descriptor() -> None:
    """Exactly `trio.SocketStream` is; what wraps one (as TLS does) is used through its methods."""
    near, far = socket.socketpair()
    with near, far:
        plain = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        assert open_wire(plain).immediate
        assert not open_wire(Whole(plain)).immediate
        assert not open_wire(trio.testing.memory_stream_pair()[0]).immediate


# -- the socket ----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
async def test_the_kernel_tells_what_the_peers_has_not_taken() -> None:
    """What stands in its queue, nothing once the peer has read, nothing once it is closed."""
    async with socket_pair() as (wire, far):
        assert wire.unacknowledged() == 0
        taken = wire.write_now([b"x" * 1000])
        assert wire.unacknowledged() >= taken == 1000
        assert await far.receive_some(2000) == b"x" * 1000
        assert wire.unacknowledged() == 0
        wire.close_now()
        assert wire.unacknowledged() == 0


@posix
async def test_a_read_waits_returns_bytes_and_then_the_end() -> None:
    """What the peer sent, in pieces as they come, then b""."""
    async with socket_pair() as (wire, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.send_all, b"one")
            assert await wire.read() == b"one"
        assert wire.read_now() is None
        await far.send_all(b"two")
        assert wire.read_now() == b"two"
        await far.send_eof()
        assert await wire.read() == b""
        assert wire.read_now() == b""


@posix
async def test_every_read_is_a_checkpoint() -> None:
    """Also where the kernel holds more than one read took, so that no flood starves a task."""
    async with socket_pair() as (wire, far), trio.open_nursery() as nursery:
        data = os.urandom(5 * READ_SIZE)
        nursery.start_soon(far.send_all, data)
        received = b""
        while len(received) < len(data):
            with trio.testing.assert_checkpoints():
                received += await wire.read()
        assert received == data


@pytest.mark.parametrize(
    ("missing", "size"),
    [
        (0, READ_SIZE),
        (READ_SIZE, READ_SIZE),
        (READ_SIZE + 1, READ_SIZE + 1),
        (MAX_READ_SIZE + 1, MAX_READ_SIZE),
        (1 << 62, MAX_READ_SIZE),
    ],
)
def test_a_read_asks_for_the_rest_of_a_large_frame_and_no_more(missing: int, size: int) -> None:
    """Many small messages never come in large reads: they would pass the bound on reading ahead."""
    assert size_for(missing) == size


@posix
async def test_the_rest_of_a_large_frame_comes_in_one_read() -> None:
    """What the kernel holds of it is read at once."""
    async with socket_pair() as (wire, far):
        await far.send_all(b"x" * (READ_SIZE + 5000))
        assert len(await wire.read(READ_SIZE + 3000)) == READ_SIZE + 3000
        assert len(await wire.read()) == 2000


@posix
async def test_a_cancelled_read_loses_nothing() -> None:
    """Cancelled while it waits, or before it looked: the bytes are there for the next one."""
    async with socket_pair() as (wire, far):
        with trio.move_on_after(0):
            await wire.read()
        await far.send_all(b"x" * READ_SIZE + b"rest")
        assert len(await wire.read()) > 0
        with trio.CancelScope() as scope:
            scope.cancel()
            await wire.read()
        assert scope.cancelled_caught
        received = 0
        while (data := wire.read_now()) is not None:
            received += len(data)
        assert received > 0


@posix
async def test_a_full_kernel_takes_a_part_and_then_nothing() -> None:
    """`write_now` returns what was taken, in order across buffers; 0 when there is no room."""
    async with socket_pair() as (wire, far):
        block = os.urandom(50_000)
        sent = b""
        while True:
            taken = wire.write_now([block[:1], memoryview(block)[1:30_000], block[30_000:]])
            sent += block[:taken]
            if taken < len(block):
                break
        while taken := wire.write_now([b"y"]):
            sent += b"y" * taken
        assert wire.write_now([b"z", b"z"]) == 0
        received = b""
        while len(received) < len(sent):
            received += await far.receive_some()
        assert received == sent


@posix
async def test_wait_writable_wakes_when_the_peer_reads() -> None:
    """A full kernel is waited for, and the wait ends when there is room."""
    async with socket_pair() as (wire, far), trio.open_nursery() as nursery:
        filled = 0
        while taken := wire.write_now([b"x" * 65536]):
            filled += taken
        woken = trio.Event()

        async def writer() -> None:
            await wire.wait_writable()
            woken.set()

        nursery.start_soon(writer)
        await trio.testing.wait_all_tasks_blocked()
        assert not woken.is_set()
        while filled:
            filled -= len(await far.receive_some())
        await woken.wait()
        assert wire.write_now([b"y"]) == 1


@posix
async def test_a_half_close_still_reads() -> None:
    """The peer sees the end, and is still heard."""
    async with socket_pair() as (wire, far):
        await wire.half_close()
        assert await far.receive_some() == b""
        await far.send_all(b"last words")
        assert await wire.read() == b"last words"


CALLS: dict[str, Callable[[SocketWire], Awaitable[object]]] = {
    "read": SocketWire.read,
    "wait_writable": SocketWire.wait_writable,
}


@posix
@pytest.mark.parametrize("name", CALLS)
async def test_closing_wakes_whoever_waits(name: str) -> None:
    """A task blocked on the descriptor wakes with ClosedResourceError; a later one is refused."""
    async with socket_pair() as (wire, _), trio.open_nursery() as nursery:
        while wire.write_now([b"x" * 65536]):
            pass
        woken = []

        async def waiter() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await CALLS[name](wire)
            woken.append(name)

        nursery.start_soon(waiter)
        await trio.testing.wait_all_tasks_blocked()
        assert not woken
        wire.close_now()
        await trio.testing.wait_all_tasks_blocked()
        assert woken == [name]
        await waiter()
        wire.close_now()
        await wire.aclose()


@pytest.mark.row("C10")
@posix
async def test_a_closed_wire_never_touches_a_strangers_socket() -> None:
    """The number of a closed descriptor is somebody else's soon; every use is refused."""
    async with socket_pair() as (wire, far):
        number = wire.fileno()
        wire.close_now()
        assert wire.fileno() == -1
        strangers = [socket.socketpair() for _ in range(3)]
        try:
            assert number in {end.fileno() for pair in strangers for end in pair}
            for call in (
                wire.read_now,
                lambda: wire.write_frame(b"leak"),
                lambda: wire.write_now([b"leak"]),
                lambda: wire.write_now([b"le", b"ak"]),
            ):
                with pytest.raises(OSError, match="Bad file descriptor"):
                    call()
            for pair in strangers:
                for end in pair:
                    end.setblocking(False)
                    with pytest.raises(BlockingIOError):
                        end.recv(10)
        finally:
            for pair in strangers:
                for end in pair:
                    end.close()
        assert await far.receive_some() == b""


@posix
async def test_a_reset_is_an_os_error() -> None:
    """A peer that resets is told as OSError by reading and by writing, and closing still works."""
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener[0]:
        port = listener[0].socket.getsockname()[1]
        far = await trio.open_tcp_stream("127.0.0.1", port)
        near = await listener[0].accept()
        wire = open_wire(near)
        assert isinstance(wire, SocketWire)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await far.aclose()
        with pytest.raises(OSError, match="reset"):
            await wire.read()
        with pytest.raises(OSError):
            for _ in range(3):
                wire.write_now([b"x"])
        wire.close_now()


# -- any stream ----------------------------------------------------------------------------------


async def test_a_stream_is_read_written_and_closed() -> None:
    """All through the stream's own methods; reads come out as `bytes`."""
    near, far = trio.testing.memory_stream_pair()
    wire = StreamWire(near)
    await wire.write(b"to you")
    await wire.write(memoryview(b", too"))
    assert await far.receive_some() == b"to you, too"
    await far.send_all(b"to me")
    data = await wire.read()
    assert (type(data), data) == (bytes, b"to me")
    await wire.half_close()
    assert await far.receive_some() == b""
    await far.send_eof()
    assert await wire.read() == b""
    await wire.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await wire.read()


async def test_a_stream_that_cannot_be_half_closed_is_left_open() -> None:
    """TLS has no half-close; nothing is sent, nothing raised."""
    near, far = trio.testing.memory_stream_pair()
    wire = open_wire(Whole(near))
    await wire.half_close()
    assert isinstance(wire, StreamWire)
    await wire.write(b"still open")
    assert await far.receive_some() == b"still open"


async def test_closing_a_stream_under_cancellation_closes_it() -> None:
    """`trio.abc.AsyncResource`'s promise holds through the wire."""
    near, far = trio.testing.memory_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await StreamWire(near).aclose()
    assert scope.cancelled_caught
    assert await far.receive_some() == b""
