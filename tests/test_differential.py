"""Our frame machine and the one of `websockets`, over the same bytes: they must say the same.

Lives here: what is generated, and both machines' words translated into one vocabulary. Must never
live here: bytes that only one of the two would see (each is cut in its own way).

Each input is frames that are valid, then at most one that is not, so that there is one right class
of failure. Two differences are known and translated: `websockets` leaves UTF-8 to a later layer,
and answers a Close inside a fragmented message with 1002, where we echo its code (RFC 6455 section
5.5.1 admits a Close at any time).
"""

from __future__ import annotations

import codecs
import itertools
import zlib
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate as TheirDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER
from websockets.protocol import Protocol as Theirs

from trio_ws import Deflate, Limits
from trio_ws._deflate import Agreement
from trio_ws._permessage import PerMessageDeflate
from trio_ws._protocol import Failure, PeerClose, Protocol
from trio_ws.testing import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, encode_frame

LIMIT = 3000
LIMITS = Limits(max_message=LIMIT, max_fragments=None)

Said: TypeAlias = tuple[str, object]


@dataclass
class Story:
    """One machine's words: messages, the other events, the failure or Close at the end."""

    messages: list[str | bytes] = field(default_factory=list)
    control: list[Said] = field(default_factory=list)
    end: Said | None = None


def ours(pieces: list[bytes], *, client: bool, deflate: bool) -> Story:
    extensions = []
    if deflate:
        extensions.append(
            PerMessageDeflate(Agreement(), Deflate(), client=client, max_message=LIMIT)
        )
    machine = Protocol(client=client, limits=LIMITS, extensions=extensions)
    story = Story()
    for piece in pieces:
        machine.feed(piece)
        while machine.unparsed:
            for event in machine.parse():
                if isinstance(event, Failure):
                    story.end = ("failure", event.code)
                elif isinstance(event, PeerClose):
                    story.end = ("close", (event.code, event.reason))
                else:
                    story.control.append((type(event).__name__, bytes(event.payload)))
        while machine.inbox.messages:
            story.messages.append(machine.inbox.pop())
    return story


def theirs(pieces: list[bytes], *, client: bool, deflate: bool) -> Story:
    machine = Theirs(CLIENT if client else SERVER, max_size=LIMIT)
    if deflate:
        machine.extensions = [TheirDeflate(False, False, 15, 15)]
    story = Story()
    decoder, parts, text = codecs.getincrementaldecoder("utf-8")(), list[str | bytes](), False
    for piece in pieces:
        machine.receive_data(piece)
        for frame in machine.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in (Opcode.PING, Opcode.PONG):
                story.control.append((frame.opcode.name.title(), bytes(frame.data)))
                continue
            if frame.opcode is Opcode.CLOSE:
                continue
            if frame.opcode is not Opcode.CONT:
                text, parts = frame.opcode is Opcode.TEXT, []
                decoder.reset()
            try:
                data = bytes(frame.data)
                parts.append(decoder.decode(data, final=frame.fin) if text else data)
            except UnicodeDecodeError:
                story.end = ("failure", 1007)
                return story
            if frame.fin:
                story.messages.append("".join(parts) if text else b"".join(parts))  # type: ignore[arg-type]
    if machine.close_rcvd is not None:
        story.end = ("close", (int(machine.close_rcvd.code), machine.close_rcvd.reason))
    elif machine.parser_exc is not None:
        assert machine.close_sent is not None
        story.end = ("failure", int(machine.close_sent.code))
    return story


# -- what is generated ---------------------------------------------------------------------------

Made: TypeAlias = tuple[int, bytes, bool, int]  # opcode, payload, FIN, reserved bits

texts = st.text(max_size=60).map(lambda text: text.encode())
lengths = st.one_of(st.integers(120, 130), st.just(LIMIT - 200))
payloads = st.one_of(st.binary(max_size=40), lengths.map(bytes))
controls = st.builds(
    lambda opcode, data: (opcode, data, True, 0),
    st.sampled_from([PING, PONG]),
    st.binary(max_size=125),
)
codes = st.one_of(st.sampled_from([1000, 1001, 1002, 1003, 1007, 1014, 4999]), st.none())
wrong_codes = st.sampled_from([0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])


class Deflater:
    """A peer's compressor, whose window lasts from message to message."""

    def __init__(self) -> None:
        self.compressor = zlib.compressobj(6, zlib.DEFLATED, -15)

    def __call__(self, data: bytes) -> bytes:
        packed = self.compressor.compress(data) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
        return packed.removesuffix(b"\x00\x00\xff\xff") or b"\x00"


