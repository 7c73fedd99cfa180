"""Close codes: which may be sent, which may be received, and how an end is told.

Lives here: `_close` alone. Must never live here: frames (test_protocol_close), the closing
handshake.
"""

from __future__ import annotations

import dataclasses

import pytest

from trio_ws._close import Close, CloseCode, check_outgoing_close, may_be_on_the_wire

LEGAL = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
ILLEGAL = [-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535, 65536, 70000]


@pytest.mark.parametrize("code", LEGAL)
def test_a_legal_code_may_be_on_the_wire(code: int) -> None:
    """RFC 6455 section 7.4 and the IANA registry allow it, with and without a reason."""
    assert may_be_on_the_wire(code)
    check_outgoing_close(code, "")
    check_outgoing_close(code, "x" * 123)


@pytest.mark.row("D9")
@pytest.mark.parametrize("code", [*ILLEGAL, 10**30])
def test_an_illegal_code_is_refused(code: int) -> None:
    """A code that must not be sent is a ValueError that names it."""
    assert not may_be_on_the_wire(code)
    with pytest.raises(ValueError, match=str(code)):
        check_outgoing_close(code, "")


@pytest.mark.row("D9")
@pytest.mark.parametrize("code", ["1000", 1000.0, None, b"\x03\xe8", True])
def test_a_code_that_is_no_int_is_refused(code: object) -> None:
    """Nothing but an int is a code, however much it looks like one."""
    with pytest.raises(ValueError, match="close code"):
        check_outgoing_close(code, "")


@pytest.mark.row("D9")
@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "\U0001f44b" * 31])
def test_a_reason_over_123_bytes_is_refused(reason: str) -> None:
    """The bound of 123 counts bytes of UTF-8, not characters (section 5.5)."""
    with pytest.raises(ValueError, match="123"):
        check_outgoing_close(1000, reason)


@pytest.mark.row("D9")
@pytest.mark.parametrize("reason", ["\ud800", "ok \udfff", b"bye", None, 7])
def test_a_reason_that_is_no_text_is_refused(reason: object) -> None:
    """Lone surrogates and other types are a ValueError, not an error from inside."""
    with pytest.raises(ValueError, match="close reason"):
        check_outgoing_close(1000, reason)


def test_a_reason_of_exactly_123_bytes_is_taken() -> None:
    """The bound is inclusive, in bytes."""
    check_outgoing_close(1000, "é" * 61 + "x")
    check_outgoing_close(CloseCode.GOING_AWAY, "x" * 123)


def test_the_codes_have_names() -> None:
    """Every registered code is in `CloseCode`; all but the three reserved ones may be sent."""
    unsendable = {code for code in CloseCode if not may_be_on_the_wire(code)}
    assert unsendable == {CloseCode.NO_STATUS, CloseCode.ABNORMAL, CloseCode.TLS_HANDSHAKE}
    assert {int(code) for code in CloseCode} == {1005, 1006, 1015, *LEGAL[:12]}


def test_an_end_is_a_frozen_value() -> None:
    """Two equal ends are equal; nobody can rewrite the story."""
    end = Close(code=1000, reason="bye", initiator="peer")
    assert end == Close(code=CloseCode.NORMAL, reason="bye", initiator="peer")
    with pytest.raises(dataclasses.FrozenInstanceError):
        end.code = 1001  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("close", "words"),
    [
        (Close(code=1000, initiator="peer"), "1000 (normal), closed by the peer"),
        (Close(code=1001, initiator="local"), "1001 (going away), closed by us"),
        (Close(code=1006, initiator="nobody"), "1006 (abnormal), closed without a closing handsh"),
        (Close(code=3000, initiator="peer"), "3000 (registered), closed by the peer"),
        (Close(code=4000, initiator="peer"), "4000 (application), closed by the peer"),
        (Close(code=CloseCode.NORMAL, initiator="peer"), "1000 (normal)"),
    ],
)
def test_an_end_tells_code_name_and_who(close: Close, words: str) -> None:
    """One line for logs: the number, its name, who closed."""
    assert str(close).startswith(words)


@pytest.mark.row("A19")
def test_a_reason_is_escaped() -> None:
    """A peer's reason cannot put control characters into a log line."""
    told = str(Close(code=1000, reason="\x1b[2J\r\nroot: é", initiator="peer"))
    assert told.isascii()
    assert told.isprintable()
