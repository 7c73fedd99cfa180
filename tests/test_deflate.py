"""Compressed messages: RFC 7692 section 7.2, against zlib itself and against hostile peers.

Lives here: `_permessage` behind the frame machine, bytes in and values out. Must never live here:
negotiation (test_deflate_negotiation), I/O.
"""

from __future__ import annotations

import random
import tracemalloc
import zlib
from collections.abc import Iterable, Sequence
from itertools import product
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.events import Ping, Pong

from trio_ws._deflate import Agreement, Deflate
from trio_ws._limits import Limits
from trio_ws._permessage import MAX_RESTARTS, PerMessageDeflate
from trio_ws._protocol import Failure, PeerClose, Protocol
from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    encode_frame,
    parse_frames,
)

Value: TypeAlias = "str | bytes | tuple[str, bytes] | PeerClose | Failure"

TAIL = b"\x00\x00\xff\xff"
RSV1 = 4
KIB, MIB = 1 << 10, 1 << 20
EAGER = Deflate(threshold=0)
TALK = ["hello hello hello", "", "hello hello", "x" * 500, "", "", "hello", "wörld 🐟" * 40]


def machine(
    *, client: bool = False, agreement: Agreement | None = None, deflate: Deflate = EAGER,
    max_message: int = MIB, max_fragments: int | None = 4096,
) -> Protocol:  # fmt: skip
    """One end, with compression agreed upon."""
    extension = PerMessageDeflate(
        agreement or Agreement(), deflate, client=client, max_message=max_message
    )
    limits = Limits(max_message=max_message, max_fragments=max_fragments)
    return Protocol(client=client, limits=limits, extensions=[extension])


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, client: bool = False
) -> bytes:
    """A frame for this end: masked for a server, with a fixed key; not masked for a client."""
    return encode_frame(
        opcode, payload, fin=fin, rsv=rsv, masked=not client, masking_key=b"\1\2\3\4"
    )


def deflated(data: bytes, level: int = 6) -> bytes:
    """One compressed message with no context (section 7.2.1), by zlib alone."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def in_frames(
    payloads: Sequence[bytes], opcode: int = TEXT, *, client: bool = False
) -> list[bytes]:
    """One compressed message as frames with these payloads."""
    last = len(payloads) - 1
    return [
        frame(
            CONTINUATION if at else opcode,
            payload,
            fin=at == last,
            rsv=0 if at else RSV1,
            client=client,
        )
        for at, payload in enumerate(payloads)
    ]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def settle(end: Protocol) -> list[Value]:
    """Parse until nothing is left; messages and control values, each in their order."""
    values: list[Value] = []
    while True:
        for event in end.parse():
            if isinstance(event, Ping):
                values.append(("ping", bytes(event.payload)))
            elif isinstance(event, Pong):
                values.append(("pong", bytes(event.payload)))
            else:
                values.append(event)
        while end.inbox.messages:
            values.append(end.inbox.pop())
        if not end.unparsed:
            return values


def values_of(end: Protocol, pieces: Iterable[bytes]) -> list[Value]:
    """Everything that these pieces mean, settled after each."""
    values: list[Value] = []
    for piece in pieces:
        end.feed(piece)
        values += settle(end)
    return values


def apart(values: list[Value]) -> tuple[list[Value], list[Value]]:
    """Messages and control values, each in their order: what is between them depends on reads."""
    is_message = [isinstance(value, (str, bytes)) for value in values]
    return (
        [value for value, yes in zip(values, is_message, strict=True) if yes],
        [value for value, yes in zip(values, is_message, strict=True) if not yes],
    )


def failure(end: Protocol, *pieces: bytes) -> Failure:
    """The one thing these pieces mean: a fault of the peer's."""
    (value,) = values_of(end, pieces)
    assert isinstance(value, Failure), value
    return value


