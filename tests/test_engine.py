"""The engines side by side: the compiled one against wsproto, which is the reference.

Lives here: the same bytes in the same pieces to both, hostile ones too, and the same story from
both; the choice between them. Must never live here: what events mean for a connection
(test_protocol_messages), what only C can get wrong (test_engine_compiled), speed.
"""

from __future__ import annotations

import os
import random
import sys

import pytest
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, TextMessage

import trio_ws
from trio_ws._engine import Reference, choose
from trio_ws._inbox import size_of
from trio_ws.testing import encode_frame

from .engine_world import (
    DEFLATE,
    LIMITS,
    ROLES,
    Compiled,
    both,
    compiled_only,
    cut,
    fate,
    hear,
    make,
    plain,
    script,
    utterance,
    words_of,
)


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
def test_feeding_is_receiving_and_taking(client: bool, deflate: bool) -> None:
    """`feed` tells the same story, and where it says that this was all, nothing is left."""
    at_once = 0
    for seed in range(1000):
        chance = random.Random(f"{seed} {client} {deflate}")
        limits = chance.choice(LIMITS)
        pieces = cut(chance, script(chance, client=client, deflate=deflate))
        reference, compiled = both(client=client, limits=limits, deflate=deflate)
        wanted = [told[:-1] for told in hear(reference, pieces, 1 << 20) if told[0] != "value"]
        told: list[tuple[object, ...]] = []
        for piece in [*pieces, b"", b""]:
            messages: list[str | bytes] = []
            outcome = fate(compiled.feed, piece, messages, chance.choice([0, 1, 3, 64]))
            if outcome[0] != "value":
                told.append(outcome[:-1])
            kinds = [TextMessage if isinstance(each, str) else BytesMessage for each in messages]
            told += [words_of(kind(data=each)) for kind, each in zip(kinds, messages, strict=True)]
            rest = [words_of(event) for event in compiled.events()]
            told += rest
            if outcome == ("value", plain(sum(map(size_of, messages)))):
                assert not rest
                at_once += bool(messages)
            else:
                assert outcome[0] != "value" or outcome == ("value", plain(None))
        told.append((compiled.state, compiled.verdict))
        assert told == wanted, f"seed {seed}, {limits}, {pieces}"
    assert (at_once > 50) is not deflate


def test_the_reference_can_be_fed() -> None:
    engine = make(Reference, client=False, limits=LIMITS[0], deflate=False)
    messages: list[str | bytes] = []
    assert engine.feed(encode_frame(1, b"hi", masked=True), messages, 64) is None
    assert [words_of(event)[1] for event in engine.events()] == [plain("hi")]
    assert not messages


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
