"""What this end compresses, zlib understands: windows, contexts, thresholds, pieces.

Lives here: RFC 7692 section 7.2.1 against zlib itself, and both ends together. Must never live
here: negotiation (test_deflate_negotiation), I/O.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws._deflate import Agreement, Deflate
from trio_ws._limits import Limits
from trio_ws._protocol import Protocol
from trio_ws.testing import BINARY, CONTINUATION, TEXT, Frame

from .deflate_world import HELLO, RSV1, TAIL, Reference, cut, in_frames, machine, sent_frame
from .frames_world import values_of

TALK = ["hello hello hello", "", "hello hello", "x" * 500, "", "", "hello", "wörld 🐟" * 40]
ALONE = list(product([False, True], repeat=2))


def variety(seed: int) -> list[bytes]:
    """Messages that repeat themselves near and far, and some that do not at all."""
    rng = random.Random(seed)
    noise = rng.randbytes(600)
    far = noise + bytes(20_000) + noise + rng.randbytes(14_000) + noise
    return [b"", b"a", b"hello " * 100, noise, noise, b"", far, far[::-1], b"hello " * 3, noise]


@pytest.mark.row("F6")
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize(("server_alone", "client_alone"), ALONE)
@pytest.mark.parametrize("bits", range(9, 16))
def test_zlib_and_this_end_understand_each_other(
    bits: int, server_alone: bool, client_alone: bool, client: bool
) -> None:
    """For every window and context: zlib, with exactly the window and the context that were agreed
    upon, inflates what is sent, and what it compresses is received."""
    other = 24 - bits  # the directions must not be mixed up
    agreement = Agreement(
        server_no_context_takeover=server_alone,
        client_no_context_takeover=client_alone,
        server_max_window_bits=other if client else bits,
        client_max_window_bits=bits if client else other,
    )
    end = machine(client=client, agreement=agreement, deflate=Deflate(threshold=0, level=9))
    receiver = Reference(bits, alone=client_alone if client else server_alone)
    sender = Reference(other, alone=server_alone if client else client_alone)
    for message in variety(bits):
        sent = sent_frame(end.encode(message), client=client)
        assert (receiver.inflate(sent.payload) if sent.rsv else sent.payload) == message
        (received,) = values_of(end, in_frames([sender.deflate(message)], BINARY, client=client))
        assert received == message


@pytest.mark.row("F6")
def test_windows_and_contexts_are_used() -> None:
    """The parameters are no empty words: repeats are found as far back as agreed, and between
    messages unless that was given up."""
    noise = random.Random(1).randbytes(400)
    gap = random.Random(2).randbytes(3000)

    def size(message: bytes, *, times: int = 1, bits: int = 15, alone: bool = False) -> int:
        agreement = Agreement(server_max_window_bits=bits, server_no_context_takeover=alone)
        end = machine(agreement=agreement)
        return [len(end.encode(message)) for _ in range(times)][-1]

    assert size(noise + gap + noise) < 3500 < size(noise + gap + noise, bits=9)
    assert size(noise, times=2) < 50
    assert size(noise, times=2, alone=True) > 400


def test_the_threshold_decides_unless_the_message_says() -> None:
    """`compress` counts for one message; None leaves it to the threshold, in bytes."""
    end = machine(deflate=Deflate(threshold=10))
    reference = Reference()
    for message, compress, compressed in [
        ("a" * 9, None, False),
        ("a" * 10, None, True),
        ("ä" * 5, None, True),
        ("a" * 9, True, True),
        ("a" * 9, None, False),
        ("", True, True),
        ("a" * 5000, False, False),
        ("a" * 5000, None, True),
        (b"a" * 9, None, False),
        (bytearray(b"a" * 10), None, True),
        (memoryview(b"a" * 9), True, True),
        ("a" * 10, None, True),
    ]:
        sent = sent_frame(end.encode(message, compress=compress))
        assert sent.rsv == (RSV1 if compressed else 0), (message, compress)
        plain = message.encode() if isinstance(message, str) else bytes(message)
        assert (reference.inflate(sent.payload) if compressed else sent.payload) == plain


def test_without_compression_the_word_means_nothing() -> None:
    end = Protocol(client=False, limits=Limits())
    for compress in (True, False, None):
        assert sent_frame(end.encode("a" * 500, compress=compress)).payload == b"a" * 500


def test_what_gains_nothing_is_sent_plain_where_no_context_needs_it() -> None:
    """Without context takeover noise goes out as it is; with it the peer's window must follow."""
    noise = random.Random(3).randbytes(500)
    alone = machine(agreement=Agreement(server_no_context_takeover=True))
    for _ in range(2):
        sent = sent_frame(alone.encode(noise, compress=True))
        assert (sent.rsv, sent.payload) == (0, noise)
    sent = sent_frame(machine().encode(noise))
    assert sent.rsv == RSV1
    assert Reference().inflate(sent.payload) == noise


