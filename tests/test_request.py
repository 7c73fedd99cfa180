"""`UpgradeRequest`, `Response`, `Accept`: values that hostile bytes cannot upset.

Lives here: the three values and the escaping for logs. Must never live here: a decision (see
test_checks).
"""

from __future__ import annotations

import re

import pytest

from trio_ws import Accept, Response, UpgradeRequest
from trio_ws._headers import printable_untrusted, tokens_untrusted
from trio_ws._response import Refusal, refined, refuse

PROPERTIES = [name for name, value in vars(UpgradeRequest).items() if isinstance(value, property)]


def request(target: bytes = b"/", *headers: tuple[bytes, bytes]) -> UpgradeRequest:
    return UpgradeRequest(method=b"GET", raw_target=target, headers=headers)


@pytest.mark.row("A1", "A2", "A3", "A19")
@pytest.mark.parametrize(
    "hostile",
    [b"", b"\xff", b"\xff,\xfe", b"\x1b[2J", b'"', b'"unclosed', b"=", b";=;", b",", b"%", b"%ff",
     b"xn--\xff", b"xn--99999999999", b"[::", b"[]:1", b"a:b:c", b"://", b"http://", b"?" * 500,
     "bücher".encode(), b"a" * 10_000],
)  # fmt: skip
def test_no_hostile_byte_raises_from_a_property(hostile: bytes) -> None:
    """Every property of a request made of nothing but hostile bytes returns; so does repr."""
    names = (
        *(b"host", b"origin", b"cookie", b"connection", b"upgrade", b"x-forwarded-for", hostile),
        *(b"sec-websocket-protocol", b"sec-websocket-key", b"sec-websocket-extensions"),
    )
    headers = tuple((name, hostile) for name in names for _ in range(2))
    one = UpgradeRequest(
        method=hostile, raw_target=hostile, http_version=hostile, headers=headers[::2]
    )
    two = UpgradeRequest(method=hostile, raw_target=hostile, headers=headers)
    for each in (one, two):
        assert [getattr(each, name) for name in PROPERTIES]
        assert repr(each).isascii()
        assert repr(each).isprintable()
        each.header(hostile)
        each.header("ü€")


def test_names_are_found_in_any_case() -> None:
    """Header names are case-insensitive, on both sides."""
    given = request(b"/", (b"X-Thing", b"1"))
    assert given.headers == ((b"x-thing", b"1"),)
    assert given.header("x-THING") == given.header(b"X-Thing") == b"1"


def test_a_repeated_header_has_no_single_value() -> None:
    """`header` never picks one of several; `header_all` has them in order."""
    given = request(b"/", (b"a", b"1"), (b"A", b"2"))
    assert given.header("a") is None
    assert given.header_all("a") == (b"1", b"2")
    assert request().header_all("a") == ()


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/chat/a%20b?x=%2F&y=1", "/chat/a b", "x=%2F&y=1"),
        (b"/a%2Fb/c", "/a%2Fb/c", ""),
        (b"/a%3Fb?c?d", "/a?b", "c?d"),
        (b"/%C3%BC", "/ü", ""),
        (b"/%ff", "/�", ""),
        (b"//a//", "//a//", ""),
        (b"http://h.example/x/y?q", "/x/y", "q"),
        (b"WSS://h.example", "/", ""),
        (b"*", "", ""),
        (b"h.example:443", "", ""),
    ],
)
def test_the_path_is_decoded_segment_by_segment(target: bytes, path: str, query: str) -> None:
    """An encoded slash never becomes a separator; the query stays encoded."""
    given = request(target)
    assert (given.path, given.query) == (path, query)
    assert given.target == target.decode()


def test_an_origin_that_is_there_is_never_none() -> None:
    """A check that admits `origin is None` must not be fooled by malformed or repeated ones."""
    assert request().origin is None
    assert request(b"/", (b"origin", b"")).origin == ""
    assert request(b"/", (b"origin", b"\xff")).origin == "\\xff"
    assert request(b"/", (b"origin", b"a"), (b"origin", b"b")).origin == "a, b"


def test_cookies_of_all_headers_are_read_and_the_first_of_equal_names_wins() -> None:
    """RFC 6265: the most specific path comes first."""
    given = request(b"/", (b"cookie", b"a=1; b=x=y;; c"), (b"cookie", b' a=2; d="q"; =no'))
    assert given.cookies == {"a": "1", "b": "x=y", "d": '"q"'}


def test_host_is_canonical() -> None:
    """Lower case, IPv6 compressed; malformed reads as empty."""
    assert request(b"/", (b"host", b"A.Example:8080")).host == "a.example:8080"
    assert request(b"/", (b"host", b"[0:0::1]")).host == "[::1]"
    assert request(b"/", (b"host", b"a@b")).host == ""


def test_repr_shows_no_query_and_no_credential() -> None:
    """What a log may hold of a request."""
    shown = repr(
        UpgradeRequest(
            method=b"GET",
            raw_target=b"/chat?token=SECRET",
            headers=(
                (b"host", b"a.example"),
                (b"authorization", b"SECRET"),
                (b"cookie", b"sid=SECRET"),
                (b"sec-websocket-protocol", b"SECRET"),
            ),
            peer_address=("192.0.2.1", 5),
        )
    )
    assert "SECRET" not in shown
    assert "/chat" in shown
    assert "192.0.2.1" in shown


