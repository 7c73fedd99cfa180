"""Close frames through the frame machine: which are legal, what is echoed, what follows.

Lives here: section 5.5.1 and 7.4 of RFC 6455. Must never live here: the closing handshake as a
conversation (test_close_races).
"""

from __future__ import annotations

import pytest

from trio_ws._protocol import PeerClose
from trio_ws.testing import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, parse_frames

from .frames_world import failure, frame, values_of
from .protocol_world import close, dribble, machine

ECHOED = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
REFUSED = [0, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535]


@pytest.mark.row("D8")
@pytest.mark.parametrize("code", ECHOED)
@pytest.mark.parametrize("reason", ["", "bye é"])
def test_a_legal_close_is_echoed(code: int, reason: str) -> None:
    """Every code that may be on the wire, 1014 included, is reported and can be echoed."""
    end = machine()
    for value in values_of(end, [close(code, reason.encode())]):
        assert value == PeerClose(code=code, reason=reason)
    echo, rest = parse_frames(end.close(code, reason), masked=False)
    assert [(each.close_code, each.close_reason) for each in echo] == [(code, reason)]
    assert rest == b""


@pytest.mark.row("D8")
def test_an_empty_close_is_1005_and_echoed_empty() -> None:
    """No status is reported as 1005 and never written as a number (section 7.1.5)."""
    end = machine()
    assert values_of(end, [frame(CLOSE)]) == [PeerClose(code=1005, reason="")]
    assert end.close(1005, "") == b"\x88\x00"


@pytest.mark.row("D8")
@pytest.mark.parametrize("code", REFUSED)
def test_an_illegal_close_code_is_1002(code: int) -> None:
    """A Close with a code that must not be on the wire is a protocol error (section 7.4)."""
    end = machine()
    assert failure(end, close(code, b"bye")).code == 1002
    assert parse_frames(end.close(1002, ""), masked=False)[0][0].close_code == 1002


@pytest.mark.row("D8")
@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        (b"\x03\xe8\xff", 1007),
        (b"\x03\xe8\xed\xa0\x80", 1007),
        (b"\x03\xe8ok \xc3", 1007),
        (b"\x03\xf6\xff", 1007),
    ],
)
def test_a_malformed_close_body_is_refused(payload: bytes, code: int) -> None:
    """One byte is no code; a reason that is no UTF-8 is 1007 (sections 5.5.1, 8.1)."""
    assert failure(machine(), frame(CLOSE, payload)).code == code
    assert failure(machine(), *dribble(frame(CLOSE, payload))).code == code


@pytest.mark.row("D7")
def test_a_close_inside_a_fragmented_message_is_seen() -> None:
    """The Close counts at once; the message that it cuts off never arrives."""
    data = frame(TEXT, b"never", fin=False) + close(1001, b"leaving")
    data += frame(CONTINUATION, b"finished")
    assert values_of(machine(), [data]) == [PeerClose(code=1001, reason="leaving")]


@pytest.mark.row("D6")
def test_nothing_behind_the_peers_close_is_parsed() -> None:
    """Messages, pings and rubbish after a Close mean nothing, in the same read or a later one."""
    end = machine()
    behind = frame(TEXT, b"late") + frame(PING, b"late") + b"\xff" * 50
    assert values_of(end, [close(1000) + behind, behind]) == [PeerClose(code=1000, reason="")]
    assert not end.unparsed


@pytest.mark.row("D6")
def test_messages_after_our_close_are_dropped() -> None:
    """Once we have closed, messages are dropped, waiting ones too; the Close is still seen."""
    end = machine()
    end.feed(frame(TEXT, b"waiting") + frame(TEXT, b"begun ", fin=False))
    end.parse()
    end.inbox.discard()
    end.close(1000, "")
    assert end.inbox.waiting == 0
    data = frame(CONTINUATION, b"and ended") + frame(BINARY, b"late") + frame(PONG, b"late")
    data += close(1000, b"bye") + frame(TEXT, b"later")
    values = values_of(end, dribble(data))
    assert values == [("pong", b"late"), PeerClose(code=1000, reason="bye")]
    assert end.inbox.waiting == 0


def test_a_fault_after_our_close_is_a_fault() -> None:
    """A peer that answers our Close with rubbish has broken the protocol."""
    end = machine()
    end.close(1000, "")
    assert failure(end, b"\xff\xff").code == 1002


@pytest.mark.row("D6")
def test_a_ping_glued_to_a_close_can_be_answered() -> None:
    """Whether the Close came in the ping's read or in the next one, the pong can be made."""
    end = machine()
    assert values_of(end, [frame(PING, b"x") + close(1000)]) == [
        ("ping", b"x"),
        PeerClose(code=1000, reason=""),
    ]
    answer = end.pong(b"x") + end.close(1000, "")
    frames, rest = parse_frames(answer, masked=False)
    assert [each.opcode for each in frames] == [PONG, CLOSE]
    assert rest == b""
