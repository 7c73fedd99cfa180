"""The writer: order, handing over to the flusher, and who wakes when.

Lives here: `_writer` over fake wires that take what the test lets them take. Must never live here:
frames (any bytes will do), real sockets (test_wire).
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from trio_ws._services import open_services
from trio_ws._writer import Writer

if TYPE_CHECKING:
    from trio_ws._wire import SocketWire, StreamWire


class Kernel:
    """A socket's wire: takes `room` bytes, then nothing until `allow`."""

    immediate = True

    def __init__(self) -> None:
        self.out = b""
        self.room = 0
        self.error: Exception | None = None
        self.changed = trio.Event()

    def allow(self, count: int) -> None:
        self.room += count
        self.wake()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def write_now(self, buffers: list[bytes | memoryview]) -> int:
        if self.error is not None:
            raise self.error
        taken = b"".join(bytes(buffer) for buffer in buffers)[: self.room]
        self.out += taken
        self.room -= len(taken)
        return len(taken)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.room and self.error is None:
            await self.changed.wait()


class Pipe(Kernel):
    """A stream's wire: the same, by one awaited call."""

    immediate = False

    async def write(self, data: bytes | memoryview) -> None:
        rest = bytes(data)
        await trio.lowlevel.checkpoint()
        while rest:
            await self.wait_writable()
            rest = rest[self.write_now([rest]) :]


@dataclass
class Owner:
    """Hears that the wire takes no more."""

    failures: list[Exception] = field(default_factory=list)

    def write_failed(self, exc: Exception) -> None:
        self.failures.append(exc)


class Stamp:
    """Wants to know when its last byte has left."""

    sent_at: float | None = None


@dataclass
class Stage:
    writer: Writer
    wire: Kernel
    owner: Owner

    def send(self, frame: bytes) -> None:
        self.writer.outbox.append(frame)
        self.writer.write_out()

    async def let(self, count: int) -> bytes:
        """Let the wire take `count` bytes more; all that it has taken when nothing moves."""
        self.wire.allow(count)
        await trio.testing.wait_all_tasks_blocked()
        return self.wire.out


@asynccontextmanager
async def stage(kind: type[Kernel], high_water: int = 100) -> AsyncIterator[Stage]:
    wire, owner = kind(), Owner()
    async with open_services() as services:
        real = cast("SocketWire | StreamWire", wire)
        yield Stage(Writer(real, services, high_water, owner), wire, owner)


both = pytest.mark.parametrize("kind", [Kernel, Pipe])


# -- order ---------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("seed", range(20))
async def test_bytes_go_out_whole_and_in_order(kind: type[Kernel], seed: int) -> None:
    """Whatever the wire takes at a time, and whenever frames come: their concatenation."""
    rng = random.Random(seed)
    async with stage(kind) as it:
        expected = b""
        for number in range(60):
            frame = b"<%d>" % number * rng.randint(1, 20)
            expected += frame
            it.send(frame)
            if rng.random() < 0.5:
                assert expected.startswith(await it.let(rng.randint(0, 60)))
        assert await it.let(len(expected)) == expected
        assert it.writer.outbox.size == 0
        assert not it.writer.blocked


async def test_a_socket_with_room_is_written_on_the_spot() -> None:
    """No task, no await: the bytes are with the kernel when `write_out` returns."""
    async with stage(Kernel) as it:
        it.wire.allow(100)
        it.send(b"now")
        assert it.wire.out == b"now"
        assert not it.writer.blocked


async def test_what_the_kernel_does_not_take_is_the_flushers() -> None:
    """The rest is written by a service task; until then nobody else writes a byte."""
    async with stage(Kernel) as it:
        it.wire.allow(3)
        it.send(b"abcdef")
        assert it.wire.out == b"abc"
        assert it.writer.blocked
        it.wire.room = 100  # not announced: only the flusher may look
        it.send(b"ghi")
        assert it.wire.out == b"abc"
        assert await it.let(0) == b"abcdefghi"
        assert not it.writer.blocked
        it.send(b"on the spot again")
        assert it.wire.out == b"abcdefghion the spot again"


@both
async def test_no_users_cancellation_stops_the_flusher(kind: type[Kernel]) -> None:
    """A sender cancelled in the middle of its frame does not tear it."""
    async with stage(kind) as it:
        with trio.CancelScope() as scope:
            it.send(b"torn or not")
            await it.let(4)
            scope.cancel()
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert await it.let(100) == b"torn or not"


@both
async def test_the_flusher_waits_for_the_next_frame(kind: type[Kernel]) -> None:
    """Between messages nothing is lost: each new frame finds somebody to write it."""
    async with stage(kind) as it:
        for number in range(5):
            it.send(b"%d" % number)
            assert len(await it.let(1)) == number + 1
        assert it.wire.out == b"01234"


