"""The frame machine: every rule of RFC 6455 that needs no clock and no socket.

Lives here: `_protocol`, bytes in and values out, and the bytes it makes. Must never live here:
I/O, the closing handshake as a conversation (test_close_races), memory of a whole connection.
"""

from __future__ import annotations

import array
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.events import Ping, Pong

from trio_ws._limits import Limits
from trio_ws._protocol import MAX_EVENTS, UNJOINED, Failure, PeerClose, Protocol, head_of
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


def machine(
    *, client: bool = False, max_message: int = 2**20, max_fragments: int | None = 4096
) -> Protocol:
    """One end, with these limits."""
    limits = Limits(max_message=max_message, max_fragments=max_fragments)
    return Protocol(client=client, limits=limits)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, client: bool = False) -> bytes:
    """A frame for this end: masked for a server, with a fixed key; not masked for a client."""
    return encode_frame(opcode, payload, fin=fin, masked=not client, masking_key=b"\1\2\3\4")


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


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


def dribble(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def failure(end: Protocol, *pieces: bytes) -> Failure:
    """The one thing these pieces mean: a fault of the peer's."""
    (value,) = values_of(end, pieces)
    assert isinstance(value, Failure), value
    return value


# -- messages ------------------------------------------------------------------------------------


@pytest.mark.row("E11")
@pytest.mark.parametrize("client", [False, True])
def test_messages_of_no_bytes_are_messages(client: bool) -> None:
    """Empty text and binary, whole and in empty fragments, arrive as what they are."""
    data = frame(TEXT, client=client) + frame(BINARY, client=client)
    data += frame(TEXT, fin=False, client=client) + frame(CONTINUATION, client=client)
    data += frame(BINARY, fin=False, client=client) + frame(CONTINUATION, client=client)
    assert values_of(machine(client=client), [data]) == ["", b"", "", b""]
    assert values_of(machine(client=client), dribble(data)) == ["", b"", "", b""]


def test_a_message_is_bytes_or_str_and_nothing_else() -> None:
    """Whole or gathered, binary is `bytes` (not a bytearray) and text is `str`."""
    data = frame(BINARY, b"whole") + frame(BINARY, b"in ", fin=False) + frame(CONTINUATION, b"two")
    data += frame(TEXT, b"whole") + frame(TEXT, b"in ", fin=False) + frame(CONTINUATION, b"two")
    values = values_of(machine(), [data])
    assert values == [b"whole", b"in two", "whole", "in two"]
    assert [type(value) for value in values] == [bytes, bytes, str, str]


def test_control_frames_stand_between_fragments() -> None:
    """Pings and pongs inside a message are seen, and do not touch it (section 5.4)."""
    data = frame(TEXT, b"a", fin=False) + frame(PING, b"1") + frame(CONTINUATION, b"b", fin=False)
    data += frame(PONG, b"2") + frame(CONTINUATION, b"c")
    assert values_of(machine(), [data]) == [("ping", b"1"), ("pong", b"2"), "abc"]
    assert values_of(machine(), dribble(data)) == [("ping", b"1"), ("pong", b"2"), "abc"]


def test_what_came_before_an_error_is_delivered() -> None:
    """Complete messages in front of a fault are kept; the fault ends the parsing for good."""
    end = machine()
    end.feed(frame(TEXT, b"good") + b"\xff\xff" + frame(TEXT, b"never"))
    (fault,) = end.parse()
    assert isinstance(fault, Failure)
    assert list(end.inbox.messages) == ["good"]
    end.feed(frame(TEXT, b"never"))
    assert end.parse() == []
    assert list(end.inbox.messages) == ["good"]
    assert not end.unparsed


def test_trailing_data_is_parsed() -> None:
    """Bytes that came glued to the request are frames like all others."""
    end = Protocol(client=False, limits=Limits(), trailing_data=frame(TEXT, b"early"))
    assert end.unparsed
    assert settle(end) == ["early"]


def test_messages_of_no_bytes_fill_the_read_ahead() -> None:
    """What waits is counted as memory: a flood of empty messages is not free."""
    end = machine()
    end.feed(frame(TEXT) * MAX_EVENTS)
    end.parse()
    assert len(end.inbox.messages) == MAX_EVENTS
    assert end.inbox.waiting >= 16 * MAX_EVENTS
    while end.inbox.messages:
        end.inbox.pop()
    assert end.inbox.waiting == 0


@pytest.mark.parametrize("text", ["plain", "é", "€", "\U0001f44b" * 50])
def test_waiting_is_an_upper_bound_of_memory(text: str) -> None:
    """Text counts with the widest form that Python may give it, and not at all once taken."""
    end = machine()
    end.feed(frame(TEXT, text.encode()) + frame(BINARY, text.encode()))
    end.parse()
    width = 1 if text.isascii() else 4
    assert end.inbox.waiting >= width * len(text) + len(text.encode())
    end.inbox.pop()
    end.inbox.pop()
    assert end.inbox.waiting == 0


# -- Close ---------------------------------------------------------------------------------------

ECHOED = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
REFUSED = [0, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535]


@pytest.mark.row("D8")
@pytest.mark.parametrize("code", ECHOED)
@pytest.mark.parametrize("reason", ["", "bye é"])
def test_a_legal_close_is_echoed(code: int, reason: str) -> None:
    """Every code that may be on the wire, 1014 included, is reported and can be echoed."""
    end = machine()
    for value in values_of(end, [close(code, reason.encode())]):
        assert value == PeerClose(code=code, reason=reason)
    echo, rest = parse_frames(end.close(code, reason), masked=False)
    assert [(each.close_code, each.close_reason) for each in echo] == [(code, reason)]
    assert rest == b""


@pytest.mark.row("D8")
def test_an_empty_close_is_1005_and_echoed_empty() -> None:
    """No status is reported as 1005 and never written as a number (section 7.1.5)."""
    end = machine()
    assert values_of(end, [frame(CLOSE)]) == [PeerClose(code=1005, reason="")]
    assert end.close(1005, "") == b"\x88\x00"


@pytest.mark.row("D8")
@pytest.mark.parametrize("code", REFUSED)
def test_an_illegal_close_code_is_1002(code: int) -> None:
    """A Close with a code that must not be on the wire is a protocol error (section 7.4)."""
    end = machine()
    assert failure(end, close(code, b"bye")).code == 1002
    assert parse_frames(end.close(1002, ""), masked=False)[0][0].close_code == 1002


@pytest.mark.row("D8")
@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        (b"\x03\xe8\xff", 1007),
        (b"\x03\xe8\xed\xa0\x80", 1007),
        (b"\x03\xe8ok \xc3", 1007),
        (b"\x03\xf6\xff", 1007),
    ],
)
def test_a_malformed_close_body_is_refused(payload: bytes, code: int) -> None:
    """One byte is no code; a reason that is no UTF-8 is 1007 (sections 5.5.1, 8.1)."""
    assert failure(machine(), frame(CLOSE, payload)).code == code
    assert failure(machine(), *dribble(frame(CLOSE, payload))).code == code


