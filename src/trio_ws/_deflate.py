"""What compression costs and how it is agreed upon (RFC 7692 section 7.1).

Lives here: the option, both sides of its negotiation, the grammar of `Sec-WebSocket-Extensions`.
Must never live here: zlib at work (`_permessage`), other headers.

The theory. Four parameters describe two directions, two each: how far back a compressor may refer
(its window, 2**bits bytes), and whether it may refer to earlier messages (context takeover). A
client offers, several times if it likes; a server takes the first offer it can keep; what it
answers binds both. Functions that see a peer's bytes end in `_untrusted` and never raise: an offer
that is malformed is declined alone, an answer that is wrong is a `BadAnswer`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from ._headers import TOKEN, printable_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Deflate"]

NAME: Final = "permessage-deflate"

MIN_BITS: Final = 9
MAX_BITS: Final = 15
"""The windows zlib can compress with. The RFC also knows 8, where raw deflate in zlib fails."""

_RANGES = {
    "server_max_window_bits": (MIN_BITS, MAX_BITS),
    "client_max_window_bits": (MIN_BITS, MAX_BITS),
    "threshold": (0, None),
    "level": (1, 9),
    "mem_level": (1, 9),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Deflate:
    """Compression of messages, permessage-deflate (RFC 7692); give it as `compression`.

    It multiplies what a connection costs. Once a compressed message has gone each way, a connection
    holds about ``2**(bits + 2) + 2**(mem_level + 9)`` bytes to compress with, `bits` being its own
    side's window, and ``2**bits`` and 10 KiB to inflate with, `bits` being the peer's: about 50 KiB
    with these defaults, 260 KiB with zlib's own (15 bits, `mem_level` 8). A direction without
    context takeover holds nothing between messages, and compresses short messages badly.

    The names are the RFC's: `server_` is what the server compresses, `client_` what the client
    does, on whichever side this value is used. A peer may always ask for less than is said here.

    Do not compress secrets together with text that an attacker can choose: the length of the result
    tells them about each other (the CRIME and BREACH attacks). ``send(..., compress=False)`` keeps
    one message out.

    Raises:
        ValueError: a number is out of range.
        TypeError: a value is of the wrong kind.
    """

    server_no_context_takeover: bool = False
    """Whether the server compresses each message by itself. Off: JSON of 100 bytes shrinks to a
    quarter with the context of earlier messages, and not at all without it."""

    client_no_context_takeover: bool = False
    """The same for the client. A server that says so insists on it; a client only promises it."""

    server_max_window_bits: int = 12
    """The largest window of the server, 9 to 15 bits. 12, with `mem_level` 5, takes a sixth of the
    memory of 15 and costs a tenth more bytes on chat and JSON. As a client: servers that cannot
    limit their window decline then; 15 asks for nothing."""

    client_max_window_bits: int = 12
    """The largest window of the client, 9 to 15 bits. A server can only ask for it where the client
    offers to obey, as browsers do; a client that does not offer it may use 15."""

    threshold: int = 128
    """Messages below this many bytes are not compressed: the headers of the packet that carries one
    take 60, and saving less than that is not worth the time at both ends. A message that is sent
    in pieces is compressed whatever its size."""

    level: int = 3
    """How hard to search, 1 to 9. 3 takes half the CPU of zlib's usual 6 for an eighth more bytes;
    all connections of a process wait for each other's compressor."""

    mem_level: int = 5
    """Memory for the compressor's tables, 1 to 9; what suits 12 bits. See the class."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            kind = int if field.name in _RANGES else bool
            if type(value) is not kind:
                wanted = "an int" if kind is int else "a bool"
                raise TypeError(f"Deflate.{field.name} must be {wanted}, not {value!r}")
            if field.name in _RANGES:
                assert isinstance(value, int)
                least, most = _RANGES[field.name]
                if value < least or (most is not None and value > most):
                    bounds = f"{least} or more" if most is None else f"{least} to {most}"
                    raise ValueError(f"Deflate.{field.name} must be {bounds}, not {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """What both sides will do. Bits are 8 to 15.

    Attributes:
        answer: the server's answer as it stands in `Sec-WebSocket-Extensions`.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = MAX_BITS
    client_max_window_bits: int = MAX_BITS
    answer: str = NAME


