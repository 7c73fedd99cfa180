"""Compressed messages from a peer: RFC 7692 section 7.2, its examples, fragments, cuts.

Lives here: `_permessage` behind the frame machine, bytes in and values out. Must never live here:
negotiation (test_deflate_negotiation), I/O.
"""

from __future__ import annotations

import zlib
from itertools import product

import pytest

from trio_ws._deflate import Agreement
from trio_ws._protocol import PeerClose
from trio_ws.testing import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

from .deflate_world import HELLO, RSV1, Reference, cut, deflated, in_frames, machine, sent_frame
from .frames_world import Value, frame, values_of


def apart(values: list[Value]) -> tuple[list[Value], list[Value]]:
    """Messages and control values, each in their order: what is between them depends on reads."""
    is_message = [isinstance(value, (str, bytes)) for value in values]
    return (
        [value for value, yes in zip(values, is_message, strict=True) if yes],
        [value for value, yes in zip(values, is_message, strict=True) if not yes],
    )


# -- the RFC's own examples ----------------------------------------------------------------------

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