@pytest.mark.row("D7")
def test_a_close_inside_a_fragmented_message_is_seen() -> None:
    """The Close counts at once; the message that it cuts off never arrives."""
    data = frame(TEXT, b"never", fin=False) + close(1001, b"leaving")
    data += frame(CONTINUATION, b"finished")
    assert values_of(machine(), [data]) == [PeerClose(code=1001, reason="leaving")]


@pytest.mark.row("D6")
def test_nothing_behind_the_peers_close_is_parsed() -> None:
    """Messages, pings and rubbish after a Close mean nothing, in the same read or a later one."""
    end = machine()
    behind = frame(TEXT, b"late") + frame(PING, b"late") + b"\xff" * 50
    assert values_of(end, [close(1000) + behind, behind]) == [PeerClose(code=1000, reason="")]
    assert not end.unparsed


@pytest.mark.row("D6")
def test_messages_after_our_close_are_dropped() -> None:
    """Once we have closed, messages are dropped, waiting ones too; the Close is still seen."""
    end = machine()
    end.feed(frame(TEXT, b"waiting") + frame(TEXT, b"begun ", fin=False))
    end.parse()
    end.inbox.discard()
    end.close(1000, "")
    assert end.inbox.waiting == 0
    data = frame(CONTINUATION, b"and ended") + frame(BINARY, b"late") + frame(PONG, b"late")
    data += close(1000, b"bye") + frame(TEXT, b"later")
    values = values_of(end, dribble(data))
    assert values == [("pong", b"late"), PeerClose(code=1000, reason="bye")]
    assert end.inbox.waiting == 0


