"""What a peer may not send: frames that are none, text that is no UTF-8.

Lives here: 1002 and 1007. Must never live here: Close frames (test_protocol_close), limits
(test_protocol_limits).
"""

from __future__ import annotations

import pytest

from trio_ws._protocol import Failure
from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    encode_frame,
    parse_frames,
)

from .frames_world import failure, frame, values_of
from .protocol_world import dribble, machine

# -- faults --------------------------------------------------------------------------------------

FAULTS = {
    "reserved data opcode": encode_frame(0x3, b"", masked=True),
    "reserved control opcode": encode_frame(0xB, b"", masked=True),
    "fragmented ping": frame(PING, fin=False),
    "fragmented close": frame(CLOSE, fin=False),
    "ping of 126 bytes": frame(PING, b"x" * 126),
    "close of 126 bytes": frame(CLOSE, b"\x03\xe8" + b"x" * 124),
    "continuation of nothing": frame(CONTINUATION),
    "continuation after a whole message": frame(TEXT, b"") + frame(CONTINUATION),
    "text inside a message": frame(TEXT, fin=False) + frame(TEXT),
    "binary inside a message": frame(TEXT, fin=False) + frame(BINARY),
    "RSV1": encode_frame(TEXT, b"", rsv=4, masked=True),
    "RSV2": encode_frame(TEXT, b"", rsv=2, masked=True),
    "RSV3 on a ping": encode_frame(PING, b"", rsv=1, masked=True),
    "RSV1 on a close": encode_frame(CLOSE, b"", rsv=4, masked=True),
    "two-byte length of 5": encode_frame(BINARY, b"hello", masked=True, length_size=2),
    "eight-byte length of 200": encode_frame(BINARY, b"x" * 200, masked=True, length_size=8),
    "unmasked": encode_frame(TEXT, b"hello"),
    "unmasked ping": encode_frame(PING),
    "unmasked close": encode_frame(CLOSE, b"\x03\xe8"),
}


@pytest.mark.row("D13")
@pytest.mark.parametrize("data", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_1002_and_leaves_our_close_to_send(data: bytes) -> None:
    """A peer that breaks the protocol is told so: the machine can still make the Close frame."""
    for pieces in ([data], dribble(data)):
        end = machine()
        faults = [value for value in values_of(end, pieces) if isinstance(value, Failure)]
        assert [fault.code for fault in faults] == [1002]
        frames, _ = parse_frames(end.close(1002, faults[0].reason), masked=False)
        assert [each.close_code for each in frames] == [1002]


@pytest.mark.row("G1")
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
@pytest.mark.parametrize("client", [False, True])
def test_the_wrong_mask_bit_is_1002(opcode: int, client: bool) -> None:
    """A server refuses what is not masked, a client what is (section 5.1)."""
    wrong = frame(opcode, client=not client)
    assert failure(machine(client=client), wrong).code == 1002
    assert failure(machine(client=client), *dribble(wrong)).code == 1002


def test_a_length_with_the_top_bit_set_is_refused() -> None:
    """A 64-bit length is at most 2^63 - 1 (section 5.2); refused before anything is kept."""
    header = b"\x82\xff" + (1 << 63).to_bytes(8, "big")
    assert failure(machine(), header).code in (1002, 1009)


# -- UTF-8 ---------------------------------------------------------------------------------------


@pytest.mark.row("G2")
def test_bad_utf8_fails_at_its_first_byte() -> None:
    """Of a 1 MiB text frame the first bad byte is enough; the rest need not come (section 8.1)."""
    header = encode_frame(TEXT, masked=True, declared_length=2**20, masking_key=b"\0\0\0\0")
    end = machine()
    assert values_of(end, [header]) == []
    fault = failure(end, b"\xff")
    assert fault == Failure(code=1007, reason="invalid UTF-8")


@pytest.mark.row("G2")
def test_code_points_may_be_split_anywhere() -> None:
    """Fragments and segments cut through characters; the text comes out whole."""
    text = "aé€\U0001f44b" * 3
    raw = text.encode()
    for cut in range(len(raw) + 1):
        data = frame(TEXT, raw[:cut], fin=False) + frame(CONTINUATION, raw[cut:])
        assert values_of(machine(), [data]) == [text]
        assert values_of(machine(), dribble(data)) == [text]


@pytest.mark.row("G2")
@pytest.mark.parametrize(
    "raw",
    [
        b"\xed\xa0\x80",  # a surrogate
        b"\xed\xa0\xbd\xed\xb1\x8b",  # a pair of them, as CESU-8 has it
        b"\xc0\x80",  # NUL in two bytes
        b"\xf4\x90\x80\x80",  # over U+10FFFF
        b"\x80",
        b"ok \xc3",  # cut off at the end of the message
        b"\xe2\x82",
    ],
)
def test_what_is_no_utf8_is_1007(raw: bytes) -> None:
    """Whole, in fragments or dribbled: 1007, and no message."""
    assert failure(machine(), frame(TEXT, raw)).code == 1007
    assert failure(machine(), *dribble(frame(TEXT, raw))).code == 1007
    pieces = frame(TEXT, raw[:1], fin=False) + frame(CONTINUATION, raw[1:])
    assert failure(machine(), pieces).code == 1007


def test_binary_is_never_looked_at() -> None:
    """A binary message may hold anything, also behind a text message that was fine."""
    raw = bytes(range(256))
    assert values_of(machine(), [frame(TEXT, b"x") + frame(BINARY, raw)]) == ["x", raw]
