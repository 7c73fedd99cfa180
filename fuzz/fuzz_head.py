"""The request head: `ServerHandshake` never raises, and how bytes were cut changes nothing.

What is read is what h11 reads. Beyond the parser: every property of a request that was read, and
the policy's decision on it.
"""

from __future__ import annotations

import atheris
import h11

with atheris.instrument_imports(include=["trio_ws", "h11"]):
    from trio_ws import Limits, Policy, UpgradeRequest
    from trio_ws._handshake import HandshakeEvent, ServerHandshake, http_response
    from trio_ws._policy import decide
    from trio_ws._response import Refusal

from fuzzing import cut, fuzz, halves

LIMITS = Limits(max_header_bytes=2048, max_headers=16, max_target=256)
POLICY = Policy(hosts=["localhost"], subprotocols=["chat"], trusted_proxies=["127.0.0.1"])
PROPERTIES = [
    name for name in dir(UpgradeRequest) if isinstance(getattr(UpgradeRequest, name), property)
]


def outcome(pieces: list[bytes]) -> tuple[object, bytes]:
    machine = ServerHandshake(limits=LIMITS, peer_address=("127.0.0.1", 1))
    for piece in [*pieces, b""]:
        event = machine.next_event()
        assert isinstance(event, (HandshakeEvent, UpgradeRequest, Refusal))
        machine.receive_data(piece)
    event = machine.next_event()
    assert event is not HandshakeEvent.NEED_DATA, "nothing more will come"
    assert machine.next_event() is event
    return event, machine.trailing_data


def read_by_h11(head: bytes) -> h11.Request:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(head)
    request = parser.next_event()
    assert isinstance(request, h11.Request)
    return request


def target(data: bytes) -> None:
    cuts, head = halves(data)
    event, trailing = outcome([head] if head else [])
    assert (event, trailing) == outcome(list(cut(head, cuts)))
    if isinstance(event, Refusal):
        http_response(event)
    elif isinstance(event, UpgradeRequest):
        request = read_by_h11(head)
        assert (event.method, event.raw_target) == (request.method, request.target)
        assert (event.http_version, event.headers) == (
            request.http_version,
            tuple(request.headers),
        )
        for name in PROPERTIES:
            getattr(event, name)
        repr(event)
        decide(event, POLICY, plain=False)
        POLICY.explain(event)


if __name__ == "__main__":
    fuzz(target)
