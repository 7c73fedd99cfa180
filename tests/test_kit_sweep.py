"""The sweep finds what it is there to find: torn writes, hangs, swallowed cancellations.

Lives here: positive controls of `cancel_at_every_step` and `interrupt_at_every_step`, on plain trio
code. Must never live here: a WebSocket.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws.testing import (
    BINARY,
    ChunkedStream,
    FrameError,
    SweepFailure,
    Target,
    cancel_at_every_step,
    encode_frame,
    interrupt_at_every_step,
    parse_frames,
)


class Pipe:
    """A near end that takes 3 bytes a call, and everything that reached the far end."""

    def __init__(self) -> None:
        near, self.far = trio.testing.memory_stream_pair()
        self.near = ChunkedStream(near, 3)

    async def transcript(self) -> bytes:
        await self.near.aclose()
        data = bytearray()
        while chunk := await self.far.receive_some():
            data += chunk
        return bytes(data)


async def torn_writer(target: Target) -> None:
    """The planted bug: after a cancelled write the stream is used again as if it were whole."""
    pipe = Pipe()
    target.watch(pipe.near)
    async with target:
        await pipe.near.send_all(encode_frame(BINARY, b"first message"))
    await pipe.near.send_all(encode_frame(BINARY, b"second message"))
    frames, rest = parse_frames(await pipe.transcript(), masked=False)
    assert not rest
    assert frames[-1].payload == b"second message"


async def careful_writer(target: Target) -> None:
    """The same without the bug: a write that was cut short is the last one."""
    pipe = Pipe()
    target.watch(pipe.near)
    whole = False
    async with target:
        await pipe.near.send_all(encode_frame(BINARY, b"first message"))
        whole = True
    if whole:
        await pipe.near.send_all(encode_frame(BINARY, b"second message"))
    frames, _ = parse_frames(await pipe.transcript(), masked=False)
    assert len(frames) == 2 if whole else len(frames) <= 1


def test_a_planted_torn_write_is_found() -> None:
    """Cancelling a half-done write and going on is caught, and the failure names the point."""
    with pytest.raises(SweepFailure, match="torn_writer, point") as info:
        cancel_at_every_step(torn_writer)
    assert isinstance(info.value.__cause__, FrameError | AssertionError)


def test_the_same_code_without_the_bug_passes_and_was_cut_inside_writes() -> None:
    """The counters say what was covered: several points, most of them inside a partial write."""
    report = cancel_at_every_step(careful_writer)
    assert report.points >= 5
    assert report.partial_writes >= 4
    assert report.runs > report.points
    assert "inside a partial write" in str(report)


def test_a_parked_task_is_cancelled_while_others_take_the_steps() -> None:
    """Points are steps of any task: the waiter below is hit although it takes no step itself."""

    async def scenario(target: Target) -> None:
        event = trio.Event()

        async def waker() -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            event.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waker)
            async with target:
                await event.wait()

    report = cancel_at_every_step(scenario)
    assert report.delivered >= 4


def test_points_behind_a_sleep_are_reached_on_the_virtual_clock() -> None:
    """An hour of sleep costs nothing, and the moments before and after it are both visited."""
    reached: list[int] = []

    async def scenario(target: Target) -> None:
        done = 0
        async with target:
            while done < 3:
                done += 1
                await trio.sleep(600)
        reached.append(done)

    cancel_at_every_step(scenario)
    assert set(reached) >= {1, 2, 3}


def test_a_swallowed_cancellation_is_found() -> None:
    """Code that catches Cancelled and goes on as if nothing had happened fails the sweep."""

    async def scenario(target: Target) -> None:
        async with target:
            try:
                await trio.sleep(1)
            except trio.Cancelled:
                pass

    with pytest.raises(SweepFailure, match="swallowed"):
        cancel_at_every_step(scenario)


def test_a_hang_is_found_even_behind_a_shield() -> None:
    """A cancelled task that waits for ever behind a shield ends the run with its stack."""

    async def waits_for_nothing() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    async def scenario(target: Target) -> None:
        async with target:
            try:
                await trio.sleep(1)
            finally:
                await waits_for_nothing()

    with pytest.raises(SweepFailure, match=r"(?s)behind a shield.*waits_for_nothing"):
        cancel_at_every_step(scenario)


def test_a_hang_that_cancellation_can_end_is_found_too() -> None:
    """Waiting for an event that never comes is a failure with a stack, not a stuck test run."""

    async def scenario(target: Target) -> None:
        async with target:
            await trio.lowlevel.checkpoint()
        await trio.Event().wait()

    with pytest.raises(SweepFailure, match=r"(?s)not over after 60 virtual seconds.*wait"):
        cancel_at_every_step(scenario, timeout=60)


def test_a_scenario_without_a_target_is_an_error() -> None:
    """A sweep that would sweep nothing says so."""

    async def scenario(target: Target) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(SweepFailure, match="never entered"):
        cancel_at_every_step(scenario)


def test_a_scenario_that_never_ends_is_given_up() -> None:
    """The number of points is bounded."""

    async def scenario(target: Target) -> None:
        async with target:
            while True:
                await trio.lowlevel.checkpoint()

    with pytest.raises(SweepFailure, match="still not finished"):
        cancel_at_every_step(scenario, max_points=20)


def test_an_interrupt_between_steps_comes_out() -> None:
    """SIGINT at every step reaches the scenario as KeyboardInterrupt."""

    async def scenario(target: Target) -> None:
        done = False
        async with target:
            for _ in range(3):
                await trio.sleep(1)
            done = True
        assert target.interrupted or done

    report = interrupt_at_every_step(scenario)
    assert report.points >= 4


def test_an_interrupt_at_every_line_finds_a_torn_update() -> None:
    """With `inside`, the interrupt strikes between two statements that belong together."""

    async def scenario(target: Target) -> None:
        left, right = [0], [0]
        async with target:
            left[0] += 1
            right[0] += 1
        assert left == right

    with pytest.raises(SweepFailure, match=r"\[1\] == \[0\]"):
        interrupt_at_every_step(scenario, inside="test_kit_sweep")


def test_an_interrupt_that_is_swallowed_is_found() -> None:
    """Code that eats KeyboardInterrupt fails the sweep."""

    async def scenario(target: Target) -> None:
        async with target:
            try:
                await trio.sleep(1)
                await trio.sleep(1)
            except KeyboardInterrupt:
                pass

    with pytest.raises(SweepFailure, match="never came out"):
        interrupt_at_every_step(scenario)
