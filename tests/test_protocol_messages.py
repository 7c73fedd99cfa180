"""Messages through the frame machine, in and out: every rule that needs no clock and no socket.

Lives here: `_protocol` where all goes well. Must never live here: faults (test_protocol_faults),
I/O, the closing handshake as a conversation (test_close_races).
"""

from __future__ import annotations

import array

import pytest

from trio_ws._limits import Limits
from trio_ws._protocol import MAX_EVENTS, UNJOINED, Failure, Protocol, head_of
from trio_ws.testing import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, parse_frames

from .frames_world import frame, settle, values_of
from .protocol_world import dribble, machine

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
