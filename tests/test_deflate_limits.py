"""Bombs and their kin: limits are on true bytes, and nothing is kept beyond them.

Lives here: memory and 1009, by tracemalloc. Must never live here: data that is no stream
(test_deflate_faults).
"""

from __future__ import annotations

import random
import tracemalloc
import zlib
from itertools import product

import pytest

from trio_ws._permessage import MAX_RESTARTS
from trio_ws._protocol import Failure
from trio_ws.testing import BINARY, CONTINUATION, TEXT, encode_frame

from .deflate_world import FINAL, HELLO, KIB, MIB, RSV1, TAIL, cut, deflated, in_frames, machine
from .frames_world import Value, failure, frame, values_of


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
