"""`Sec-WebSocket-Extensions`: both ends read any bytes without raising, and what a server answers
is what was offered and what a client reads back. Input: header lines, separated by LF."""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["trio_ws"]):
    from trio_ws import Deflate
    from trio_ws._deflate import (
        Agreement,
        BadAnswer,
        check_answer_untrusted,
        choose_offer_untrusted,
        extensions_untrusted,
    )

from fuzzing import fuzz

Offered = list[tuple[str | None, list[tuple[str, str | None]] | None]]

OPTIONS = [
    Deflate(),
    Deflate(server_max_window_bits=15, client_max_window_bits=15),
    Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
]


def target(data: bytes) -> None:
    lines = data.split(b"\n")
    offered = list(extensions_untrusted(lines))
    for deflate in OPTIONS:
        agreement = choose_offer_untrusted(deflate, lines)
        assert agreement is None or isinstance(agreement, Agreement)
        if agreement is not None:
            check(deflate, agreement, offered)
        answer = check_answer_untrusted(deflate, lines)
        assert answer is None or isinstance(answer, Agreement | BadAnswer)
        if isinstance(answer, Agreement):
            assert 8 <= answer.server_max_window_bits <= deflate.server_max_window_bits
            assert 8 <= answer.client_max_window_bits <= deflate.client_max_window_bits
            assert len(offered) == 1
    refused = check_answer_untrusted(None, lines)
    assert refused is None or isinstance(refused, BadAnswer)


def check(deflate: Deflate, agreement: Agreement, offered: Offered) -> None:
    """RFC 7692 section 7.1: an answer holds what some offer holds, and nothing impossible."""
    assert "permessage-deflate" in [name for name, _ in offered]
    assert 9 <= agreement.server_max_window_bits <= deflate.server_max_window_bits
    assert 8 <= agreement.client_max_window_bits <= 15
    ((name, parameters),) = extensions_untrusted([agreement.answer.encode("ascii")])
    assert name == "permessage-deflate"
    assert parameters is not None
    said = dict(parameters)
    assert len(said) == len(parameters)
    assert agreement.server_no_context_takeover == ("server_no_context_takeover" in said)
    assert agreement.client_no_context_takeover == ("client_no_context_takeover" in said)
    assert agreement.server_max_window_bits == int(said.get("server_max_window_bits") or 15)
    assert agreement.client_max_window_bits == int(said.get("client_max_window_bits") or 15)
    if "client_max_window_bits" in said:  # section 7.1.2.2
        assert any(key == "client_max_window_bits" for _, each in offered for key, _ in each or ())


if __name__ == "__main__":
    fuzz(target)