def test_a_fault_after_our_close_is_a_fault() -> None:
    """A peer that answers our Close with rubbish has broken the protocol."""
    end = machine()
    end.close(1000, "")
    assert failure(end, b"\xff\xff").code == 1002


@pytest.mark.row("D6")
def test_a_ping_glued_to_a_close_can_be_answered() -> None:
    """Whether the Close came in the ping's read or in the next one, the pong can be made."""
    end = machine()
    assert values_of(end, [frame(PING, b"x") + close(1000)]) == [
        ("ping", b"x"),
        PeerClose(code=1000, reason=""),
    ]
    answer = end.pong(b"x") + end.close(1000, "")
    frames, rest = parse_frames(answer, masked=False)
    assert [each.opcode for each in frames] == [PONG, CLOSE]
    assert rest == b""


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


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.row("E1")
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("length", [2**62, 2**63 - 1, 101])
def test_a_declared_length_over_the_limit_is_1009_from_the_header(opcode: int, length: int) -> None:
    """Not one byte of the payload is awaited, nor the masking key; the reason says the limit."""
    header = encode_frame(opcode, masked=True, declared_length=length, masking_key=b"\0\0\0\0")
    fault = failure(machine(max_message=100), header[:-4])
    assert fault.code == 1009
    assert "100" in fault.reason


