"""Compressed data that means nothing: 1002 and 1007, and never an exception.

Lives here: hostile and broken streams. Must never live here: what is too large
(test_deflate_limits).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws._deflate import Agreement
from trio_ws._limits import Limits
from trio_ws._protocol import Failure, Protocol
from trio_ws.testing import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

from .deflate_world import FINAL, HELLO, KIB, RSV1, TAIL, cut, deflated, in_frames, machine
from .frames_world import failure, frame, values_of


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