@dataclass(frozen=True, kw_only=True, slots=True)
class BadAnswer:
    """The server answered what it must not: the client fails the connection (RFC 6455 section
    4.1, RFC 7692 section 7.1).

    Attributes:
        why: one line, safe for logs.
    """

    why: str


# -- the server's side ---------------------------------------------------------------------------


def choose_offer_untrusted(deflate: Deflate, lines: Iterable[bytes]) -> Agreement | None:
    """The first offer that this server can keep; None if there is none.

    Args:
        lines: the values of all `Sec-WebSocket-Extensions` fields of the request, in order.
    """
    for name, parameters in extensions_untrusted(lines):
        if name == NAME:
            asked = _read_untrusted(parameters, valueless_client_bits=True)
            if asked is not None and asked.server_bits != 8:
                return _agree(deflate, asked)
    return None


def _agree(deflate: Deflate, asked: _Parameters) -> Agreement:
    server_alone = deflate.server_no_context_takeover or asked.server_alone
    # The client's own is a hint (section 7.1.1.2): answered, it saves us its window between
    # messages.
    client_alone = deflate.client_no_context_takeover or asked.client_alone
    server_bits = min(deflate.server_max_window_bits, asked.server_bits or MAX_BITS)
    # Section 7.1.2.2: what the client did not offer must not be in the answer.
    client_bits = MAX_BITS
    if asked.client_bits is not None:
        # With 8 we answer 8: a bound for the client, no bound for what we can inflate.
        client_bits = min(deflate.client_max_window_bits, asked.client_bits)
    answer = [NAME]
    if server_alone:
        answer.append("server_no_context_takeover")
    if client_alone:
        answer.append("client_no_context_takeover")
    if asked.server_bits is not None or server_bits < MAX_BITS:
        answer.append(f"server_max_window_bits={server_bits}")
    if client_bits < MAX_BITS:
        answer.append(f"client_max_window_bits={client_bits}")
    return Agreement(
        server_no_context_takeover=server_alone,
        client_no_context_takeover=client_alone,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
        answer="; ".join(answer),
    )


# -- the client's side ---------------------------------------------------------------------------


def make_offer(deflate: Deflate) -> str:
    """The client's one offer, for `Sec-WebSocket-Extensions`."""
    offer = [NAME]
    if deflate.server_no_context_takeover:
        offer.append("server_no_context_takeover")
    if deflate.client_no_context_takeover:
        offer.append("client_no_context_takeover")
    if deflate.server_max_window_bits < MAX_BITS:
        offer.append(f"server_max_window_bits={deflate.server_max_window_bits}")
    if deflate.client_max_window_bits < MAX_BITS:
        offer.append(f"client_max_window_bits={deflate.client_max_window_bits}")
    else:
        offer.append("client_max_window_bits")  # the server may choose
    return "; ".join(offer)


def check_answer_untrusted(
    deflate: Deflate | None, lines: Iterable[bytes]
) -> Agreement | BadAnswer | None:
    """What the server agreed to; None if it wants no compression.

    Args:
        deflate: what `make_offer` was given; None if nothing was offered.
        lines: the values of all `Sec-WebSocket-Extensions` fields of the 101, in order.
    """
    answers = list(extensions_untrusted(lines))
    if not answers:
        return None
    (name, parameters), *more = answers
    if name is None:
        return BadAnswer(why="its Sec-WebSocket-Extensions is malformed")
    if name != NAME or deflate is None:
        return BadAnswer(why=f"it chose an extension not offered: {printable_untrusted(name, 40)}")
    if more:
        return BadAnswer(why="it chose more than one extension")
    said = _read_untrusted(parameters, valueless_client_bits=False)
    if said is None:
        return BadAnswer(why=f"its parameters for {NAME} are malformed or unknown")
    if deflate.server_no_context_takeover and not said.server_alone:
        return BadAnswer(why="it ignores server_no_context_takeover")
    limit = deflate.server_max_window_bits
    server_bits = said.server_bits or MAX_BITS
    if server_bits > limit:
        return BadAnswer(why=f"its window is larger than server_max_window_bits={limit}")
    client_bits = said.client_bits or MAX_BITS
    if said.client_bits is not None and client_bits > deflate.client_max_window_bits:
        return BadAnswer(why="its client_max_window_bits exceeds what was offered")
    return Agreement(
        server_no_context_takeover=said.server_alone,
        client_no_context_takeover=said.client_alone or deflate.client_no_context_takeover,
        server_max_window_bits=server_bits,
        client_max_window_bits=min(client_bits, deflate.client_max_window_bits),
    )


