"""Limits of the frame machine: on lengths, fragments, events a step, memory of one message.

Lives here: 1009 and how early it comes. Must never live here: memory of a whole connection
(test_memory_bounds).
"""

from __future__ import annotations

import tracemalloc

import pytest

from trio_ws._protocol import MAX_EVENTS, Failure
from trio_ws.testing import BINARY, CONTINUATION, PING, PONG, TEXT, encode_frame

from .frames_world import Value, failure, frame, settle, values_of
from .protocol_world import dribble, machine

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
