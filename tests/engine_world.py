"""What the tests of the two engines share: what peers say, and what an engine tells of it.

Lives here: these. Must never live here: a test.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, TypeAlias

import pytest
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from trio_ws._deflate import Agreement, Deflate
from trio_ws._engine import Engine, Reference
from trio_ws._permessage import PerMessageDeflate
from trio_ws.testing import encode_frame

try:
    from trio_ws._speedups import Engine as Compiled
except ImportError:
    Compiled = None  # type: ignore[assignment,misc]

compiled_only = pytest.mark.skipif(Compiled is None, reason="the compiled engine was not compiled")
ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
DEFLATE = pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])

Told: TypeAlias = "list[tuple[object, ...]]"

WORDS = [b"", b"h", b"hello", "grüße 🐟".encode(), b"x" * 126, b"y" * 300, b"\xff", b"\xf0\x9f"]
LIMITS = [(1 << 20, 4096), (200, None), (400, 3), (0, 1), (1 << 80, None)]
CODES = [0, 999, 1000, 1003, 1004, 1005, 1006, 1007, 1012, 1013, 1014, 1015, 1016, 2999, 3000, 4999]
CODES += [5000, 65535]


def make(kind: type[Any], *, client: bool, limits: tuple[int, int | None], deflate: bool) -> Engine:
    """An engine of that kind; both kinds get extensions of their own."""
    extensions = []
    if deflate:
        most = min(limits[0], 1 << 20)
        agreed = PerMessageDeflate(
            Agreement(), Deflate(threshold=20), client=client, max_message=most
        )
        extensions.append(agreed)
    engine: Engine = kind(
        client=client, extensions=extensions, trailing_data=b"",
        max_message=limits[0], max_fragments=limits[1],
    )  # fmt: skip
    return engine


def both(**options: Any) -> tuple[Engine, Engine]:
    return make(Reference, **options), make(Compiled, **options)


def plain(value: object) -> object:
    """A value with its type, so that 1000 is not CloseReason(1000), nor a bytearray bytes."""
    return (type(value).__name__, value)


def words_of(event: Event) -> tuple[object, ...]:
    if isinstance(event, Message):
        # wsproto 1.3.0 has bytearrays here
        data = event.data if isinstance(event.data, str) else bytes(event.data)
        told = (plain(data), event.frame_finished, event.message_finished)
    elif isinstance(event, CloseConnection):
        told = (plain(event.code), event.reason, None)
    else:
        assert isinstance(event, (Ping, Pong))
        told = (bytes(event.payload), None, None)
    return (type(event).__name__, *told)


def hear(engine: Engine, pieces: list[bytes], patience: int) -> Told:
    """What an engine tells of these pieces, when it is asked for `patience` events after each."""
    told: Told = []
    for piece in [*pieces, b"", b""]:
        told.append(fate(engine.receive_data, piece))
        for event in islice(engine.events(), patience):
            told.append((*words_of(event), engine.state))
    told += [words_of(event) for event in engine.events()]
    return [*told, (engine.state, engine.verdict, engine.peer_said_1014)]


def fate(call: Callable[..., Any], *args: object) -> tuple[object, ...]:
    """What becomes of a call: its value, or its exception in words."""
    try:
        return ("value", plain(call(*args)))
    except Exception as exc:  # noqa: BLE001  any kind is compared
        return (type(exc).__name__, str(exc))


# -- what peers say --------------------------------------------------------------------------------


def good_frames(chance: random.Random, *, client: bool, deflate: bool) -> Iterator[bytes]:
    """Messages, whole and in fragments, with control frames between."""
    talker = make(Reference, client=not client, limits=(1 << 20, None), deflate=deflate)
    for _ in range(chance.randint(1, 6)):
        text = chance.random() < 0.5
        fragments = chance.choice([1, 1, 1, 2, 4])
        for left in reversed(range(fragments)):
            words = chance.choice(WORDS[:6])
            with suppress(UnicodeDecodeError):
                message = words.decode() if text else words
                yield talker.encode(message, left == 0)
            if chance.random() < 0.2:
                control = chance.choice([Ping, Pong])(payload=chance.choice(WORDS)[:125])
                yield talker.send(control)
    if chance.random() < 0.5:
        yield talker.send(CloseConnection(code=chance.choice([1000, 1001, 3000]), reason="bye"))


def any_frames(chance: random.Random, *, client: bool) -> Iterator[bytes]:
    """Frames of every kind, most of them wrong in some way sooner or later."""
    for _ in range(chance.randint(1, 8)):
        opcode = chance.choice([0, 0, 1, 1, 2, 2, 8, 9, 10, chance.randrange(16)])
        payload = chance.choice(WORDS)
        if opcode == 8:
            payload = chance.choice(CODES).to_bytes(2, "big") + payload[:123]
            payload = payload[: chance.choice([0, 1, 125, 125, 125])]
        masked = client if chance.random() < 0.03 else not client
        rsv = chance.randrange(8) if chance.random() < 0.1 else 0
        fin = chance.random() < 0.7
        with suppress(ValueError):  # the encoder of the kit refuses some
            yield encode_frame(
                opcode, payload, fin=fin, rsv=rsv, masked=masked, masking_key=b"\x5a\x00\xc3\x11"
            )


def spoiled(chance: random.Random, data: bytes) -> bytes:
    """The same with a few bits turned, or bytes lost, or lengths that cost more than they need."""
    bent = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        if bent:
            bent[chance.randrange(len(bent))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.3:
        head = bytes([chance.choice([0x81, 0x82, 0x01]), chance.choice([0x7E, 0x7F, 0xFE, 0xFF])])
        bent += head + chance.choice([bytes(8), bytes(6) + b"\1\0", b"\x80" + bytes(7), b"\0\x7e"])
    if chance.random() < 0.3:
        del bent[: chance.randrange(len(bent) + 1)]
    return bytes(bent)


def script(chance: random.Random, *, client: bool, deflate: bool) -> bytes:
    """What one peer says."""
    kind = chance.random()
    if kind < 0.4:
        return b"".join(good_frames(chance, client=client, deflate=deflate))
    if kind < 0.7:
        return b"".join(any_frames(chance, client=client))
    if kind < 0.95:
        return spoiled(chance, b"".join(good_frames(chance, client=client, deflate=deflate)))
    return chance.randbytes(chance.randint(0, 60))


def cut(chance: random.Random, data: bytes) -> list[bytes]:
    """In pieces: one, or single bytes, or anything between."""
    size = chance.choice([1, 2, 7, 40, 300, 1 << 20])
    pieces = []
    while data:
        count = chance.randint(1, size)
        pieces.append(data[:count])
        data = data[count:]
    return pieces


# -- what we say -----------------------------------------------------------------------------------


def utterance(chance: random.Random) -> Event:
    """Something to send; some of it cannot be sent."""
    kind = chance.random()
    fin = chance.random() < 0.7
    size = chance.choice([0, 1, 2, 125, 126, 65535, 65536])
    if kind < 0.3:
        text = chance.choice(["", "a" * size, "ü🐟" * (size // 4), "\ud800", "bad \udfff"])
        return TextMessage(data=text, message_finished=fin)
    if kind < 0.6:
        data: Any = chance.randbytes(size)
        wrapped = chance.choice([
            bytes, bytearray, memoryview, lambda data: memoryview(data)[::2], lambda data: 7,
            lambda data: memoryview(data[: size & ~3]).cast("I"),
        ])  # fmt: skip
        return BytesMessage(data=wrapped(data), message_finished=fin)
    if kind < 0.9:
        payload = chance.randbytes(chance.choice([0, 1, 125, 126]))
        return chance.choice([Ping, Pong])(payload=payload)
    codes = [1000, CloseReason.GOING_AWAY, CloseReason.NO_STATUS_RCVD, 1005, 3000, 70000, None]
    code: Any = chance.choice(codes)
    return CloseConnection(code=code, reason=chance.choice([None, "", "bye", "ü" * 100]))