def test_a_window_that_zlib_cannot_make_is_not_used() -> None:
    """A server may hold a client to 8 bits: it then sends everything as it is, and receives."""
    end = machine(client=True, agreement=Agreement(client_max_window_bits=8))
    for compress in (True, None):
        sent = sent_frame(end.encode("a" * 500, compress=compress), client=True)
        assert (sent.rsv, sent.payload) == (0, b"a" * 500)
    assert values_of(end, in_frames([HELLO], client=True)) == ["Hello"]


def test_a_message_that_cannot_be_sent_leaves_the_compressor_alone() -> None:
    """A lone surrogate is a ValueError, and the peer's context still fits."""
    end, reference = machine(), Reference()
    for message in TALK:
        with pytest.raises(ValueError, match="surrogates"):
            end.encode("hello hello \ud800", compress=True)
        assert reference.inflate(sent_frame(end.encode(message)).payload).decode() == message


@pytest.mark.parametrize("alone", [False, True], ids=["takeover", "no takeover"])
@pytest.mark.parametrize(
    "chunks",
    [
        ["hello ", "hello ", "hello"],
        ["", "hello"],
        ["hello", ""],
        ["", ""],
        ["", "", "hello", "", "", "hello", "", ""],
        [b"a" * 70_000, b"b", b"a" * 70_000],
        ["hello"] * 50,
    ],
    ids=range(7),
)
def test_a_message_in_pieces_is_one_stream(chunks: Sequence[str | bytes], alone: bool) -> None:
    """RSV1 on the first frame only; each piece is flushed, so that the peer can have it at once;
    the tail is taken off at the very end; control frames between pieces stay out of it, and the
    context goes on behind the message."""
    end = machine(agreement=Agreement(server_no_context_takeover=alone))
    reference = Reference(alone=alone)
    whole = b"".join(chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks)
    for _ in range(3):
        receiver = zlib.decompressobj(-15)
        payload = b""
        for at, chunk in enumerate(chunks):
            final = at == len(chunks) - 1
            sent = sent_frames_loose(end.encode(chunk, final=final))
            assert sent.fin == final
            assert sent.rsv == (RSV1 if at == 0 else 0)
            assert sent.opcode == (
                CONTINUATION if at else TEXT if isinstance(chunk, str) else BINARY
            )
            assert final or not chunk or sent.payload.endswith(TAIL)
            payload += sent.payload
            if not final:
                assert sent_frame(end.ping(b"ping")).payload == b"ping"
        assert reference.inflate(payload) == whole
        del receiver
        message = "hello hello"
        sent = sent_frame(end.encode(message))
        assert (reference.inflate(sent.payload) if sent.rsv else sent.payload) == message.encode()


def sent_frames_loose(data: bytes) -> Frame:
    """One frame, whatever message it belongs to."""
    header = data[0]
    if header & 0xF == CONTINUATION:
        data = bytes([header | 0x2]) + data[1:]
    sent = sent_frame(bytes([data[0] | 0x80]) + data[1:])
    return Frame(
        opcode=header & 0xF, payload=sent.payload, fin=bool(header & 0x80), rsv=header >> 4 & 7
    )


def test_pieces_can_be_read_as_they_come() -> None:
    """Each piece of a streamed message inflates by itself, without its successors."""
    end, receiver = machine(), machine(client=True)
    data = end.encode("first " * 20, final=False)
    inflater = zlib.decompressobj(-15)
    assert inflater.decompress(sent_frames_loose(data).payload) == b"first " * 20
    rest = end.encode("second", final=True)
    assert values_of(receiver, [data, rest]) == ["first " * 20 + "second"]


def test_the_opt_out_of_a_message_in_pieces_is_its_first_piece_s() -> None:
    """Plain from the first piece to the last; without a word pieces are compressed, however
    small."""
    end = machine(deflate=Deflate(threshold=1000))
    plain = [end.encode("a", final=False, compress=False), end.encode("b" * 5000, compress=True)]
    assert [sent_frames_loose(data).rsv for data in plain] == [0, 0]
    assert sent_frames_loose(plain[1]).payload == b"b" * 5000
    small = [end.encode("a", final=False), end.encode("b", compress=False)]
    assert [sent_frames_loose(data).rsv for data in small] == [RSV1, 0]
    assert values_of(machine(client=True), [*plain, *small]) == ["a" + "b" * 5000, "ab"]


@given(
    messages=st.lists(
        st.tuples(
            st.lists(st.text("ab ", max_size=300), min_size=1, max_size=4),
            st.sampled_from([None, True, False]),
        ),
        max_size=8,
    ),
    alone=st.booleans(),
    read=st.integers(1, 400),
)  # fmt: skip
def test_two_ends_understand_each_other(
    messages: list[tuple[list[str], bool | None]], alone: bool, read: int
) -> None:
    """Any messages, in any pieces, compressed or not, cut into any reads, arrive as they were."""
    agreement = Agreement(client_no_context_takeover=alone, client_max_window_bits=9)
    sender = machine(client=True, agreement=agreement, deflate=Deflate(threshold=50))
    data = b""
    for pieces, compress in messages:
        for at, piece in enumerate(pieces):
            data += sender.encode(piece, final=at == len(pieces) - 1, compress=compress)
    assert values_of(machine(agreement=agreement), cut(data, read)) == [
        "".join(pieces) for pieces, _ in messages
    ]
