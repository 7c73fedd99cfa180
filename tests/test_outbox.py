"""The outbox: bytes out are bytes in, in order, however little the transport takes.

Lives here: `_outbox` alone, also against a model that is one byte string. Must never live here:
who writes it, and when (test_writer).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws._outbox import MAX_BUFFERS, MAX_JOIN, Outbox


def joined(outbox: Outbox) -> bytes:
    """What a vectored write would be offered."""
    return b"".join(bytes(buffer) for buffer in outbox.buffers())


class Model:
    """The outbox as simple as can be: the bytes that wait, a spare pong, a flag."""

    def __init__(self) -> None:
        self.waiting = b""
        self.pong = b""
        self.sealed = False

    def add(self, frame: bytes) -> None:
        self.waiting += frame

    def settle(self) -> None:
        self.waiting, self.pong = self.waiting + self.pong, b""


FRAMES = st.binary(min_size=2, max_size=40)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), FRAMES),
        st.tuples(st.just("pong"), FRAMES),
        st.tuples(st.just("blocked pong"), FRAMES),
        st.tuples(st.just("settle"), st.just(b"")),
        st.tuples(st.just("seal"), FRAMES),
        st.tuples(st.just("write"), st.integers(0, 120)),
        st.tuples(st.just("write one"), st.integers(0, 120)),
    ),
    max_size=60,
)


@given(STEPS)
def test_it_is_a_byte_string_with_a_spare_pong(steps: list[tuple[str, bytes | int]]) -> None:
    """Any sequence of appends, pongs, seals and partial writes gives what the model gives."""
    outbox, model = Outbox(), Model()
    put = taken = 0
    for step, value in steps:
        if isinstance(value, int):
            if not outbox.size:
                assert joined(outbox) == b""
                continue
            offered = joined(outbox) if step == "write" else bytes(outbox.take())
            assert offered
            assert model.waiting.startswith(offered)
            assert step == "write one" or offered == model.waiting
            count = min(value, len(offered))
            outbox.advance(count)
            taken += count
            model.waiting = model.waiting[count:]
        elif step == "settle":
            outbox.settle_pong()
            model.settle()
        elif step == "pong":
            outbox.append_pong(value, blocked=False)
            model.add(b"" if model.sealed else value)
        elif step == "blocked pong":
            outbox.append_pong(value, blocked=True)
            model.pong = b"" if model.sealed else value
        elif model.sealed:
            continue
        elif step == "append":
            outbox.append(value)
            model.add(value)
        else:
            outbox.seal(value)
            model.settle()
            model.add(value)
            model.sealed = True
        put = taken + len(model.waiting)
        assert outbox.size == len(model.waiting)
        assert outbox.queued == put
        assert outbox.written == taken
        assert outbox.sealed == model.sealed
    assert joined(outbox) == model.waiting


def test_one_vectored_write_has_at_most_iov_max_buffers() -> None:
    """5,000 queued frames go out in several writes, in order and whole."""
    outbox, out, writes = Outbox(), b"", 0
    frames = [b"%4d" % number for number in range(5000)]
    for frame in frames:
        outbox.append(frame)
    while outbox.size:
        buffers = outbox.buffers()
        assert len(buffers) <= MAX_BUFFERS
        some = b"".join(bytes(buffer) for buffer in buffers)[:2047]  # ends inside a frame
        out += some
        outbox.advance(len(some))
        writes += 1
    assert out == b"".join(frames)
    assert writes == -(-len(out) // 2047)


def test_small_frames_are_joined_and_large_ones_are_not_copied() -> None:
    """One buffer a call: up to `MAX_JOIN` bytes of small frames, or of one large frame in place."""
    outbox = Outbox()
    for _ in range(3):
        outbox.append(b"x" * (MAX_JOIN // 2))
    large = b"y" * (MAX_JOIN + 1)
    outbox.append(large)
    assert len(outbox.take()) == MAX_JOIN
    outbox.advance(MAX_JOIN)
    assert len(outbox.take()) == MAX_JOIN // 2
    outbox.advance(MAX_JOIN // 2)
    view = outbox.take()
    assert isinstance(view, memoryview)
    assert view.obj is large
    assert len(view) == MAX_JOIN


def test_take_does_not_remove() -> None:
    """What was offered stays until the transport says that it took it."""
    outbox = Outbox()
    outbox.append(b"ab")
    outbox.append(b"cd")
    assert outbox.take() == outbox.take() == b"abcd"
    outbox.advance(3)
    assert outbox.take() == b"d"


@pytest.mark.row("E4")
def test_a_blocked_transport_keeps_one_pong() -> None:
    """A flood of pings to a peer that does not read costs one pong, the newest (section 5.5.3)."""
    outbox = Outbox()
    outbox.append(b"data")
    for number in range(10_000):
        outbox.append_pong(b"pong %d" % number, blocked=True)
    assert outbox.size == 4
    outbox.settle_pong()
    assert joined(outbox) == b"datapong 9999"


def test_nothing_follows_the_close_frame() -> None:
    """The kept pong goes before the Close; a later pong is dropped, a later frame is a bug."""
    outbox = Outbox()
    outbox.append_pong(b"pong", blocked=True)
    outbox.seal(b"close")
    for blocked in (False, True):
        outbox.append_pong(b"late", blocked=blocked)
    outbox.settle_pong()
    assert joined(outbox) == b"pongclose"
    with pytest.raises(AssertionError):
        outbox.append(b"late")


def test_an_abandoned_outbox_is_empty_and_stays_so() -> None:
    """When the transport is gone nothing waits, half-written frames included."""
    outbox = Outbox()
    outbox.append(b"abcdef")
    outbox.append_pong(b"pong", blocked=True)
    outbox.advance(2)
    outbox.abandon()
    outbox.settle_pong()
    outbox.append_pong(b"late", blocked=False)
    assert outbox.size == 0
    assert outbox.buffers() == []
    assert outbox.sealed


def test_a_kept_pong_is_dropped_by_the_end() -> None:
    """Sealed without a Close, because the peer was lost: nothing enters behind what waits."""
    outbox = Outbox()
    outbox.append(b"message")
    outbox.append_pong(b"pong", blocked=True)
    outbox.sealed = True
    outbox.settle_pong()
    assert outbox.size == len(b"message")
