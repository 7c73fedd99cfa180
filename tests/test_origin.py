"""Origins and hosts: exact values, patterns of whole labels.

Lives here: parsing and matching. Must never live here: a request (see test_policy for the rows).
"""

from __future__ import annotations

import pytest

from trio_ws import allow_origins, same_origin, unsafe_any_origin
from trio_ws._origin import (
    Authority,
    HostPattern,
    Origin,
    OriginRule,
    authority_untrusted,
    origin_untrusted,
)

OWN = Origin("https", Authority("good.example", 443))


@pytest.mark.row("A1", "A9")
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"a.example", "a.example"),
        (b"A.EXAMPLE:80", "a.example:80"),
        (b"a.example:", "a.example"),
        (b"a.example.", "a.example."),
        (b"my_service-1", "my_service-1"),
        (b"127.0.0.1:65535", "127.0.0.1:65535"),
        (b"[::1]:8080", "[::1]:8080"),
        (b"[2001:DB8::0:1]", "[2001:db8::1]"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"", None),
        (b"\xff", None),
        (b"a@b", None),
        (b"a@b/c", None),
        (b"a/c", None),
        (b"a b", None),
        (b"a,b", None),
        (b"a..b", None),
        (b".a", None),
        (b".", None),
        (b":80", None),
        (b"a:b", None),
        (b"a:0", None),
        (b"a:080", None),
        (b"a:65536", None),
        (b"a:1:2", None),
        (b"a\n", None),
        (b"::1", None),
        (b"[::1", None),
        (b"[::1]x", None),
        (b"[fe80::1%25eth0]", None),
        (b"[1.2.3.4]", None),
        (b"xn--.example", None),
        (b"xn--a.example", None),
        (b"xn--99999999999.example", None),
        ("bücher.example".encode(), None),
        (b"a" * 64, None),
        (b"a." * 200, None),
    ],
)
def test_host_and_port(value: bytes, shown: str | None) -> None:
    """`host[:port]` and nothing else; punycode must decode."""
    authority = authority_untrusted(value)
    assert (None if authority is None else str(authority)) == shown


CASES = [
    # origin, admitted by same_origin of https://good.example
    (b"https://good.example", True),
    (b"https://other.example", False),
    (b"https://good.example:8443", False),
    (b"http://good.example", False),
    (b"null", False),
    (b"", False),
    (b"https://good.example.evil.example", False),
    (b"https://evilgood.example", False),
    (b"https://good.example.", False),
    (b"https://good.example:443", True),
    (b"HTTPS://GOOD.example", True),
    (b"https://user@good.example", False),
    (b"https://good.example@evil.example", False),
    (b"https://good.example/", False),
    (b"https://good.example/path", False),
    (b"https://good.example?x", False),
    (b"https://good.example#x", False),
    (b"https://good.example:", False),
    (b"https://good.example:0443", False),
    (b"https://good.example,https://evil.example", False),
    (b"https://good.example, https://good.example", False),
    (b"https://good.example https://evil.example", False),
    (b"https://good.example\xff", False),
    (b"https://good.example\x00", False),
    (b"https://good.example\n", False),
    (b" https://good.example", False),
    (b"https:good.example", False),
    (b"https:///good.example", False),
    (b"//good.example", False),
    (b"good.example", False),
    (b"wss://good.example", False),
    (b"https://good%2Eexample", False),
    (b"https://*.example", False),
    (b"*", False),
]


@pytest.mark.row("B1", "B2")
@pytest.mark.parametrize(("origin", "admitted"), CASES)
def test_same_origin_admits_exactly_itself(origin: bytes, admitted: bool) -> None:
    """Scheme, host and port, parsed; case and the default port do not matter, all else does."""
    assert same_origin.permits(origin, OWN) is admitted
    # No pattern for somebody else changes that.
    assert allow_origins("https://third.example").permits(origin, OWN) is admitted


@pytest.mark.row("B2")
def test_an_a_label_matches_and_a_u_label_is_malformed() -> None:
    """Browsers send A-labels; UTF-8 in Origin is nobody we know."""
    own = Origin("https", Authority("xn--bcher-kva.example", 443))
    assert same_origin.permits(b"https://xn--bcher-kva.example", own)
    assert not same_origin.permits("https://bücher.example".encode(), own)
    assert not same_origin.permits("https://bücher.example".encode("latin-1"), own)


@pytest.mark.row("B1")
def test_without_a_host_nothing_is_same_origin() -> None:
    assert not same_origin.permits(b"https://good.example", None)


