"""The engines side by side: the compiled one against wsproto, which is the reference.

Lives here: the same bytes in the same pieces to both, hostile ones too, and the same story from
both; the choice between them. Must never live here: what events mean for a connection
(test_protocol), speed.
"""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any, TypeAlias

import pytest
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, RsvBits

import trio_ws
from trio_ws._deflate import Agreement, Deflate
from trio_ws._engine import Engine, Reference, choose
from trio_ws._inbox import size_of
from trio_ws._permessage import PerMessageDeflate
from trio_ws.testing import encode_frame

try:
    from trio_ws._speedups import Engine as Compiled
except ImportError:
    Compiled = None  # type: ignore[assignment,misc]

compiled_only = pytest.mark.skipif(Compiled is None, reason="the compiled engine was not compiled")

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


ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
DEFLATE = pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])


@compiled_only
@ROLES
@DEFLATE
def test_the_same_bytes_in_the_same_pieces_tell_the_same(client: bool, deflate: bool) -> None:
    """Events, their words, the state after each, the verdict: whatever a peer says, however cut."""
    kinds = set()
    for seed in range(1000):
        chance = random.Random(f"{seed} {client} {deflate}")
        limits = chance.choice(LIMITS)
        pieces = cut(chance, script(chance, client=client, deflate=deflate))
        patience = chance.choice([1, 2, 64, 1 << 20])
        ours, theirs = (
            hear(engine, pieces, patience)
            for engine in both(client=client, limits=limits, deflate=deflate)
        )
        assert theirs == ours, f"seed {seed}, {limits}, {pieces}"
        kinds |= {word[0] for word in ours}
    wanted = {"TextMessage", "BytesMessage", "Ping", "Pong", "CloseConnection"}
    assert wanted <= kinds, "the scripts say too little"


@compiled_only
@ROLES
@DEFLATE
def test_whole_messages_are_the_same_messages(client: bool, deflate: bool) -> None:
    """`take` leaves out nothing, invents nothing and changes no order; what it says of the memory
    is what the inbox says."""
    taken_ever = 0
    for seed in range(1000):
        chance = random.Random(f"{seed} {client} {deflate}")
        limits = chance.choice(LIMITS)
        pieces = cut(chance, script(chance, client=client, deflate=deflate))
        reference, compiled = both(client=client, limits=limits, deflate=deflate)
        wanted = [told[:-1] for told in hear(reference, pieces, 1 << 20)]
        told: list[tuple[object, ...]] = []
        for piece in [*pieces, b"", b""]:
            told.append(fate(compiled.receive_data, piece)[:-1])
            while True:
                messages: list[str | bytes] = []
                size = compiled.take(messages, chance.choice([0, 1, 3, 64]))
                assert size == sum(map(size_of, messages))
                taken_ever += len(messages)
                for message in messages:
                    kind = TextMessage if isinstance(message, str) else BytesMessage
                    told.append(words_of(kind(data=message)))  # type: ignore[arg-type]
                event = next(compiled.events(), None)
                if event is None:
                    break
                told.append(words_of(event))
        told.append((compiled.state, compiled.verdict))
        assert told == wanted, f"seed {seed}, {limits}, {pieces}"
    assert (taken_ever > 200) is not deflate


@compiled_only
@ROLES
@DEFLATE
def test_what_is_sent_is_the_same(client: bool, deflate: bool) -> None:
    """Frames byte by byte on a server, behind their masks on a client; refusals word by word."""
    refused = 0
    for seed in range(400):
        chance = random.Random(seed)
        reference, compiled = both(client=client, limits=LIMITS[0], deflate=deflate)
        listeners = [
            make(Reference, client=not client, limits=(1 << 30, None), deflate=deflate)
            for _ in range(2)
        ]
        for _ in range(chance.randint(1, 12)):
            event = utterance(chance)
            first, second = fate(reference.send, event), fate(compiled.send, event)
            assert second[0] == first[0]
            assert reference.state is compiled.state
            if first[0] != "value":
                refused += 1
                assert second == first
            elif not client:
                assert second == first
            else:
                frames = [bytes(told[1][1]) for told in (first, second)]  # type: ignore[index]
                assert len(frames[0]) == len(frames[1])
                heard = [
                    hear(listener, [frame], 1 << 20)
                    for listener, frame in zip(listeners, frames, strict=True)
                ]
                assert heard[0] == heard[1]
    assert refused > 100


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