class Reference:
    """The other side of a connection by zlib alone: what section 7.2 says, and nothing clever.

    `bits` and `alone` (no context takeover) are those of the direction it is used for.
    """

    def __init__(self, bits: int = 15, *, alone: bool = False) -> None:
        self._bits = bits
        self._alone = alone
        self._inflater = zlib.decompressobj(-bits)
        self._compressor = zlib.compressobj(9, zlib.DEFLATED, -bits)

    def inflate(self, payload: bytes) -> bytes:
        if self._alone:
            self._inflater = zlib.decompressobj(-self._bits)
        data = self._inflater.decompress(payload + TAIL)
        assert not self._inflater.eof
        return data

    def deflate(self, data: bytes) -> bytes:
        if self._alone:
            self._compressor = zlib.compressobj(9, zlib.DEFLATED, -self._bits)
        flushed = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        return flushed[:-4] if flushed else b"\0"


def sent_frames(data: bytes, *, client: bool = False) -> list[Frame]:
    """What this end has sent, as frames; strict."""
    frames, rest = parse_frames(data, masked=client, allow_rsv=RSV1)
    assert rest == b""
    return frames


def sent_frame(data: bytes, *, client: bool = False) -> Frame:
    (sent,) = sent_frames(data, client=client)
    return sent


# -- the RFC's own examples ----------------------------------------------------------------------

HELLO = bytes.fromhex("f248cdc9c90700")
EXAMPLES = {
    "7.2.3.1 one block": [[HELLO]] * 3,
    "7.2.3.1 in two frames": [[HELLO[:3], HELLO[3:]]] * 3,
    "7.2.3.2 sharing the window": [[HELLO]] + [[bytes.fromhex("f200110000")]] * 3,
    "7.2.3.3 not compressed": [[bytes.fromhex("000500faff48656c6c6f00")]] * 3,
    "7.2.3.4 BFINAL": [[bytes.fromhex("f348cdc9c9070000")]] * 3,
    "7.2.3.5 two blocks": [[bytes.fromhex("f2480500 0000ffff cac9c90700")]] * 3,
}


@pytest.mark.row("F3")
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("messages", EXAMPLES.values(), ids=EXAMPLES)
def test_the_examples_of_the_rfc(messages: list[list[bytes]], client: bool) -> None:
    """Three times in a row on one connection, whole and byte by byte."""
    data = b"".join(
        b"".join(in_frames(payloads, client=client)) for payloads in messages
    )  # fmt: skip
    expected = ["Hello"] * len(messages)
    assert values_of(machine(client=client), [data]) == expected
    assert values_of(machine(client=client), cut(data, 1)) == expected


@pytest.mark.row("F3", "E11")
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_an_empty_message_is_one_byte(opcode: int) -> None:
    """Section 7.2.3.6, inbound and outbound, again and again, between others."""
    empty: str | bytes = "" if opcode == TEXT else b""
    hello = frame(TEXT, HELLO, rsv=RSV1)
    data = frame(opcode, b"\0", rsv=RSV1) * 3 + hello + frame(opcode, b"\0", rsv=RSV1)
    expected = [empty, empty, empty, "Hello", empty]
    assert values_of(machine(), [data]) == expected
    assert values_of(machine(), cut(data, 1)) == expected
    end = machine()
    for message, payload in [(empty, b"\0"), (empty, b"\0"), ("Hello", HELLO), (empty, b"\0")]:
        assert sent_frame(end.encode(message)).payload == payload


@pytest.mark.row("E11")
def test_empty_frames_within_a_compressed_message() -> None:
    """Fragments of no bytes are no end, wherever they stand."""
    data = b"".join(in_frames([b"", HELLO[:2], b"", b"", HELLO[2:], b""]))
    assert values_of(machine(), [data * 3]) == ["Hello"] * 3