@pytest.mark.row("B1", "B2")
@pytest.mark.parametrize(
    ("pattern", "origin", "admitted"),
    [
        ("https://a.example", b"https://a.example", True),
        ("https://a.example", b"https://a.example:443", True),
        ("https://a.example:443", b"https://a.example", True),
        ("HTTPS://A.example", b"https://a.EXAMPLE", True),
        ("https://a.example", b"http://a.example", False),
        ("https://a.example", b"https://b.a.example", False),
        ("https://a.example:8443", b"https://a.example:8443", True),
        ("https://a.example:8443", b"https://a.example", False),
        ("http://localhost:5173", b"http://localhost:5173", True),
        ("http://[::1]:80", b"http://[0::1]", True),
        ("chrome-extension://abcdef", b"chrome-extension://abcdef", True),
        ("https://*.a.example", b"https://b.a.example", True),
        ("https://*.a.example", b"https://c.b.a.example", True),
        ("https://*.a.example", b"https://a.example", False),
        ("https://*.a.example", b"https://ba.example", False),
        ("https://*.a.example", b"https://.a.example", False),
        ("https://*.a.example", b"https://b.a.example.evil.example", False),
        ("https://*.a.example", b"https://b.a.example:8443", False),
        ("https://*.a.example:8443", b"https://b.a.example:8443", True),
        ("https://*.a.example", b"https://x@b.a.example", False),
        ("https://*.a.example", b"https://*.a.example", False),
        ("http://*.localhost:3000", b"http://app.localhost:3000", True),
        ("null", b"null", True),
        ("null", b"NULL", False),
        ("https://a.example", b"null", False),
        ("https://xn--bcher-kva.example", b"https://xn--bcher-kva.example", True),
    ],
)
def test_patterns_match_whole_labels(pattern: str, origin: bytes, admitted: bool) -> None:
    """A star stands for one or more whole labels, never for a part of one, never for none."""
    assert allow_origins(pattern).permits(origin, OWN) is admitted


@pytest.mark.parametrize(
    "pattern",
    ["*", "", "a.example", "https://", "https://*", "https://*.com", "https://*.com.",
     "https://a.*.example", "https://*a.example", "https://a.example/", "https://a.example/x",
     "https://user@a.example", "https://a.example:x", "https://a.example:", "https://a.example:*",
     "https://bücher.example", "://a.example", "https://*.10.0.0.1", "https://*.[::1]",
     "Null", "https://a.example, https://b.example"],
)  # fmt: skip
def test_a_bad_pattern_is_a_valueerror_at_construction(pattern: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        allow_origins(pattern)


def test_a_pattern_is_a_str() -> None:
    with pytest.raises(TypeError, match="str"):
        allow_origins(["https://a.example"])  # type: ignore[arg-type]


def test_several_patterns_are_alternatives() -> None:
    rule = allow_origins("https://a.example", "null", "https://*.b.example")
    admitted = (b"https://a.example", b"null", b"https://x.b.example", b"https://good.example")
    assert all(rule.permits(origin, OWN) for origin in admitted)
    assert not rule.permits(b"https://c.example", OWN)


@pytest.mark.row("B6")
@pytest.mark.parametrize("origin", [origin for origin, _ in CASES])
def test_only_the_unsafe_rule_admits_everything(origin: bytes) -> None:
    assert unsafe_any_origin.permits(origin, None)


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        (same_origin, "same_origin"),
        (unsafe_any_origin, "unsafe_any_origin"),
        (allow_origins("https://a.example", "null"), "allow_origins('https://a.example', 'null')"),
    ],
)
def test_a_rule_shows_how_it_was_written(rule: OriginRule, shown: str) -> None:
    assert repr(rule) == shown


def test_an_origin_prints_without_its_default_port() -> None:
    assert str(origin_untrusted(b"HTTPS://a.example:443")) == "https://a.example"
    assert str(origin_untrusted(b"http://a.example:443")) == "http://a.example:443"


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("a.example", "a.example:1234", True),
        ("a.example", "b.example", False),
        ("a.example:80", "a.example:80", True),
        ("a.example:80", "a.example:81", False),
        ("*.a.example", "b.a.example:81", True),
        ("*.a.example", "a.example", False),
        ("[::1]", "[::1]:80", True),
    ],
)
def test_host_patterns(pattern: str, host: str, matches: bool) -> None:
    """Without a port any port; the star as in origins."""
    authority = authority_untrusted(host.encode())
    assert authority is not None
    parsed = HostPattern.parse(pattern, "host")
    assert parsed.matches(authority) is matches
    assert str(parsed) == pattern