@compiled_only
def test_a_message_that_cannot_be_text_changes_nothing() -> None:
    """A lone surrogate is refused, and the next message is a first frame, not a continuation."""
    for engine in both(client=False, limits=LIMITS[0], deflate=False):
        with pytest.raises(UnicodeEncodeError):
            engine.encode("\ud800", False)
        assert engine.encode(b"x", True) == b"\x82\x01x"


@compiled_only
def test_the_end_of_bytes_is_an_event() -> None:
    for engine in both(client=False, limits=LIMITS[0], deflate=False):
        engine.receive_data(encode_frame(1, b"hi", masked=True))
        engine.receive_data(None)
        told = [words_of(event) for event in engine.events()]
        assert [word[0] for word in told] == ["CloseConnection", "TextMessage"]
        assert engine.state is ConnectionState.CLOSED
        with pytest.raises(Exception, match="already closed"):
            engine.receive_data(b"")


@compiled_only
def test_bytes_that_are_not_bytes_are_refused() -> None:
    engine = make(Compiled, client=False, limits=LIMITS[0], deflate=False)
    for nonsense in ("text", 7, [1]):
        with pytest.raises(TypeError):
            engine.receive_data(nonsense)  # type: ignore[arg-type]
    engine.receive_data(bytearray(encode_frame(1, b"hi", masked=True)))
    assert [event.data for event in engine.events()] == ["hi"]  # type: ignore[attr-defined]


@compiled_only
@ROLES
@DEFLATE
def test_what_is_missing_of_a_data_frame_is_known(client: bool, deflate: bool) -> None:
    """From its head on; nothing is missing of control frames, heads, or behind a fault."""
    engine = make(Compiled, client=client, limits=(5000, None), deflate=deflate)

    def after(data: bytes) -> int:
        engine.receive_data(data)
        list(engine.events())
        return engine.missing

    frame = encode_frame(2, bytes(1000), masked=not client)
    assert after(frame[:3]) == 0
    assert after(frame[3:-990]) == 990
    assert after(frame[-990:-1]) == 1
    ping = encode_frame(9, bytes(100), masked=not client)
    assert after(frame[-1:] + ping[:50]) == 0
    assert after(ping[50:]) == 0
    assert after(encode_frame(2, bytes(5001), masked=not client)[:100]) == 0
    assert engine.verdict == "message over 5000 bytes"


# -- masking keys ----------------------------------------------------------------------------------


def keys(count: int) -> list[bytes]:
    """The keys of so many frames of two clients in turns."""
    clients = [make(Compiled, client=True, limits=LIMITS[0], deflate=False) for _ in range(2)]
    frames = [clients[turn % 2].encode(b"", True) for turn in range(count)]
    assert {frame[:2] for frame in frames} == {b"\x82\x80"}
    return [frame[2:] for frame in frames]


def assert_never_twice(drawn: list[bytes]) -> None:
    """Chance may give two alike now and then, a fault gives many."""
    assert len(set(drawn)) > len(drawn) - 3


@compiled_only
def test_no_masking_key_is_used_twice() -> None:
    """RFC 6455 section 5.3: "a fresh masking key [...] derived from a strong source of entropy"."""
    assert_never_twice(keys(3000))


@compiled_only
def test_threads_do_not_share_masking_keys() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            drawn = list(pool.map(keys, [2000] * 4))
    finally:
        sys.setswitchinterval(before)
    assert_never_twice([key for each in drawn for key in each])


FORKING = """
import os
from trio_ws._speedups import Engine

def keys(count):
    client = Engine(
        client=True, extensions=[], trailing_data=b"", max_message=9, max_fragments=None
    )
    return b"".join(client.encode(b"", True)[2:] for _ in range(count))

keys(1)  # many were drawn for it, and are there when the process forks
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    grandchild = os.fork()
    os.write(writing, keys(50))
    if grandchild:
        os.waitpid(grandchild, 0)
    os._exit(0)
os.waitpid(child, 0)
os.close(writing)
with open(reading, "rb") as others:
    print((keys(50) + others.read()).hex())
"""


