"""The compiled engine alone: what only C can get wrong, and what wsproto does not have.

Lives here: memory, calls out of turn, masking keys. Must never live here: what both engines tell of
the same bytes (test_engine).
"""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from wsproto.extensions import Extension
from wsproto.frame_protocol import RsvBits

from trio_ws.testing import encode_frame

from .engine_world import (
    DEFLATE,
    LIMITS,
    ROLES,
    Compiled,
    compiled_only,
    cut,
    fate,
    hear,
    make,
    script,
    utterance,
)

pytestmark = compiled_only


def test_bytes_that_are_not_bytes_are_refused() -> None:
    engine = make(Compiled, client=False, limits=LIMITS[0], deflate=False)
    for nonsense in ("text", 7, [1]):
        with pytest.raises(TypeError):
            engine.receive_data(nonsense)  # type: ignore[arg-type]
    engine.receive_data(bytearray(encode_frame(1, b"hi", masked=True)))
    assert [event.data for event in engine.events()] == ["hi"]  # type: ignore[attr-defined]


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


def test_feeding_in_vain_changes_nothing() -> None:
    engine = make(Compiled, client=False, limits=LIMITS[0], deflate=False)
    frame = encode_frame(1, b"hi", masked=True)
    for nonsense in [(frame, (), 64), (frame, [], "64"), (frame, []), ("text", [], 64)]:
        with pytest.raises(TypeError):
            engine.feed(*nonsense)  # type: ignore[call-arg,arg-type]
    assert list(engine.events()) == []
    engine.receive_data(frame)
    engine.receive_data(None)
    with pytest.raises(Exception, match="already closed"):
        engine.feed(frame, [], 64)


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


def test_no_masking_key_is_used_twice() -> None:
    """RFC 6455 section 5.3: "a fresh masking key [...] derived from a strong source of entropy"."""
    assert_never_twice(keys(3000))


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_processes_do_not_share_masking_keys() -> None:
    """Parent, child and grandchild: each draws its own."""
    # In a process of its own: in this one there may be threads, which a fork would warn of.
    done = subprocess.run([sys.executable, "-c", FORKING], check=True, capture_output=True)
    drawn = bytes.fromhex(done.stdout.decode())
    assert len(drawn) == 3 * 50 * 4
    assert_never_twice([drawn[place : place + 4] for place in range(0, len(drawn), 4)])