def fragments(draw: st.DrawFn, opcode: int, data: bytes, rsv: int) -> list[Made]:
    """A message in frames, with control frames between them."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    edges = [0, *cuts, len(data)]
    made: list[Made] = []
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        first, last = number == 0, number == len(cuts)
        made.append((opcode if first else CONTINUATION, data[start:end], last, rsv if first else 0))
        if not last:
            made += draw(st.lists(controls, max_size=1))
    return made


def fault(draw: st.DrawFn) -> tuple[Made, bool]:
    """A frame that nobody may send where no message is open; whether it is masked right."""
    frames: list[st.SearchStrategy[Made]] = [
        st.sampled_from(
            [
                *((opcode, b"x", True, 0) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
                *((BINARY, b"x", True, rsv) for rsv in (1, 2, 3)),
                *((PING, b"x", True, rsv) for rsv in (1, 2, 4)),
                (CONTINUATION, b"x", True, 0),
                (CONTINUATION, b"", False, 0),
                (PING, b"", False, 0),
                (CLOSE, b"", False, 0),
                (PING, bytes(126), True, 0),
                (CLOSE, b"\x03", True, 0),
                (CLOSE, b"\x03\xe8\xff", True, 0),
                (TEXT, b"\xed\xa0\x80", True, 0),
                (TEXT, b"ab\xc3", True, 0),
                (BINARY, bytes(LIMIT + 1), True, 0),
            ]
        ),
        wrong_codes.map(lambda code: (CLOSE, code.to_bytes(2, "big"), True, 0)),
    ]
    return draw(st.one_of(*frames)), draw(st.integers(0, 9)) > 0


@st.composite
def conversations(draw: st.DrawFn, *, deflate: bool) -> tuple[bytes, bool]:
    """The bytes of a peer, and whether the machine that reads them is a client."""
    client = draw(st.booleans())
    squeeze = Deflater()
    frames: list[tuple[Made, bool]] = []
    for kind in draw(st.lists(st.sampled_from(["text", "binary", "control"]), max_size=5)):
        if kind == "control":
            frames.append((draw(controls), True))
            continue
        data = draw(texts if kind == "text" else payloads)
        packed = deflate and draw(st.booleans())
        made = fragments(
            draw,
            TEXT if kind == "text" else BINARY,
            squeeze(data) if packed else data,
            4 if packed else 0,
        )
        frames += [(each, True) for each in made]
    end = draw(st.sampled_from(["open", "close", "close within", "message within", "fault"]))
    if end == "fault":
        frames.append(fault(draw))
    if end.endswith("within"):
        frames.append(((BINARY, b"begun", False, 0), True))
    if end == "message within":
        frames.append(((BINARY, b"another", draw(st.booleans()), 0), True))
    if end.startswith("close"):
        code = draw(codes)
        reason = draw(st.text(max_size=20)).encode()
        body = b"" if code is None else code.to_bytes(2, "big") + reason
        frames.append(((CLOSE, body, True, 0), True))
    wire = b"".join(
        encode_frame(opcode, data, fin=fin, rsv=rsv, masked=(not client) is right)
        for (opcode, data, fin, rsv), right in frames
    )
    return wire + (draw(st.binary(max_size=20)) if end != "open" else b""), client


def pieces(draw: st.DrawFn, wire: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=20)))
    edges = [0, *cuts, len(wire)]
    return [wire[a:b] for a, b in itertools.pairwise(edges) if a < b]


@st.composite
def cut_twice(draw: st.DrawFn, *, deflate: bool) -> tuple[list[bytes], list[bytes], bool]:
    wire, client = draw(conversations(deflate=deflate))
    return pieces(draw, wire), pieces(draw, wire), client


def compare(one: list[bytes], other: list[bytes], *, client: bool, deflate: bool) -> None:
    assert ours(one, client=client, deflate=deflate) == theirs(
        other, client=client, deflate=deflate
    )


@pytest.mark.row("G3", "D8", "G1", "G2")
@given(cut_twice(deflate=False))
def test_two_machines_tell_the_same_story(case: tuple[list[bytes], list[bytes], bool]) -> None:
    """The same messages, pings, pongs and Close, the same class of failure."""
    compare(case[0], case[1], client=case[2], deflate=False)


@pytest.mark.row("G3", "F1", "F5")
@given(cut_twice(deflate=True))
def test_two_machines_tell_the_same_story_of_compressed_messages(
    case: tuple[list[bytes], list[bytes], bool],
) -> None:
    """With permessage-deflate and context takeover, mixed with messages that are not compressed."""
    compare(case[0], case[1], client=case[2], deflate=True)


def test_the_two_would_be_told_apart() -> None:
    """The positive control: a story that differs in one place is another story."""
    hello = [encode_frame(TEXT, b"hello", masked=True)]
    other = [encode_frame(BINARY, b"hello", masked=True)]
    assert ours(hello, client=False, deflate=False) == Story(messages=["hello"])
    assert theirs(other, client=False, deflate=False) == Story(messages=[b"hello"])
    assert ours(hello, client=False, deflate=False) != theirs(other, client=False, deflate=False)
