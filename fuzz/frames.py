"""The frame machine under any bytes: it never raises, keeps within its limits, and says the same
however the bytes were cut. Lives here: what both frame targets assert."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fuzzing import cut, halves

from trio_ws import Limits
from trio_ws._protocol import Failure, PeerClose, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wsproto.extensions import Extension

LIMITS = Limits(max_message=300, max_fragments=8)  # small: inputs are
SLACK = 64  # what an object counts for in `waiting`

Event: TypeAlias = tuple[str, object]


def transcript(
    pieces: Iterable[bytes], *, client: bool, extensions: list[Extension]
) -> list[Event]:
    """What the machine says: messages and control events; a failure by its code."""
    machine = Protocol(client=client, limits=LIMITS, extensions=extensions)
    said: list[Event] = []
    for piece in pieces:
        machine.feed(piece)
        while True:
            control = machine.parse()
            inbox = machine.inbox
            assert inbox.waiting <= (LIMITS.max_message + SLACK) * 4 * (len(inbox.messages) + 1)
            while inbox.messages:
                message = inbox.pop()
                size = len(message.encode() if isinstance(message, str) else message)
                assert size <= LIMITS.max_message
                said.append(("message", message))
            for event in control:
                if isinstance(event, Failure):
                    assert event.code in (1002, 1007, 1009)
                    event.reason.encode()
                    said.append(("failure", event.code))
                elif isinstance(event, PeerClose):
                    said.append(("close", (event.code, event.reason)))
                else:
                    assert len(event.payload) <= 125
                    said.append((type(event).__name__, bytes(event.payload)))
            if not machine.unparsed:
                break
        if machine.over:
            assert said[-1][0] in ("failure", "close")
            assert not machine.unparsed
    return said


def in_order(said: list[Event]) -> tuple[list[Event], list[Event]]:
    """Messages, and what is no message: `parse` tells both, not how they stood to each other."""
    messages = [event for event in said if event[0] == "message"]
    return messages, [event for event in said if event[0] != "message"]


def check(
    data: bytes,
    extensions: Callable[[bool], list[Extension]],
    *,
    either: frozenset[int] = frozenset(),
) -> None:
    """
    Args:
        either: failure codes of which one message can earn several; the cuts decide which fault is
            met first.
    """
    cuts, wire = halves(data)
    client = bool(cuts and cuts[0] & 1)
    whole = transcript([wire], client=client, extensions=extensions(client))
    pieces = transcript(cut(wire, cuts), client=client, extensions=extensions(client))
    for said in (whole, pieces):
        if said and said[-1][0] == "failure" and said[-1][1] in either:
            said[-1] = ("failure", either)
    assert in_order(whole) == in_order(pieces)
