"""Compression against Python's `websockets`: negotiation and streams, without a socket.

Lives here: its extension classes as the other side of ours, for every window and context. Must
never live here: what only this library promises (tests/test_deflate_inbound.py).
"""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import pytest
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode
from websockets.headers import build_extension, parse_extension

from trio_ws import Deflate, Limits
from trio_ws import _permessage as ours
from trio_ws._deflate import Agreement, check_answer_untrusted, choose_offer_untrusted, make_offer
from trio_ws._protocol import Protocol
from trio_ws.testing import BINARY, encode_frame, parse_frames

NAME = "permessage-deflate"
BITS = range(9, 16)
ALONE = list(product([False, True], repeat=2))


def messages() -> list[bytes]:
    rng = random.Random(7)
    noise = rng.randbytes(700)
    return [b"hello " * 50, noise, b"", noise + bytes(40_000) + noise, b"x", b"", b"hello " * 50]


def converse(agreement: Agreement, theirs: PerMessageDeflate, *, client: bool) -> None:
    """Messages both ways arrive; `client` says which side is ours."""
    extension = ours.PerMessageDeflate(
        agreement, Deflate(threshold=0), client=client, max_message=1 << 20
    )
    end = Protocol(client=client, limits=Limits(), extensions=[extension])
    for message in messages():
        (frame,), rest = parse_frames(end.encode(message), masked=client, allow_rsv=4)
        assert not rest
        sent = TheirFrame(Opcode(frame.opcode), frame.payload, rsv1=frame.rsv == 4)
        assert bytes(theirs.decode(sent).data) == message
        back = theirs.encode(TheirFrame(Opcode.BINARY, message))
        end.feed(
            encode_frame(BINARY, bytes(back.data), rsv=4 if back.rsv1 else 0, masked=not client)
        )
        assert end.parse() == []
        assert end.inbox.pop() == message


@pytest.mark.parametrize(("server_alone", "client_alone"), ALONE)
@pytest.mark.parametrize("client_bits", [None, True, *BITS])
@pytest.mark.parametrize("server_bits", [None, *BITS])
def test_their_client_and_our_server(
    server_bits: int | None, client_bits: Any, server_alone: bool, client_alone: bool
) -> None:
    factory = ClientPerMessageDeflateFactory(
        server_no_context_takeover=server_alone,
        client_no_context_takeover=client_alone,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
    )
    offer = build_extension([(NAME, list(factory.get_request_params()))])
    for deflate in (Deflate(), Deflate(server_max_window_bits=15, client_max_window_bits=15)):
        agreement = choose_offer_untrusted(deflate, [offer.encode()])
        assert agreement is not None
        ((_, parameters),) = parse_extension(agreement.answer)
        theirs = factory.process_response_params(parameters, [])
        converse(agreement, theirs, client=False)


@pytest.mark.parametrize(("server_alone", "client_alone"), ALONE)
@pytest.mark.parametrize("client_bits", [None, *BITS])
@pytest.mark.parametrize("server_bits", [None, *BITS])
def test_our_client_and_their_server(
    server_bits: int | None, client_bits: int | None, server_alone: bool, client_alone: bool
) -> None:
    factory = ServerPerMessageDeflateFactory(
        server_no_context_takeover=server_alone,
        client_no_context_takeover=client_alone,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
    )
    for deflate in (
        Deflate(),
        Deflate(server_max_window_bits=15, client_max_window_bits=15),
        Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
    ):
        ((_, parameters),) = parse_extension(make_offer(deflate))
        try:
            answer, theirs = factory.process_request_params(parameters, [])
        except NegotiationError:
            pytest.fail("our offer is one that every server can take")
        line = build_extension([(NAME, list(answer))])
        agreement = check_answer_untrusted(deflate, [line.encode()])
        assert isinstance(agreement, Agreement), agreement
        converse(agreement, theirs, client=True)