# -- pongs ---------------------------------------------------------------------------------------


@both
async def test_pongs_behind_a_blocked_write_shrink_to_one(kind: type[Kernel]) -> None:
    """Only the newest goes out, behind what was queued, once the wire takes bytes again."""
    async with stage(kind) as it:
        it.send(b"data")
        await it.let(1)
        assert it.writer.blocked
        for number in range(1000):
            it.writer.outbox.append_pong(b"(%d)" % number, blocked=it.writer.blocked)
            it.writer.write_out()
        assert it.writer.outbox.size <= 4
        assert await it.let(1000) == b"data(999)"


@both
async def test_a_pong_kept_during_the_last_write_goes_out(kind: type[Kernel]) -> None:
    """Nothing else need be sent for it: the pong is not stranded when the write has finished."""
    async with stage(kind) as it:
        it.send(b"data")
        await it.let(3)
        it.writer.outbox.append_pong(b"pong", blocked=it.writer.blocked)
        it.writer.write_out()
        await it.let(1)
        assert await it.let(100) == b"datapong"


# -- senders -------------------------------------------------------------------------------------


@both
async def test_senders_wait_above_the_high_water_mark(kind: type[Kernel]) -> None:
    """At the mark a sender waits; below it, it goes on."""
    async with stage(kind, high_water=10) as it:
        it.send(b"x" * 9)
        assert not it.writer.full()
        it.send(b"x")
        assert it.writer.full()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.writer.room, it.writer.full)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            if kind is Kernel:
                await it.let(1)
            else:
                await it.let(10)  # a stream's write is over when all of it is


@both
async def test_senders_wake_one_by_one(kind: type[Kernel]) -> None:
    """Room for one frame lets one sender in; the outbox never grows by a frame per waiter."""
    async with stage(kind, high_water=10) as it, trio.open_nursery() as nursery:
        it.send(b"x" * 10)
        peak = 0

        async def sender(name: bytes) -> None:
            nonlocal peak
            while it.writer.full():
                await it.writer.room(it.writer.full)
            it.send(name * 10)
            peak = max(peak, it.writer.outbox.size)

        for name in (b"a", b"b", b"c", b"d", b"e"):
            nursery.start_soon(sender, name)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 5
        for left in (4, 3, 2, 1, 0):
            await it.let(10)
            assert len(nursery.child_tasks) == left
        out = await it.let(1000)
        assert sorted(out[at : at + 10] for at in range(10, 60, 10)) == [
            name * 10 for name in (b"a", b"b", b"c", b"d", b"e")
        ]
        assert peak < 20


@pytest.mark.row("C11")
@both
@pytest.mark.parametrize("seed", range(30))
async def test_a_cancelled_sender_passes_the_room_on(kind: type[Kernel], seed: int) -> None:
    """However senders leave, also one cancelled just when it was woken: no other stays behind."""
    rng = random.Random(seed)
    async with stage(kind, high_water=10) as it, trio.open_nursery() as nursery:
        it.send(b"x" * 15)
        passed, scopes = 0, []

        async def sender(scope: trio.CancelScope) -> None:
            nonlocal passed
            with scope:
                while it.writer.full():
                    await it.writer.room(it.writer.full)
                passed += 1

        for _ in range(6):
            scopes.append(trio.CancelScope())
            nursery.start_soon(sender, scopes[-1])
        await trio.testing.wait_all_tasks_blocked()
        doomed = rng.sample(scopes, 3)
        doomed.pop().cancel()
        it.wire.allow(15)
        for scope in doomed:
            for _ in range(rng.randint(0, 3)):
                await trio.lowlevel.checkpoint()
            scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks
        assert passed >= 3


@both
async def test_sealing_lets_every_sender_go(kind: type[Kernel]) -> None:
    """Once the Close is queued nobody waits for room any more: they have to look at the end."""
    async with stage(kind, high_water=10) as it:
        it.send(b"x" * 20)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(it.writer.room, it.writer.full)
            await trio.testing.wait_all_tasks_blocked()
            it.writer.outbox.seal(b"close")
            it.writer.wake_senders()
        assert await it.let(100) == b"x" * 20 + b"close"


async def test_a_sender_that_waits_writes_what_was_left_for_later() -> None:
    """A full outbox that nobody is writing yet is written by the first who waits for room."""
    async with stage(Kernel, high_water=10) as it:
        it.wire.allow(100)
        it.writer.outbox.append(b"x" * 10)
        assert it.writer.full()
        await it.writer.room(it.writer.full)
        assert it.wire.out == b"x" * 10