@compiled_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_processes_do_not_share_masking_keys() -> None:
    """Parent, child and grandchild: each draws its own."""
    # In a process of its own: in this one there may be threads, which a fork would warn of.
    done = subprocess.run([sys.executable, "-c", FORKING], check=True, capture_output=True)
    drawn = bytes.fromhex(done.stdout.decode())
    assert len(drawn) == 3 * 50 * 4
    assert_never_twice([drawn[place : place + 4] for place in range(0, len(drawn), 4)])


# -- what only C can get wrong ---------------------------------------------------------------------


class Meddler(Extension):
    """Calls back into the engine that called it, and answers with nonsense."""

    name = "meddler"

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.refusals = 0

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(self, proto: Any, *args: object) -> RsvBits:
        self.call(proto)
        return RsvBits(False, False, False)

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> Any:
        self.call(proto)
        return self.answer

    def call(self, engine: Any) -> None:
        for call in (lambda: engine.receive_data(b"x" * 100), lambda: next(engine)):
            with suppress(RuntimeError):
                call()
                self.refusals -= 1
            self.refusals += 1


@compiled_only
@pytest.mark.parametrize("answer", [None, "text", 3.5, object()])
def test_an_extension_that_misbehaves_does_not_hurt_the_memory(answer: object) -> None:
    meddler = Meddler(answer)
    engine = Compiled(
        client=False, extensions=[meddler], trailing_data=b"", max_message=9, max_fragments=9
    )
    engine.receive_data(encode_frame(2, b"12345", masked=True))
    for _ in range(3):
        with suppress(TypeError):
            list(engine.events())
    assert meddler.refusals >= 2


@compiled_only
def test_an_idle_engine_holds_no_read() -> None:
    """What is left of a read of 64 KiB is its last bytes, not the read."""
    message = encode_frame(2, bytes(60_000), masked=True)
    engines = []
    tracemalloc.start()
    try:
        for _ in range(20):
            engine = make(Compiled, client=False, limits=LIMITS[0], deflate=False)
            engine.receive_data(message + b"\x82\xfe\x00")
            messages: list[str | bytes] = []
            engine.take(messages, 64)
            assert len(messages) == 1
            assert list(engine.events()) == []
            engines.append(engine)
        del messages
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 20 * 2000


@compiled_only
def test_no_call_loses_memory() -> None:
    """The same scripts again and again take no more memory than the lists that Python keeps."""

    def talk(seeds: range) -> None:
        for seed in seeds:
            chance = random.Random(seed)
            client, deflate = chance.random() < 0.5, chance.random() < 0.5
            engine = make(Compiled, client=client, limits=chance.choice(LIMITS), deflate=deflate)
            hear(engine, cut(chance, script(chance, client=client, deflate=deflate)), 3)
            for _ in range(4):
                fate(engine.send, utterance(chance))

    held = []
    tracemalloc.start()
    try:
        for _ in range(6):
            talk(range(200))
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[5] - held[2] < 10_000, "16 bytes a script"


# -- the choice ------------------------------------------------------------------------------------


def test_the_engine_in_use_has_a_name() -> None:
    assert trio_ws.ENGINE in (["wsproto"] if Compiled is None else ["wsproto", "compiled"])
    assert choose(os.environ.get("TRIO_WS_ENGINE"))[0] == trio_ws.ENGINE


def test_either_engine_can_be_forced() -> None:
    assert choose("wsproto") == ("wsproto", Reference)
    if Compiled is not None:
        assert choose("compiled") == choose(None) == choose("") == ("compiled", Compiled)


def test_an_engine_that_is_not_there_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio_ws._speedups", None)
    with pytest.raises(ImportError, match="installed without its compiled engine"):
        choose("compiled")
    assert choose(None) == ("wsproto", Reference)


def test_a_misspelt_engine_is_an_error() -> None:
    with pytest.raises(ValueError, match="TRIO_WS_ENGINE must be"):
        choose("complied")