@pytest.mark.row("A19")
@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        (b"plain", 10, "plain"),
        (b"\x1b[31m\r\n\xff\x00\x7f", 99, r"\x1b[31m\r\n\xff\x00\x7f"),
        ("ü€\U0001f600\ud800\u202e", 99, r"\xfc\u20ac\U0001f600\ud800\u202e"),
        ("back\\slash", 99, r"back\\slash"),
        ("a" * 100, 10, "aaaaaaa..."),
        ("\n" * 100, 10, r"\n\n\n..."),
        ("a" * 10, 10, "a" * 10),
        ("abcdef", 2, ".."),
    ],
)
def test_text_of_a_peer_is_escaped_and_capped(text: bytes | str, limit: int, shown: str) -> None:
    """One line of printable ASCII, never longer than asked for, never half an escape."""
    assert printable_untrusted(text, limit) == shown
    assert len(shown) <= limit


@pytest.mark.row("A2", "A3", "A11")
@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ([], ()),
        ([b""], ()),
        ([b"a,,b", b" , c\t"], ("a", "b", "c")),
        ([b"a b"], None),
        ([b"a", b"\xff"], None),
        ([b'"a"'], None),
        ([b"a/1"], None),
        ([b"a\x00"], None),
    ],
)
def test_token_lists(values: list[bytes], tokens: tuple[str, ...] | None) -> None:
    """Over all headers, empties ignored; anything but a token makes it malformed."""
    assert tokens_untrusted(values) == tokens


FORBIDDEN = [
    ("Upgrade", "x"),
    ("connection", "close"),
    ("CONTENT-LENGTH", "5"),
    ("Transfer-Encoding", "chunked"),
    ("Sec-WebSocket-Accept", "x"),
    (b"sec-websocket-anything", b"x"),
    ("X", "a\r\nSet-Cookie: a=b"),
    ("X", "a\nb"),
    ("X", b"a\rb"),
    ("X", "a\x00b"),
    ("X\r\nY", "a"),
    ("X Y", "a"),
    ("", "a"),
    ("X:", "a"),
    ("X", "€"),
    ("ü", "a"),
]


@pytest.mark.row("A21")
@pytest.mark.parametrize("header", FORBIDDEN)
def test_headers_that_could_break_the_wire_are_a_valueerror(
    header: tuple[str | bytes, str | bytes],
) -> None:
    """At the call, so that the traceback shows whose line it is."""
    with pytest.raises(ValueError, match="header|latin-1"):
        Response(403, [header])
    with pytest.raises(ValueError, match="header|latin-1"):
        Accept(headers=[header])


@pytest.mark.row("A21")
def test_good_headers_are_kept_in_order() -> None:
    """Names keep their spelling; str and bytes mix; Latin-1 passes."""
    headers = [("Set-Cookie", "a=1"), (b"set-cookie", b"b=2"), ("X-Empty", ""), ("X", " é\t")]
    expected = (
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"X-Empty", b""),
        (b"X", b"\xe9"),
    )
    assert Response(200, headers).headers == expected
    assert Accept(headers=headers).headers == expected
    assert Response(200, headers).header("x-empty") == b""
    assert Response(200, headers).header("set-cookie") is None


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 1000, -200])
def test_a_response_has_a_final_status(status: int) -> None:
    with pytest.raises(ValueError, match="200 to 599"):
        Response(status)


def test_a_response_refuses_other_types() -> None:
    with pytest.raises(TypeError, match="status"):
        Response("403")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="body"):
        Response(403, (), 5)  # type: ignore[arg-type]
    assert Response(200, (), "ü").body == "ü".encode()


@pytest.mark.row("B5")
@pytest.mark.parametrize("bad", ["a,b", "a b", "", "a\r\n", "ü", "a;b", '"a"'])
def test_a_subprotocol_is_a_token(bad: str) -> None:
    """An injected comma would make two of one."""
    with pytest.raises(ValueError, match="token"):
        Accept(subprotocol=bad)


def test_a_later_agreement_refines_an_earlier_one() -> None:
    """`authorize` overrules the policy's subprotocol only if it names one."""
    first = Accept("chat", [("A", "1")])
    assert refined(first, Accept(None, [("B", "2")], "user")) == Accept(
        "chat", [("A", "1"), ("B", "2")], "user"
    )
    assert refined(first, Accept("other")).subprotocol == "other"


def test_a_refusal_names_its_row_in_the_body() -> None:
    """A person with curl learns which row and what to do; a check's own body stays."""
    ours = refuse("key", 400, "Send a key.")
    assert (ours.row, ours.status) == ("key", 400)
    assert re.search(rb"400 Bad Request\n.*key\nSend a key\.", ours.body)
    assert Refusal(Response(401, (), b"who?"), "checks").body == b"who?"
    assert b"checks" in Refusal(Response(401), "checks").body
