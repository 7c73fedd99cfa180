"""The server's response: `ClientHandshake` fails in one way only, and how bytes were cut changes
nothing.

`ACCEPT` in an input stands for the token that the key of this run asks for: without it no input
would ever get past that check.
"""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["trio_ws", "h11"]):
    from trio_ws import Deflate, HandshakeError, Response
    from trio_ws._client_handshake import MAX_BODY, Agreed, ClientHandshake
    from trio_ws._handshake import HandshakeEvent, accept_token
    from trio_ws._url import parse_url

from fuzzing import cut, fuzz, halves

URL = parse_url("ws://localhost/chat")
ACCEPT = b"ACCEPT"
OFFERED = ("chat", "b")


def outcome(data: bytes, cuts: bytes | None) -> tuple[object, ...]:
    machine = ClientHandshake(URL, subprotocols=OFFERED, compression=Deflate())
    key = machine.request.header("sec-websocket-key")
    assert key is not None
    token = accept_token(key)
    answer = data.replace(ACCEPT, token)
    pieces = [answer] if cuts is None else list(cut(answer, cuts))
    try:
        for position, piece in enumerate([*filter(None, pieces), b""]):
            machine.receive_data(piece)
            event = machine.next_event()
            if isinstance(event, Agreed):
                assert event.subprotocol in {None, *OFFERED}
                rest = b"".join(pieces[position + 1 :])
                trailing = (event.trailing_data + rest).replace(token, ACCEPT)
                return event.subprotocol, event.compression, trailing
            if isinstance(event, Response):
                assert len(event.body) <= MAX_BODY
                event.header("location")
                said = repr((event.headers, event.body)).encode().replace(token, ACCEPT)
                return event.status, said
            assert event is HandshakeEvent.NEED_DATA
    except HandshakeError as exc:
        words = str(exc)
        assert words.isascii(), words
        assert words.isprintable(), words
        assert len(words) < 400, words
        return ("failed",)
    raise AssertionError("nothing more will come")


def target(data: bytes) -> None:
    cuts, answer = halves(data)
    assert outcome(answer, None) == outcome(answer, cuts)


if __name__ == "__main__":
    fuzz(target)