# -- parameters ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parameters:
    """One offer or answer, well formed. None: the parameter is absent."""

    server_alone: bool
    client_alone: bool
    server_bits: int | None
    client_bits: int | None


_BITS = {str(bits): bits for bits in range(8, MAX_BITS + 1)}
_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_WINDOWS = ("server_max_window_bits", "client_max_window_bits")


def _read_untrusted(
    parameters: Iterable[tuple[str, str | None]] | None, *, valueless_client_bits: bool
) -> _Parameters | None:
    """The parameters of section 7.1, each at most once and with a value that it can have; or None.

    Args:
        valueless_client_bits: whether `client_max_window_bits` may stand alone, as in offers; it
            then means any.
    """
    if parameters is None:
        return None
    seen: dict[str, int] = {}
    for name, value in parameters:
        if name in seen:
            return None
        if name in _FLAGS and value is None:
            seen[name] = 1
        elif name in _WINDOWS and value in _BITS:
            seen[name] = _BITS[value]
        elif name == "client_max_window_bits" and value is None and valueless_client_bits:
            seen[name] = MAX_BITS
        else:
            return None
    return _Parameters(
        server_alone="server_no_context_takeover" in seen,
        client_alone="client_no_context_takeover" in seen,
        server_bits=seen.get("server_max_window_bits"),
        client_bits=seen.get("client_max_window_bits"),
    )


# -- grammar -------------------------------------------------------------------------------------

# Possessive, and each alternative begins with a byte that no other one takes: linear.
_QUOTED = rb'"(?:[^"\\]|\\.)*+'
_element = re.compile(rb'(?:[^",]|' + _QUOTED + rb'(?:"|\\?\Z))++', re.DOTALL)
_name = re.compile(rb"[ \t]*+(" + TOKEN + rb")[ \t]*+")
_value = rb"=[ \t]*+(?:(" + TOKEN + rb")|(" + _QUOTED + rb'"))[ \t]*+'
_parameter = re.compile(rb";[ \t]*+(" + TOKEN + rb")[ \t]*+(?:" + _value + rb")?", re.DOTALL)
_token = re.compile(TOKEN)
_escape = re.compile(rb"\\(.)", re.DOTALL)


def extensions_untrusted(
    lines: Iterable[bytes],
) -> Iterator[tuple[str | None, list[tuple[str, str | None]] | None]]:
    """The elements of `Sec-WebSocket-Extensions` (RFC 6455 section 9.1), in order, over all fields.

    Each is a name and its parameters; a value that was a quoted string is given without quotes and
    must still be a token. What is malformed from its parameters on has None for them, what is
    malformed from the start has None for its name too. Empty elements are ignored. Linear.
    """
    for line in lines:
        for found in _element.finditer(line):
            element = found[0]
            if not element.strip(b" \t"):
                continue
            head = _name.match(element)
            if head is None:
                yield None, None
            else:
                yield head[1].decode("ascii"), _parameters_untrusted(element, head.end())


def _parameters_untrusted(element: bytes, at: int) -> list[tuple[str, str | None]] | None:
    parameters: list[tuple[str, str | None]] = []
    while at < len(element):
        found = _parameter.match(element, at)
        if found is None:
            return None
        name, value, quoted = found.groups()
        if quoted is not None:
            value = _escape.sub(rb"\1", quoted[1:-1])
            if _token.fullmatch(value) is None:
                return None
        parameters.append((name.decode("ascii"), None if value is None else value.decode("ascii")))
        at = found.end()
    return parameters
