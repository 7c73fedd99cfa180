"""The inbox against a model of it: reassembly, streaming, skipping, and the count of its bytes.

Lives here: `_inbox`, by sequences of pieces. Must never live here: frames (see
test_protocol_messages).
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws._inbox import Inbox, size_of

Message = str | bytes


@dataclass
class Model:
    """What the inbox is to do, in the simplest words: every message is a list of its pieces."""

    arrived: list[tuple[list[Message], bool]] = field(default_factory=list)
    """The messages nobody has taken: pieces, and whether the last one is among them."""
    streaming: bool = False
    """The first of `arrived` is handed out piece by piece."""
    skipping: bool = False

    def add(self, piece: Message, last: bool) -> None:
        if self.skipping:
            self.skipping = not last
        elif self.arrived and not self.arrived[-1][1]:
            self.arrived[-1] = ([*self.arrived[-1][0], piece], last)
        else:
            self.arrived.append(([piece], last))

    def whole(self) -> list[Message]:
        """The messages that `messages` must hold."""
        behind = self.arrived[self.streaming :]
        return [join(pieces) for pieces, whole in behind if whole]


def join(pieces: list[Message]) -> Message:
    return type(pieces[0])().join(pieces)  # type: ignore[arg-type]


class Pair:
    """An inbox and its model, driven in lockstep; they agree after every step."""

    def __init__(self) -> None:
        self.inbox, self.model = Inbox(), Model()
        self.got: list[Message] = []

    def add(self, piece: Message, *, last: bool) -> None:
        self.inbox.add(piece, last=last)
        self.model.add(piece, last)
        self.agree()

    def pop(self) -> None:
        if not self.model.streaming and self.model.whole():
            assert self.inbox.pop() == self.model.whole()[0]
            self.model.arrived.pop(0)
            self.agree()

    def stream(self) -> None:
        assert self.inbox.begun == bool(self.model.arrived[self.model.streaming :])
        if not self.model.streaming and self.model.arrived:
            assert self.inbox.stream() == isinstance(self.model.arrived[0][0][0], str)
            self.model.streaming = True
            self.got = []
            self.agree()

    def piece(self) -> None:
        if self.model.streaming and self.inbox.pieces:
            self.got.append(self.inbox.pop_piece())
            assert self.got[-1], "no piece is empty"
            self.agree()

    def end(self) -> None:
        if self.model.streaming:
            self.inbox.end_stream()
            self.model.skipping = not self.model.arrived.pop(0)[1]
            self.model.streaming = False
            self.agree()

    def agree(self) -> None:
        assert list(self.inbox.messages) == self.model.whole()
        held = sum(size_of(message) for message in self.inbox.messages)
        if self.model.streaming:
            pieces, whole = self.model.arrived[0]
            assert self.inbox.streamed_whole == whole
            left = list(self.inbox.pieces or ())
            assert join([*self.got, *left, type(pieces[0])()]) == join(pieces)
            held += sum(map(size_of, left))
        else:
            assert self.inbox.pieces is None
        if self.model.arrived[self.model.streaming :] and not self.model.arrived[-1][1]:
            begun = join(self.model.arrived[-1][0])
            held += len(begun.encode() if isinstance(begun, str) else begun)
        assert self.inbox.waiting == held


def run(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    pair = Pair()
    text = False
    fresh = True
    for _ in range(steps):
        do = rng.random()
        if do < 0.6:
            if fresh:
                text = rng.random() < 0.5
            length = rng.choice((0, 0, 1, 3, 200))
            letters = "".join(rng.choice("aé€😀") for _ in range(length))
            fresh = rng.random() < 0.4
            pair.add(letters if text else letters.encode(), last=fresh)
        else:
            rng.choice((pair.pop, pair.stream, pair.piece, pair.piece, pair.end))()
    if not fresh:
        pair.add("" if text else b"", last=True)
    pair.end()
    while pair.model.whole():
        pair.pop()
    assert pair.inbox.waiting == 0
    assert not pair.inbox.begun


@pytest.mark.parametrize("seed", range(300))
def test_it_agrees_with_the_model(seed: int) -> None:
    """Any order of pieces, receives, streams, skips: the same messages, and `waiting` counts what
    is held and nothing else; it is zero when all is taken."""
    run(seed, steps=80)


Pieces = st.one_of(
    st.lists(st.text(max_size=9), min_size=1, max_size=5),
    st.lists(st.binary(max_size=9), min_size=1, max_size=5),
)


@given(st.lists(Pieces, max_size=5))
def test_messages_are_the_sum_of_their_pieces(messages: list[list[Message]]) -> None:
    """In order, of their own kind, zero-length ones too."""
    inbox = Inbox()
    for pieces in messages:
        for number, piece in enumerate(pieces, 1):
            inbox.add(piece, last=number == len(pieces))
    assert inbox.messages == [join(pieces) for pieces in messages]
    assert inbox.received == len(messages)
    assert inbox.fragments == sum(map(len, messages)) - len(messages)


def test_the_beginning_of_a_message_counts() -> None:
    """A message that is not whole fills the read-ahead as one that is: it is memory as well."""
    inbox = Inbox()
    for _ in range(10):
        inbox.add(b"x" * 1000, last=False)
    assert inbox.waiting == 10_000
    inbox.add(b"", last=True)
    assert inbox.waiting == size_of(b"x" * 10_000)


def test_discarding_keeps_nothing() -> None:
    """Neither what is there nor what comes, in whatever state."""
    for prepare in ("nothing", "whole", "partial", "stream", "skip"):
        inbox = Inbox()
        if prepare in ("whole", "partial"):
            inbox.add(b"abc", last=prepare == "whole")
        elif prepare in ("stream", "skip"):
            inbox.add(b"abc", last=False)
            inbox.stream()
            if prepare == "skip":
                inbox.end_stream()
        inbox.discard()
        for last in (False, True, True):
            inbox.add(b"x", last=last)
        assert inbox.waiting == 0
        assert not inbox.begun
        assert not inbox.messages
        assert not inbox.pieces


def test_a_stream_whose_pieces_were_dropped_is_not_whole() -> None:
    """Its reader must hear of the end of the connection, not of the end of the message."""
    inbox = Inbox()
    inbox.add(b"abc", last=True)
    inbox.stream()
    inbox.discard()
    assert not inbox.streamed_whole


def test_a_stream_that_was_read_to_its_end_stays_whole() -> None:
    """Nothing of it was dropped."""
    inbox = Inbox()
    inbox.add(b"abc", last=True)
    inbox.stream()
    inbox.pop_piece()
    inbox.discard()
    assert inbox.streamed_whole


def test_dribbled_bytes_cost_bytes() -> None:
    """A message that comes byte by byte takes its length and a little, not an object a byte."""

    def dribble() -> Iterator[bytes]:
        return (b"x" for _ in range(200_000))

    inbox = Inbox()
    tracemalloc.start()
    try:
        for piece in dribble():
            inbox.add(piece, last=False)
        assert tracemalloc.get_traced_memory()[1] < 2 * 200_000 + 10_000
    finally:
        tracemalloc.stop()