def test_a_stream_may_end_anywhere() -> None:
    """A final block is the end of a stream and not of the message: what follows begins another,
    in the same frame, in a later one, or never."""
    hel, lo = (zlib.compress(part, wbits=-15) for part in (b"Hel", b"lo"))
    with_one_byte_more = [[hel + lo + b"\0"], [hel, lo + b"\0"], [hel, b"", lo, b"\0"]]
    bare = [[hel + lo], [hel, lo], [hel, lo, b""]]
    for payloads in [*with_one_byte_more, *bare]:
        data = b"".join(in_frames(payloads))
        assert values_of(machine(), [data * 3]) == ["Hello"] * 3, payloads
        assert values_of(machine(), cut(data * 3, 1)) == ["Hello"] * 3, payloads
    mixed = in_frames([HELLO]) + in_frames([hel + lo]) + in_frames([HELLO])
    assert values_of(machine(), mixed) == ["Hello"] * 3


# -- inbound: fragments, control frames, cuts ----------------------------------------------------


@pytest.mark.row("F1")
@pytest.mark.parametrize("alone", [False, True], ids=["takeover", "no takeover"])
def test_a_ping_at_every_position_of_a_fragmented_message(alone: bool) -> None:
    """Control frames between fragments never touch the message, whichever fragments they part."""
    text = "the same words, the same words; " * 6
    agreement = Agreement(client_no_context_takeover=alone)
    payload = deflated(text.encode())
    frames = in_frames(cut(payload, 2))
    assert len(frames) > 10
    control = frame(PING, b"\xf2\x48\xcd") + frame(PONG, HELLO)
    between: list[Value] = [("ping", b"\xf2\x48\xcd"), ("pong", HELLO)]
    for position in range(len(frames) + 1):
        pieces = [*frames[:position], control, *frames[position:]]
        end = machine(agreement=agreement)
        assert apart(values_of(end, pieces)) == ([text], between), position
        assert apart(values_of(end, cut(b"".join(pieces), 1))) == ([text], between), position
    everywhere = [piece for each in frames for piece in (control, each)]
    found = values_of(machine(agreement=agreement), everywhere)
    assert apart(found) == ([text], between * len(frames))


def transcript(*, client: bool) -> tuple[bytes, list[Value]]:
    """About 200 bytes with everything in them, and what they mean."""
    reference, plain = Reference(), "plain hello, " * 6
    first = reference.deflate(b"hello hello hello")
    pieces = [
        *in_frames([first], client=client),
        *in_frames(cut(reference.deflate("wörld hello 🐟 hello".encode()), 7), client=client),
        frame(TEXT, plain.encode(), client=client),
        *in_frames([b"\0"], BINARY, client=client),
        *in_frames([zlib.compress(b"final", wbits=-15)], BINARY, client=client),
        *in_frames([deflated(b"hello hello")], BINARY, client=client),
        frame(CLOSE, b"\x03\xe8bye", client=client),
    ]
    pieces.insert(2, frame(PING, b"hi", client=client))
    expected: list[Value] = [
        "hello hello hello", ("ping", b"hi"), "wörld hello 🐟 hello", plain, b"",
        b"final", b"hello hello", PeerClose(code=1000, reason="bye"),
    ]  # fmt: skip
    return b"".join(pieces), expected


@pytest.mark.row("G3")
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_every_split_means_the_same(client: bool) -> None:
    """Cut a transcript with compressed, plain, fragmented and control frames anywhere: the events
    are the same; also cut in two places, and into single bytes."""
    data, values = transcript(client=client)
    expected = apart(values)
    assert 150 <= len(data) <= 250
    for first in range(len(data) + 1):
        end = machine(client=client)
        assert apart(values_of(end, [data[:first], data[first:]])) == expected, first
    for first, second in product(range(0, len(data), 7), repeat=2):
        if first <= second:
            pieces = [data[:first], data[first:second], data[second:]]
            found = values_of(machine(client=client), pieces)
            assert apart(found) == expected, (first, second)
    assert apart(values_of(machine(client=client), cut(data, 1))) == expected


