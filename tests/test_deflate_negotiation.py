"""How compression is agreed upon: RFC 7692 section 7.1, from both sides.

Lives here: `_deflate`, header values in and agreements out. Must never live here: zlib at work
(test_deflate_inbound, _outbound), a handshake around it.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws._deflate import (
    Agreement,
    BadAnswer,
    Deflate,
    check_answer_untrusted,
    choose_offer_untrusted,
    extensions_untrusted,
    make_offer,
)

NAME = "permessage-deflate"
WIDE = Deflate(server_max_window_bits=15, client_max_window_bits=15)
NINE = "client_max_window_bits=9"
BITS = range(8, 16)


def answer_to(*lines: str | bytes, deflate: Deflate = WIDE) -> str | None:
    """What the server answers to these header lines; None if it takes no offer."""
    raw = [line if isinstance(line, bytes) else line.encode("latin-1") for line in lines]
    agreement = choose_offer_untrusted(deflate, raw)
    return None if agreement is None else agreement.answer


def parameters_of(answer: str) -> dict[str, str | None]:
    """An answer taken apart by other means than the code under test."""
    name, *parameters = answer.split("; ")
    assert name == NAME
    pairs = [parameter.partition("=") for parameter in parameters]
    assert len({name for name, _, _ in pairs}) == len(pairs), "a parameter is repeated"
    return {name: value if sign else None for name, sign, value in pairs}


# -- the option ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"server_max_window_bits": 8},
        {"client_max_window_bits": 16},
        {"threshold": -1},
        {"level": 0},
        {"level": 10},
        {"mem_level": 0},
        {"mem_level": 10},
    ],
)
def test_a_number_out_of_range_is_refused_by_name(bad: dict[str, Any]) -> None:
    """8 bits are the RFC's and not zlib's."""
    with pytest.raises(ValueError, match=f"Deflate.{next(iter(bad))} must be .*, not"):
        Deflate(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"level": "6"},
        {"mem_level": None},
        {"threshold": 1.5},
        {"server_max_window_bits": True},
        {"server_no_context_takeover": 1},
        {"client_no_context_takeover": None},
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"Deflate.{next(iter(bad))} must be an? "):
        Deflate(**bad)


# -- the server: which offer ---------------------------------------------------------------------

DECLINED = [
    "server_max_window_bits=abc",
    "server_max_window_bits=99",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=08",
    "server_max_window_bits=010",
    "server_max_window_bits=+9",
    "server_max_window_bits=9.0",
    "server_max_window_bits=-9",
    "server_max_window_bits=",
    "server_max_window_bits",
    'server_max_window_bits=""',
    'server_max_window_bits=" 10"',
    "server_max_window_bits=8",  # well formed, and zlib cannot
    "client_max_window_bits=abc",
    "client_max_window_bits=7",
    "client_max_window_bits=16",
    "client_max_window_bits=",
    'client_max_window_bits=""',
    "server_no_context_takeover=true",
    "client_no_context_takeover=1",
    "client_no_context_takeover=",
    "unknown",
    "unknown=1",
    "Server_No_Context_Takeover",
    "server_max_window_bits=10; server_max_window_bits=10",
    "server_no_context_takeover; server_no_context_takeover",
    "client_max_window_bits; client_max_window_bits=10",
    "server_max_window_bits=10 11",
    "server_no_context_takeover client_no_context_takeover",
    "a b",
    "=1",
    ";",
    "",
    "\xff",
    "server_max_window_bits=\xb9",
    "server_max_window_bits=1\x000",
    'server_max_window_bits="10" 1',
    'server_max_window_bits="10"; "x"',
    'server_max_window_bits="1,0"',
    'server_max_window_bits="1;0"',
]


@pytest.mark.row("A4")
@pytest.mark.parametrize("parameters", DECLINED)
def test_an_offer_that_cannot_be_kept_is_declined_alone(parameters: str) -> None:
    """Malformed, unknown, duplicate or impossible parameters cost the client that offer only: the
    next one is taken, on the same line or another."""
    offer = f"{NAME}; {parameters}"
    assert answer_to(offer) is None
    assert answer_to(f"{offer}, {NAME}") == NAME
    assert answer_to(offer, NAME) == NAME
    assert answer_to(f"{offer}, {offer}, {NAME}; server_no_context_takeover") == (
        f"{NAME}; server_no_context_takeover"
    )


@pytest.mark.row("A4")
def test_a_quoted_value_is_the_value() -> None:
    """RFC 6455 section 9.1: a quoted string means what it holds, escapes included."""
    plain = answer_to(f"{NAME}; server_max_window_bits=10")
    assert plain == f"{NAME}; server_max_window_bits=10"
    assert answer_to(f'{NAME}; server_max_window_bits="10"') == plain
    assert answer_to(f'{NAME}; server_max_window_bits="\\1\\0"') == plain
    assert answer_to(f'{NAME} ;\tserver_max_window_bits = "10" ') == plain


@pytest.mark.row("A4")
@pytest.mark.parametrize("value", ['"', '"10', '"10\\', '"10\\"', '10"', '"10""'])
def test_an_open_quote_takes_its_line_with_it(value: str) -> None:
    """What is behind an unclosed quote is inside of it; other lines are not."""
    offer = f"{NAME}; server_max_window_bits={value}"
    assert answer_to(offer) is None
    if value != '"10""':
        assert answer_to(f"{offer}, {NAME}") is None
    assert answer_to(offer, NAME) == NAME


def test_a_comma_in_quotes_ends_no_offer() -> None:
    """An offer cannot be smuggled in inside a string."""
    assert answer_to(f'other; x="a, {NAME}, b"') is None
    assert answer_to(f'other; x="\\", {NAME}; y="') is None
    assert answer_to(f'other; x="a, b", {NAME}') == NAME


@pytest.mark.parametrize(
    "lines",
    [
        [NAME],
        [f" ,, {NAME} ,"],
        ["x-webkit-deflate-frame", NAME],
        ["", f"\t{NAME}\t"],
        [f"other; a=b; c, {NAME}"],
        [f"\xff, {NAME}"],
        [f"@@@; x, {NAME}"],
        [f"{NAME}, {NAME}; server_max_window_bits=9"],
    ],
)
def test_the_first_acceptable_offer_is_taken(lines: list[str]) -> None:
    """Over all lines, whatever stands around it; empty elements are ignored."""
    assert answer_to(*lines) == NAME


@pytest.mark.parametrize(
    "lines", [[], [""], [","], ["other"], ["permessage-deflate2"], ["PerMessage-Deflate"], ["\xff"]]
)
def test_without_an_offer_there_is_no_compression(lines: list[str]) -> None:
    assert answer_to(*lines) is None


# -- the server: which answer --------------------------------------------------------------------

SERVER_BITS = ["", *(f"; server_max_window_bits={bits}" for bits in BITS)]
CLIENT_BITS = [
    "",
    "; client_max_window_bits",
    *(f"; client_max_window_bits={bits}" for bits in BITS),
]
ALONE = ["", "; server_no_context_takeover", "; client_no_context_takeover",
         "; client_no_context_takeover; server_no_context_takeover"]  # fmt: skip
OWN = [
    Deflate(
        server_max_window_bits=server,
        client_max_window_bits=client,
        server_no_context_takeover=server_alone,
        client_no_context_takeover=client_alone,
    )
    for server, client in [(15, 15), (9, 9), (12, 12), (15, 10), (10, 15)]
    for server_alone, client_alone in product([False, True], repeat=2)
]


def value_of(offer: str, name: str) -> int | None:
    """The value of a parameter in an offer; 15 if it stands there without one."""
    for parameter in offer.split("; "):
        key, _, value = parameter.partition("=")
        if key == name:
            return int(value or 15)
    return None


@pytest.mark.row("F6")
@pytest.mark.parametrize("deflate", OWN)
def test_the_answer_obeys_the_rfc_for_every_offer(deflate: Deflate) -> None:
    """Each rule of section 7.1 for every combination of offer and option, and the agreement says
    what the answer says."""
    for server, client, alone in product(SERVER_BITS, CLIENT_BITS, ALONE):
        offer = NAME + server + alone + client
        asked_server = value_of(offer, "server_max_window_bits")
        asked_client = value_of(offer, "client_max_window_bits")
        agreement = choose_offer_untrusted(deflate, [offer.encode()])
        if asked_server == 8:
            assert agreement is None, offer
            continue
        assert agreement is not None, offer
        answer = parameters_of(agreement.answer)
        # 7.1.1.1: asked for, it must be there; else it may be.
        wants = "server_no_context_takeover" in offer or deflate.server_no_context_takeover
        assert ("server_no_context_takeover" in answer) == wants
        assert agreement.server_no_context_takeover == wants
        # 7.1.1.2: may always be there.
        assert agreement.client_no_context_takeover == ("client_no_context_takeover" in answer)
        assert agreement.client_no_context_takeover or not deflate.client_no_context_takeover
        # 7.1.2.1: asked for, it must be there and not exceed what was asked.
        said = answer.get("server_max_window_bits")
        assert asked_server is None or said is not None
        bits = int(said or 15)
        assert 9 <= bits <= min(asked_server or 15, deflate.server_max_window_bits)
        assert agreement.server_max_window_bits == bits
        # 7.1.2.2: not offered, it must not be there; it must not exceed what was offered.
        said = answer.get("client_max_window_bits")
        assert asked_client is not None or "client_max_window_bits" not in answer
        bits = int(said or 15)
        assert 8 <= bits <= (asked_client or 15)
        assert agreement.client_max_window_bits == bits
        if asked_client is not None:
            assert bits <= deflate.client_max_window_bits


def test_the_defaults_answer_a_browser() -> None:
    """What browsers offer, and what they get."""
    browser = f"{NAME}; client_max_window_bits"
    answer = f"{NAME}; server_max_window_bits=12; client_max_window_bits=12"
    assert answer_to(browser, deflate=Deflate()) == answer


# -- the client ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deflate", "offer"),
    [
        (WIDE, f"{NAME}; client_max_window_bits"),
        (Deflate(), f"{NAME}; server_max_window_bits=12; client_max_window_bits=12"),
        (
            Deflate(
                server_no_context_takeover=True,
                client_no_context_takeover=True,
                server_max_window_bits=15,
                client_max_window_bits=9,
            ),
            f"{NAME}; server_no_context_takeover; client_no_context_takeover; {NINE}",
        ),
    ],
)
def test_the_offer_says_what_the_option_says(deflate: Deflate, offer: str) -> None:
    assert make_offer(deflate) == offer


@pytest.mark.parametrize("server", OWN)
def test_both_sides_agree_on_one_thing(server: Deflate) -> None:
    """For every pair of options: the client takes what the server answers, and both mean the
    same by it."""
    for client in OWN:
        chosen = choose_offer_untrusted(server, [make_offer(client).encode()])
        assert chosen is not None
        found = check_answer_untrusted(client, [chosen.answer.encode()])
        assert isinstance(found, Agreement), (found, chosen.answer)
        assert found.server_no_context_takeover == chosen.server_no_context_takeover
        assert found.server_max_window_bits == chosen.server_max_window_bits
        # What the client does may be less than what the server allows, never more.
        assert found.client_max_window_bits <= chosen.client_max_window_bits
        assert found.client_no_context_takeover >= chosen.client_no_context_takeover


NARROW = Deflate(
    server_max_window_bits=10, client_max_window_bits=11, server_no_context_takeover=True
)
KEPT = f"{NAME}; server_no_context_takeover; server_max_window_bits=10"


@pytest.mark.parametrize(
    "answer",
    [
        KEPT,
        f"{KEPT}; client_max_window_bits=11",
        f"{KEPT}; client_max_window_bits=9",
        f"{KEPT}; client_no_context_takeover",
        f"{NAME}; server_no_context_takeover; server_max_window_bits=8",
        KEPT.replace("=10", '="10"'),
    ],
)
def test_a_good_answer_is_taken(answer: str) -> None:
    """8 bits from a server are fine: a larger window inflates them."""
    found = check_answer_untrusted(NARROW, [answer.encode()])
    assert isinstance(found, Agreement)
    assert found.server_max_window_bits <= 10
    assert found.client_max_window_bits == (9 if "=9" in answer else 11)
    assert found.client_no_context_takeover == ("client_no" in answer)


def test_no_answer_is_no_compression() -> None:
    for lines in ([], [b""], [b" , "]):
        assert check_answer_untrusted(NARROW, lines) is None
        assert check_answer_untrusted(None, lines) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (NAME, "server_no_context_takeover"),
        (f"{NAME}; server_no_context_takeover", "window"),
        (f"{NAME}; server_no_context_takeover; server_max_window_bits=11", "window"),
        (f"{KEPT}; client_max_window_bits=12", "client_max_window_bits"),
        (f"{KEPT}; client_max_window_bits", "malformed"),
        (f"{KEPT}; client_max_window_bits=7", "malformed"),
        (f"{KEPT}; server_max_window_bits=10", "malformed"),
        (f"{KEPT}; unknown", "malformed"),
        (f"{KEPT}; \xff", "malformed"),
        (f"{KEPT}; x=\"", "malformed"),
        (f"{KEPT}, {KEPT}", "more than one"),
        (f"{KEPT}, \xff", "more than one"),
        ("x-other", "x-other"),
        ("\xff", "malformed"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_told_apart(answer: str, why: str) -> None:
    """Nothing raises; the reason is one line for the error that the client raises of it."""
    found = check_answer_untrusted(NARROW, [answer.encode("latin-1")])
    assert isinstance(found, BadAnswer)
    assert why in found.why
    assert found.why.isprintable()


def test_an_answer_without_an_offer_is_wrong() -> None:
    for answer in (NAME.encode(), b"x-other", b"\xff", b"a" * 5000):
        found = check_answer_untrusted(None, [answer])
        assert isinstance(found, BadAnswer)
        assert len(found.why) < 120


# -- hostile bytes -------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [NAME, "server_max_window_bits", "client_max_window_bits", "server_no_context_takeover",
     ";", ",", "=", '"', "\\", " ", "\t", "8", "10", "15", "x", "\0", "\r\n", "\xff"]
)  # fmt: skip
HOSTILE = st.one_of(
    st.binary(max_size=60),
    st.lists(PIECES, max_size=12).map(lambda p: "".join(p).encode("latin-1")),
)


@given(lines=st.lists(HOSTILE, max_size=3))
def test_hostile_bytes_never_raise(lines: list[bytes]) -> None:
    """Whatever comes, the server answers or does not, and the client knows what it was told."""
    agreement = choose_offer_untrusted(WIDE, lines)
    assert agreement is None or agreement.answer.startswith(NAME)
    found = check_answer_untrusted(WIDE, lines)
    assert found is None or isinstance(found, Agreement | BadAnswer)
    if agreement is not None:
        assert found is not None
        parameters_of(agreement.answer)


@pytest.mark.parametrize(
    "line",
    [
        b'"' * 1_000_001,
        b'a;x="' * 200_000,
        b'a;x="\\' * 200_000,
        b"\\" * 1_000_000,
        b'"' + b"\\" * 1_000_001,
        b'a;x="' + b"\\a" * 500_000,
        b"a;" * 500_000,
        b"a; " + b"x=y;" * 250_000,
        b" " * 1_000_000 + b"a",
        b"a" + b" " * 1_000_000 + b"b",
        b"a;" + (b" " * 1000 + b";") * 1000,
        b"a" * 1_000_000 + b"\xff",
        b"a;b=" + b"c" * 1_000_000 + b"\xff",
        b"," * 1_000_000,
    ],
    ids=range(14),
)
def test_parsing_is_linear(line: bytes) -> None:
    """A mebibyte of the worst: anything quadratic would not end before the suite's own timeout."""
    for _, parameters in extensions_untrusted([line]):
        assert parameters is None or len(parameters) <= 250_000