def pieces_of(payload: bytes, count: int, opcode: int) -> bytes:
    """One message in `count` frames of about equal size."""
    size = -(-len(payload) // count)
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    return b"".join(
        frame(CONTINUATION if number else opcode, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    )


@pytest.mark.row("E1")
@pytest.mark.parametrize("limit", [100, 1000, 70_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_the_limit_is_inclusive_whole_fragmented_and_dribbled(
    limit: int, opcode: int, frames: int
) -> None:
    """A message of exactly the limit arrives, one byte more is 1009, however it is cut."""
    good, bad = b"x" * limit, b"x" * (limit + 1)
    expected: Value = good.decode() if opcode == TEXT else good
    data = pieces_of(good, frames, opcode)
    ways = [[data], [data[:5], data[5:]]] + ([dribble(data)] if limit <= 1000 else [])
    for pieces in ways:
        assert values_of(machine(max_message=limit), pieces) == [expected]
    data = pieces_of(bad, frames, opcode)
    ways = [[data], [data[:5], data[5:]]] + ([dribble(data)] if limit <= 1000 else [])
    for pieces in ways:
        assert failure(machine(max_message=limit), *pieces).code == 1009


@pytest.mark.row("E1")
def test_text_is_measured_in_bytes() -> None:
    """The limit counts bytes of UTF-8 on the wire, not characters."""
    assert values_of(machine(max_message=10), [frame(TEXT, ("é" * 5).encode())]) == ["é" * 5]
    assert failure(machine(max_message=10), frame(TEXT, ("é" * 6).encode())).code == 1009


@pytest.mark.row("E1")
def test_a_limit_is_of_one_message() -> None:
    """Messages of the limit follow one another, with control frames between and inside them."""
    one = frame(BINARY, b"x" * 60, fin=False) + frame(PING, b"y" * 125)
    one += frame(CONTINUATION, b"x" * 40)
    values = values_of(machine(max_message=100), dribble(one * 5))
    assert values == [("ping", b"y" * 125), b"x" * 100] * 5


@pytest.mark.row("E1")
def test_a_limit_of_nothing_admits_empty_messages() -> None:
    """`max_message=0` is a bound like any other."""
    assert values_of(machine(max_message=0), [frame(TEXT)]) == [""]
    assert failure(machine(max_message=0), frame(TEXT, b"x")).code == 1009


@pytest.mark.row("E2")
@pytest.mark.parametrize("payload", [b"", b"x"])
@pytest.mark.parametrize("limit", [1, 2, 10, 4096])
def test_fragments_are_counted(payload: bytes, limit: int) -> None:
    """N frames of a message arrive, the next one is 1009, before its payload; empty or not."""
    more = frame(CONTINUATION, payload, fin=False)
    begun = frame(BINARY, payload, fin=False) + more * (limit - 1)
    end = machine(max_fragments=limit)
    assert values_of(end, [begun]) == []
    fault = failure(end, more)
    assert fault.code == 1009
    assert str(limit) in fault.reason
    if limit > 1:
        whole = begun[: -len(more)] + frame(CONTINUATION, payload)
        for pieces in ([whole], dribble(whole) if limit <= 10 else [whole]):
            assert values_of(machine(max_fragments=limit), pieces * 2) == [payload * limit] * 2


@pytest.mark.row("E2")
def test_a_flood_of_empty_fragments_ends_at_the_default() -> None:
    """Of 10^6 empty fragments 4096 are looked at, and nothing of the rest is kept."""
    end = machine()
    end.feed(frame(TEXT, fin=False))
    fed = 1
    lump = frame(CONTINUATION, fin=False) * 1000
    while not (values := settle(end)):
        end.feed(lump)
        fed += 1000
    (fault,) = values
    assert isinstance(fault, Failure)
    assert fault.code == 1009
    assert fed <= 4096 + 1000


@pytest.mark.row("E2")
def test_no_limit_on_fragments_means_none() -> None:
    """`max_fragments=None` takes any number, within `max_message`."""
    data = frame(BINARY, fin=False) + frame(CONTINUATION, b"x", fin=False) * 5000
    data += frame(CONTINUATION)
    assert values_of(machine(max_fragments=None), [data]) == [b"x" * 5000]


@pytest.mark.row("E2")
@pytest.mark.parametrize(
    "unit",
    [
        frame(TEXT),
        frame(TEXT, b"x"),
        frame(PING),
        frame(PONG, b"x"),
        frame(TEXT, fin=False) + frame(CONTINUATION) * 1,
    ],
)
def test_one_parse_looks_at_no_more_than_64_events(unit: bytes) -> None:
    """However much arrives in one read, one step of work is bounded, and nothing is forgotten."""
    assert MAX_EVENTS == 64
    end = machine()
    end.feed(unit * 1000)
    total = 0
    for _ in range(1000):
        control = end.parse()
        assert len(control) + len(end.inbox.messages) <= MAX_EVENTS
        total += len(control) + len(end.inbox.messages)
        while end.inbox.messages:
            end.inbox.pop()
        if not end.unparsed:
            break
    assert total == 1000


# -- memory --------------------------------------------------------------------------------------


def peak_of(opcode: int, payload: bytes, segment: int) -> int:
    """Bytes of memory that one frame, received in segments, takes at worst; it has to arrive."""
    data = frame(opcode, payload)
    end = machine()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for at in range(0, len(data), segment):
            end.feed(data[at : at + segment])
            end.parse()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (message,) = end.inbox.messages
    assert (message.encode() if isinstance(message, str) else message) == payload
    return peak - before


SLACK = 64 * 1024
"""One read and the objects of the machine itself."""


@pytest.mark.row("E3")
@pytest.mark.parametrize(
    ("size", "segment"), [(1024 * 1024, 256), (1024 * 1024, 65536), (32 * 1024, 1)]
)
def test_a_dribbled_binary_frame_costs_twice_its_payload_at_most(size: int, segment: int) -> None:
    """A peer that dribbles costs bytes, not one object a segment."""
    assert peak_of(BINARY, bytes(range(256)) * (size // 256), segment) <= 2 * size + SLACK


@pytest.mark.row("E3")
@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("x" * 2**20, 256),
        ("x" * 2**14, 1),
        ("é" * 2**19, 65536),
        ("\U0001f44b" * 2**18, 65536),
        ("x" * (2**20 - 4) + "\U0001f44b", 65536),  # four bytes a character for the sake of one
    ],
)
def test_a_dribbled_text_frame_costs_its_bytes_and_its_text(text: str, segment: int) -> None:
    """Five times the message (bytes plus the widest text), as documented, at every moment but that
    of decoding, which takes one copy more; a quarter for the growth of the buffer."""
    payload = text.encode()
    copies = 5 if not text.isascii() else 2
    decoding = 1 if not text.isascii() else 0
    assert peak_of(TEXT, payload, segment) <= (copies + decoding + 0.25) * len(payload) + SLACK


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


# -- any split -----------------------------------------------------------------------------------


def transcript(*, client: bool) -> tuple[bytes, list[Value]]:
    """About 200 bytes with a bit of everything, and what they mean."""
    parts = [
        (TEXT, "hé".encode(), True),
        (BINARY, b"\x00\xff", False),
        (PING, b"in between", True),
        (CONTINUATION, b"\x01", False),
        (CONTINUATION, b"", True),
        (TEXT, b"\xe2\x82", False),
        (PONG, b"", True),
        (CONTINUATION, b"\xac", True),
        (BINARY, b"z" * 130, True),
        (TEXT, b"", True),
        (CLOSE, b"\x03\xf6bye", True),
        (PING, b"late", True),
    ]
    data = b"".join(frame(opcode, body, fin=fin, client=client) for opcode, body, fin in parts)
    messages: list[Value] = ["hé", b"\x00\xff\x01", "€", b"z" * 130, ""]
    control: list[Value] = [("ping", b"in between"), ("pong", b"")]
    return data, [*messages, *control, PeerClose(code=1014, reason="bye")]


def sorted_out(values: list[Value]) -> list[Value]:
    """Messages first, then control values: the two are told apart, each in order."""
    messages = [value for value in values if isinstance(value, str | bytes)]
    return [*messages, *(value for value in values if not isinstance(value, str | bytes))]


@pytest.mark.row("G3")
@pytest.mark.parametrize("client", [False, True])
def test_every_split_point_gives_the_same_values(client: bool) -> None:
    """A transcript cut in two anywhere, or into single bytes, means the same."""
    data, expected = transcript(client=client)
    assert 180 <= len(data) <= 260
    for cut in range(len(data) + 1):
        values = values_of(machine(client=client), [data[:cut], data[cut:]])
        assert sorted_out(values) == expected, cut
    assert sorted_out(values_of(machine(client=client), dribble(data))) == expected


@pytest.mark.row("G3")
@settings(max_examples=100)
@given(st.booleans(), st.sets(st.integers(1, 210), max_size=20))
def test_any_split_gives_the_same_values(client: bool, cuts: set[int]) -> None:
    """The same for any number of pieces."""
    data, expected = transcript(client=client)
    bounds = [0, *sorted(cuts), len(data) + 210]
    pieces = [data[start:stop] for start, stop in pairwise(bounds)]
    assert sorted_out(values_of(machine(client=client), pieces)) == expected


RUBBISH = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.builds(
            frame,
            st.sampled_from([CONTINUATION, TEXT, BINARY, PING, PONG]),
            st.binary(max_size=20) | st.text(max_size=10).map(str.encode),
            fin=st.booleans(),
        ),
        st.builds(close, st.integers(0, 65535), st.binary(max_size=20)),
    ),
    max_size=12,
).map(b"".join)


@pytest.mark.row("G3")
@given(RUBBISH, st.integers(0, 100))
def test_rubbish_never_raises_and_means_the_same_however_it_is_cut(data: bytes, cut: int) -> None:
    """Whatever bytes a peer sends, the machine yields values, the same for whole and dribbled."""

    def meaning(*pieces: bytes) -> list[Value]:
        return sorted_out(values_of(machine(max_message=30, max_fragments=3), pieces))

    whole = meaning(data)
    assert meaning(data[:cut], data[cut:]) == whole
    assert meaning(*dribble(data)) == whole


# -- outbound ------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_what_is_encoded_is_one_whole_frame(client: bool, size: int) -> None:
    """Text and binary of every size class: one final frame, masked by the client only."""
    end = machine(client=client)
    for message, opcode, payload in (
        ("é" * (size // 2), TEXT, ("é" * (size // 2)).encode()),
        (b"b" * size, BINARY, b"b" * size),
    ):
        frames, rest = parse_frames(end.encode(message), masked=client)
        assert frames == [Frame(opcode=opcode, payload=payload, masked=client)]
        assert rest == b""


@pytest.mark.row("C9")
@pytest.mark.parametrize("client", [False, True])
def test_mutable_buffers_are_copied(client: bool) -> None:
    """A bytearray or memoryview changed after encoding does not change the frame."""
    buffer = bytearray(b"before")
    frames = [machine(client=client).encode(value) for value in (buffer, memoryview(buffer))]
    buffer[:] = b"after!"
    for data in frames:
        assert parse_frames(data, masked=client)[0][0].payload == b"before"


@pytest.mark.parametrize("client", [False, True])
def test_any_memoryview_is_its_bytes(client: bool) -> None:
    """Items wider than a byte and gaps between them do not make the length lie."""
    views = [memoryview(array.array("i", [1, 2, 3])), memoryview(b"abcdef")[::2]]
    for view in views:
        data = machine(client=client).encode(view)
        frames, rest = parse_frames(data, masked=client)
        assert [each.payload for each in frames] == [view.tobytes()]
        assert rest == b""


def test_a_lone_surrogate_changes_nothing() -> None:
    """Text that UTF-8 cannot carry is a ValueError; the next message is a message of its own."""
    end = machine()
    with pytest.raises(ValueError, match="surrogate"):
        end.encode("half \ud83d")
    assert parse_frames(end.encode(b"whole"), masked=False)[0] == [
        Frame(opcode=BINARY, payload=b"whole")
    ]


@pytest.mark.parametrize("client", [False, True])
def test_control_frames_are_masked_by_the_client_only(client: bool) -> None:
    """Ping, pong and Close keep to section 5.1 as data does."""
    end = machine(client=client)
    data = end.ping(b"1") + end.pong(b"2") + end.close(4000, "three")
    frames, rest = parse_frames(data, masked=client)
    assert [each.opcode for each in frames] == [PING, PONG, CLOSE]
    assert [each.payload for each in frames] == [b"1", b"2", b"\x0f\xa0three"]
    assert rest == b""


@pytest.mark.parametrize("size", [UNJOINED, UNJOINED + 1, 1 << 20])
def test_a_head_and_its_payload_are_the_frame(size: int) -> None:
    """What is written unjoined is what `encode` would have joined."""
    payload = bytes(size)
    machine = Protocol(client=False, limits=Limits())
    assert machine.plain
    assert head_of(size) + payload == machine.encode(payload)