def test_plain_messages_pass_between_compressed_ones() -> None:
    """RSV1 is said for each message anew; a plain one leaves the context as it is."""
    reference = Reference()
    data = frame(TEXT, reference.deflate(b"hello hello"), rsv=RSV1)
    data += frame(TEXT, b"pl", fin=False) + frame(CONTINUATION, b"ain") + frame(BINARY, HELLO)
    data += frame(TEXT, reference.deflate(b"hello hello"), rsv=RSV1)
    expected = ["hello hello", "plain", HELLO, "hello hello"]
    assert values_of(machine(), [data]) == expected
    assert values_of(machine(), cut(data, 1)) == expected


# -- inbound: limits -----------------------------------------------------------------------------


def bomb() -> bytes:
    """About 200 KB that inflate to 200 MiB."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    data = block * 200  # a full flush forgets the past: each block stands alone
    assert 150 * KIB < len(data) < 250 * KIB
    return data[:-4]


@pytest.mark.row("F2")
@pytest.mark.parametrize("read", [4 * KIB, 64 * KIB])
@pytest.mark.parametrize("fragment", [None, 512, 16 * KIB], ids=["whole", "512 bytes", "16 KiB"])
def test_a_bomb_is_refused_with_flat_memory(read: int, fragment: int | None) -> None:
    """1009 before more than the limit, one read and their copies is ever held: five times the
    limit, as `Limits` says, where everything inflated would be two hundred times."""
    data = bomb()
    wire = b"".join(in_frames(cut(data, fragment or len(data)), BINARY))
    pieces = cut(wire, read)
    end = machine()
    tracemalloc.start()
    try:
        values = values_of(end, pieces)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert values == [Failure(code=1009, reason=f"message over {MIB} bytes")]
    assert peak < 5 * MIB + 2 * read


@pytest.mark.row("F2")
@pytest.mark.parametrize("size", [0, 1, 1000, 70_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("step", [None, 5], ids=["whole", "fragments"])
def test_the_limit_is_on_true_bytes(size: int, opcode: int, step: int | None) -> None:
    """A message that inflates to the limit is delivered, one byte more is 1009; the next message
    starts from nothing."""
    for data, good in ((b"a" * size, True), (b"a" * (size + 1), False)):
        payload = deflated(data)
        frames = in_frames(cut(payload, step or len(payload)), opcode)
        message = data.decode() if opcode == TEXT else data
        for pieces in (frames, cut(b"".join(frames), 1)):
            end = machine(max_message=size)
            if good:
                assert values_of(end, pieces) == [message]
                assert values_of(end, pieces) == [message]
            else:
                assert failure(end, *pieces).code == 1009


@pytest.mark.parametrize("limit", [10, 1000, MIB])
def test_what_does_not_compress_is_not_refused(limit: int) -> None:
    """A message of the limit's size may be longer on the wire than the limit: stored blocks, the
    worst that zlib makes of noise, and a flush in every fragment."""
    noise = random.Random(limit).randbytes(limit)
    for level, memory in product([0, 1, 9], [1, 9]):
        compressor = zlib.compressobj(level, zlib.DEFLATED, -15, memory)
        payload = compressor.compress(noise) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert len(payload) - 4 > limit
        assert values_of(machine(max_message=limit), in_frames([payload[:-4]], BINARY)) == [noise]
    compressor = zlib.compressobj(0, zlib.DEFLATED, -15)
    payloads = [
        compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH)
        for part in cut(noise, max(limit // 1000, 1))
    ]
    assert values_of(machine(max_message=limit), in_frames([*payloads, b"\0"], BINARY)) == [noise]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_length_is_refused_before_its_payload(compressed: bool) -> None:
    """What cannot be a message within the limit is 1009 from the header alone, compressed or not,
    in its first frame or a later one."""
    rsv = RSV1 if compressed else 0
    allowed = MIB + MIB // 4 + 1024 if compressed else MIB
    start = frame(BINARY, b"\0" if compressed else b"", fin=False, rsv=rsv)
    for length in (allowed + 1000, 1 << 32, (1 << 62) + 1):
        for before, opcode, bits in ((b"", BINARY, rsv), (start, CONTINUATION, 0)):
            header = encode_frame(opcode, b"", rsv=bits, declared_length=length, masked=True)
            assert failure(machine(), before, header[:10]).code == 1009, (length, opcode)
    header = encode_frame(BINARY, b"", rsv=rsv, declared_length=allowed, masked=True)
    assert values_of(machine(), [header]) == []


def test_compressed_bytes_that_mean_nothing_are_bounded() -> None:
    """Empty blocks inflate to nothing and still end: the wire is bounded, too."""
    end = machine(max_fragments=None)
    nothing = b"\0" + TAIL
    assert values_of(end, [frame(BINARY, nothing * 1000, fin=False, rsv=RSV1)]) == []
    values: list[Value] = []
    for _ in range(1000):
        values += values_of(end, [frame(CONTINUATION, nothing * 1000, fin=False)])
        if values:
            break
    assert values == [Failure(code=1009, reason=f"message over {MIB} bytes")]


FINAL = zlib.compress(b"", wbits=-15)


@pytest.mark.row("F4")
@pytest.mark.parametrize(
    ("follow", "code"),
    [(b"\0" * 65536, 1007), (b"\xff" * 65536, 1007), ((b"\0" + TAIL) * 13107, 1009),
     (FINAL * 32768, 1007)],
    ids=["zeros", "ones", "empty blocks", "more ends"],
)  # fmt: skip
def test_nothing_is_kept_behind_a_final_block(follow: bytes, code: int) -> None:
    """BFINAL, then 60 MiB: refused, and nothing of it in memory."""
    end = machine(max_fragments=None)
    piece = frame(CONTINUATION, follow, fin=False)
    values = values_of(end, [frame(BINARY, HELLO[:-1] + FINAL, fin=False, rsv=RSV1)])
    tracemalloc.start()
    try:
        for _ in range(960):
            values += values_of(end, [piece])
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [value.code for value in values if isinstance(value, Failure)] == [code]
    assert len(values) == 1
    assert kept < 256 * KIB
    assert peak < 4 * MIB


@pytest.mark.row("F4")
def test_plain_messages_behind_a_final_block_leave_no_trace() -> None:
    """A stream that has ended stays ended, whatever passes by it."""
    end = machine()
    piece = frame(BINARY, bytes(65536))
    assert values_of(end, in_frames([FINAL + b"\0"], BINARY)) == [b""]
    tracemalloc.start()
    try:
        for _ in range(960):
            assert len(values_of(end, [piece])) == 1
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 256 * KIB
    assert values_of(end, in_frames([HELLO])) == ["Hello"]


def test_streams_end_a_bounded_number_of_times_in_a_frame() -> None:
    """Each end costs a new inflater for two bytes; a frame gets a dose, a message any number."""
    good = FINAL * MAX_RESTARTS
    assert values_of(machine(), in_frames([good, good, good, b"\0"], BINARY)) == [b""]
    assert failure(machine(), *in_frames([good + FINAL + b"\0"], BINARY)).code == 1007


# -- inbound: faults -----------------------------------------------------------------------------


@pytest.mark.row("F5")
@pytest.mark.parametrize("agreed", [True, False])
@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG])
def test_a_reserved_bit_that_was_not_agreed_upon_is_1002(
    opcode: int, rsv: int, agreed: bool
) -> None:
    """RSV1 belongs to the first frame of a data message, where compression was agreed upon;
    RSV2 and RSV3 to nobody (RFC 6455 section 5.2, RFC 7692 section 6)."""
    payload = b"\x03\xe8" if opcode == CLOSE else HELLO
    before = frame(TEXT, b"", fin=False) if opcode == CONTINUATION else b""
    end = machine() if agreed else Protocol(client=False, limits=Limits())
    pieces = [before, frame(opcode, payload, rsv=rsv)]
    if agreed and rsv == RSV1 and opcode in (TEXT, BINARY):
        assert values_of(end, pieces) == ["Hello" if opcode == TEXT else b"Hello"]
    else:
        assert failure(end, *pieces).code == 1002


@pytest.mark.row("F7")
@pytest.mark.parametrize("alone", [False, True], ids=["takeover", "no takeover"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_truncated_data_is_1007(level: int, alone: bool) -> None:
    """Every proper prefix of a compressed message, on a fresh stream and on a used one, also when
    the tail that is put back would complete it."""
    text = b"to be, or not to be, that is the question: " * 3
    payload = deflated(text, level)
    agreement = Agreement(client_no_context_takeover=alone)
    for size in range(len(payload)):
        if payload[:size] == b"\0":  # by chance a whole one: the empty message
            continue
        for before in ([], in_frames([HELLO])):
            end = machine(agreement=agreement)
            assert values_of(end, before) == ["Hello"] * len(before)
            fault = failure(end, *in_frames([payload[:size]], BINARY))
            assert fault == Failure(code=1007, reason="compressed data is truncated"), size
    assert values_of(machine(agreement=agreement), in_frames([payload], BINARY)) == [text]


@pytest.mark.row("F7")
@pytest.mark.parametrize(
    "payload",
    [
        b"",  # not even the one byte of an empty message
        b"\xff",  # a block of the reserved type
        b"\x07",
        b"garbage",
        b"\0\1\0\0\0x\0",  # stored, its length contradicts itself
        b"\0\5\0\xfa\xffX",  # stored; the tail put back would be its missing bytes
        b"\1\5\0\xfa\xffX",  # the same with BFINAL
        HELLO + b"\xff",
        HELLO + b"\0",
        HELLO + TAIL + b"\xff\xff",
        bytes.fromhex("f200110000"),  # refers back behind the beginning
        bytes.fromhex("edc1"),  # a dynamic block, cut off in its head
    ],
)
@pytest.mark.parametrize("step", [None, 1], ids=["whole", "fragments"])
def test_garbage_is_1007(payload: bytes, step: int | None) -> None:
    """What is no DEFLATE data fails the connection, at the latest with the end of its message."""
    frames = in_frames(cut(payload, step or len(payload) or 1) or [b""])
    assert failure(machine(), *frames).code == 1007
    assert failure(machine(), *cut(b"".join(frames), 1)).code == 1007


@pytest.mark.row("F7")
def test_an_empty_payload_behind_an_ended_stream_is_1007() -> None:
    """That the last message ended its stream says nothing about this one."""
    end = machine()
    assert values_of(end, in_frames([FINAL], BINARY)) == [b""]
    assert failure(end, *in_frames([b""], BINARY)).code == 1007


def test_a_context_that_was_given_up_is_gone() -> None:
    """Without context takeover nothing is held between messages, and a peer that refers back all
    the same breaks its word."""
    end = machine(agreement=Agreement(client_no_context_takeover=True))
    assert values_of(end, in_frames([HELLO])) == ["Hello"]
    assert failure(end, *in_frames([bytes.fromhex("f200110000")])).code == 1007


@given(payload=st.binary(max_size=80), sizes=st.lists(st.integers(1, 9), max_size=20))
def test_no_bytes_raise(payload: bytes, sizes: list[int]) -> None:
    """Whatever a compressed frame holds: a message, or a fault with its code."""
    frames = in_frames([payload], BINARY)
    data = frames[0] + in_frames([HELLO])[0]
    pieces = [data[: sum(sizes)]]
    at = 0
    pieces = []
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    for value in values_of(machine(max_message=4 * KIB), [*pieces, data[at:]]):
        assert value == "Hello" or isinstance(value, (bytes, Failure))
        assert not isinstance(value, Failure) or value.code in (1007, 1009)


def test_text_is_checked_after_inflation() -> None:
    """UTF-8 is a property of what was compressed: 1007 with its own words, at once."""
    fault = failure(machine(), *in_frames([deflated(b"good \xff")]))
    assert fault == Failure(code=1007, reason="invalid UTF-8")
    begun = in_frames([deflated(b"\xff" + bytes(1000)), b"\0"])[0]
    assert failure(machine(), begun).code == 1007


# -- outbound ------------------------------------------------------------------------------------

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