@both
async def test_a_message_in_pieces_holds_other_messages_back_and_not_its_own(
    kind: type[Kernel],
) -> None:
    """While one is being composed, messages wait even on an empty outbox; its pieces do not.
    Whoever of them is woken first, the one that may go on does."""
    async with stage(kind, high_water=10) as it, trio.open_nursery() as nursery:
        it.writer.composing = True
        it.send(b"x" * 10)
        done = []

        async def message(number: int) -> None:
            await it.writer.room(it.writer.full)
            done.append(f"message {number}")

        async def piece() -> None:
            await it.writer.room(it.writer.full_for_pieces)
            done.append("piece")

        nursery.start_soon(message, 1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(piece)
        nursery.start_soon(message, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert await it.let(100) == b"x" * 10
        assert done == ["piece"]
        it.writer.end_composing()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(done) == ["message 1", "message 2", "piece"]


# -- when it has left ----------------------------------------------------------------------------


@both
async def test_a_mark_is_set_when_its_last_byte_has_left(
    kind: type[Kernel], autojump_clock: trio.testing.MockClock
) -> None:
    """Not when it was queued, and not for what was queued behind it."""
    async with stage(kind) as it:
        first, second = Stamp(), Stamp()
        start = trio.current_time()
        it.send(b"12345")
        it.writer.mark(first)
        await it.let(1)
        it.send(b"67890")
        it.writer.mark(second)
        await trio.sleep(3)
        await it.let(3)
        assert first.sent_at is None
        await trio.sleep(4)
        await it.let(1)
        assert first.sent_at == start + 7
        assert second.sent_at is None
        await trio.sleep(1)
        await it.let(5)
        assert second.sent_at == start + 8


@both
async def test_drained_waits_for_the_last_byte(kind: type[Kernel]) -> None:
    """Every waiter returns when the outbox is empty, at once if it is."""
    async with stage(kind) as it:
        await it.writer.drained()
        it.send(b"abc")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.writer.drained)
            nursery.start_soon(it.writer.drained)
            await it.let(2)
            assert len(nursery.child_tasks) == 2
            await it.let(1)
            assert not nursery.child_tasks


# -- the end -------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("error", [OSError("reset"), trio.ClosedResourceError("closed")])
async def test_a_failed_write_is_told_once_and_wakes_all(
    kind: type[Kernel], error: Exception
) -> None:
    """The owner hears the very exception; nothing is written after it, nobody stays waiting."""
    async with stage(kind, high_water=10) as it:
        it.send(b"x" * 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.writer.drained)
            nursery.start_soon(it.writer.room, it.writer.full)
            await it.let(5)
            it.wire.fail(error)
        assert it.owner.failures == [error]
        assert it.writer.stopped
        assert it.writer.outbox.sealed
        it.wire.error = None
        it.writer.write_out()
        assert await it.let(100) == b"x" * 5


async def test_a_write_that_fails_at_once_does_not_raise() -> None:
    """`write_out` never raises; the owner is told in the same step."""
    async with stage(Kernel) as it:
        it.wire.fail(BrokenPipeError())
        it.send(b"x")
        assert len(it.owner.failures) == 1
        assert it.writer.stopped
        assert not it.writer.blocked


@both
async def test_stopping_ends_a_write_under_way(kind: type[Kernel]) -> None:
    """Not one byte follows, also where the wire had room again by then; twice is as good."""
    async with stage(kind) as it:
        it.send(b"abcdef")
        await it.let(2)
        it.writer.stop()
        it.writer.stop()
        assert await it.let(100) == b"ab"
        await it.writer.drained()
        await it.writer.room(it.writer.full)
        assert it.owner.failures == []
        assert not it.writer.blocked


@both
async def test_stopping_before_the_flusher_ran_ends_it(kind: type[Kernel]) -> None:
    """A flusher that was started and has not run yet writes nothing."""
    async with stage(kind) as it:
        it.send(b"abcdef")
        it.writer.stop()
        assert await it.let(100) == b""
        assert it.owner.failures == []


async def test_a_flusher_that_was_woken_as_the_end_came_touches_nothing() -> None:
    """Room in the kernel and the end within one scheduler pass: the wire, closed by then, is not
    written to, and the end is not told a second time as a failed write."""
    async with stage(Kernel) as it:
        it.send(b"abcdef")
        await it.let(2)
        it.wire.allow(100)
        it.writer.stop()
        it.wire.error = trio.ClosedResourceError("closed by its owner")
        await trio.testing.wait_all_tasks_blocked()
        assert it.owner.failures == []
        assert it.wire.out == b"ab"
        assert not it.writer.blocked
