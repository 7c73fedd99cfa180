"""URLs of WebSockets: what is one, what it means, and what a refusal may say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws import InvalidURL
from trio_ws._url import parse_url


@pytest.mark.parametrize(
    ("text", "secure", "host", "port", "authority", "target"),
    [
        ("ws://example.com", False, "example.com", 80, "example.com", "/"),
        ("WSS://Example.COM/Chat", True, "example.com", 443, "example.com", "/Chat"),
        ("ws://example.com:80/", False, "example.com", 80, "example.com", "/"),
        ("ws://example.com:443/", False, "example.com", 443, "example.com:443", "/"),
        ("wss://example.com:443/", True, "example.com", 443, "example.com", "/"),
        ("ws://example.com:/", False, "example.com", 80, "example.com", "/"),
        ("ws://h?x=1&y", False, "h", 80, "h", "/?x=1&y"),
        ("ws://h/?", False, "h", 80, "h", "/?"),
        ("ws://h/a%2Fb;c=d?e=%zz", False, "h", 80, "h", "/a%2Fb;c=d?e=%zz"),
        ("ws://h/ü?ä=€", False, "h", 80, "h", "/%C3%BC?%C3%A4=%E2%82%AC"),
        ("ws://[::1]:8000/", False, "::1", 8000, "[::1]:8000", "/"),
        ("wss://[2001:DB8:0:0::1]/", True, "2001:db8::1", 443, "[2001:db8::1]", "/"),
        ("ws://127.0.0.1/", False, "127.0.0.1", 80, "127.0.0.1", "/"),
        ("ws://bücher.example/", False, "xn--bcher-kva.example", 80, "xn--bcher-kva.example", "/"),
        ("ws://example.com./", False, "example.com.", 80, "example.com.", "/"),
    ],
)
def test_a_url_means(
    text: str, secure: bool, host: str, port: int, authority: str, target: str
) -> None:
    url = parse_url(text)
    assert (url.secure, url.host, url.port) == (secure, host, port)
    assert (url.authority, url.target) == (authority, target)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "starts with"),
        ("example.com", "starts with"),
        ("http://example.com", "starts with"),
        ("//example.com", "starts with"),
        ("ws:example.com", "no host"),
        ("ws:///path", "no host"),
        ("ws://:80/", "no host"),
        ("ws://h/#", "no fragment"),
        ("ws://h/#part", "no fragment"),
        ("ws://user@h/", "Authorization"),
        ("ws://user:hunter2@h/", "Authorization"),
        ("ws://@h/", "Authorization"),
        (r"ws://good.example\@evil.example/", "Authorization"),
        ("ws://h:0/", "port 0"),
        ("ws://h:65536/", "port"),
        ("ws://h:-1/", "port"),
        ("ws://h:８０/", "port"),
        ("ws://h ost/", "blanks"),
        (" ws://h/", "blanks"),
        ("ws://h/a\r\nb", "blanks"),
        ("ws://h/\x00", "blanks"),
        ("ws://h/\ud800", "surrogates"),
        ("ws://[::1/", "malformed"),
        ("ws://[fe80::1%25eth0]/", "not a"),
        ("ws://[v1.x]/", "not a"),
        ("ws://[127.0.0.1]/", "not a"),
        ("ws://1.2.3/", "IPv4"),
        ("ws://1.2.3.256/", "IPv4"),
        ("ws://2130706433/", "IPv4"),
        ("ws://a..b/", "not a host"),
        ("ws://.a/", "not a host"),
        ("ws://" + "a" * 64 + ".example/", "not a host"),
        ("ws://" + "a." * 127 + "aa/", "not a host"),
        ("ws://xn--a/", "not a host"),
        ("ws://a%2eb/", "not a host"),
        ("ws://straße.example/", "IDNA"),
    ],
)
def test_no_url_of_a_websocket(text: str, why: str) -> None:
    with pytest.raises(InvalidURL, match=why):
        parse_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "ws://me:hunter2@h/",
        "ws://me:hunter2@h:99999/",
        "ws://me:hunter2@\u2100/",
        "ws:me:hunter2@h",
    ],
)
def test_a_refusal_does_not_repeat_a_password(text: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse_url(text)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert "hunter2" not in str(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def test_a_url_is_a_str() -> None:
    with pytest.raises(TypeError, match="bytes"):
        parse_url(b"ws://h/")  # type: ignore[arg-type]


def test_an_invalid_url_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="starts with"):
        parse_url("nonsense")


@given(st.text())
def test_whatever_the_text_there_is_one_way_to_fail(text: str) -> None:
    for attempt in (text, "ws://" + text, "ws://h/" + text):
        try:
            url = parse_url(attempt)
        except InvalidURL:
            continue
        assert parse_url(str(url)) == url, "what is printed means the same"
        assert url.target.isascii()
        assert url.target.isprintable()


@pytest.mark.parametrize(
    ("location", "there"),
    [
        ("/other?x", "wss://a.example:8443/other?x"),
        ("other", "wss://a.example:8443/dir/other"),
        ("?q", "wss://a.example:8443/dir/page?q"),
        ("//b.example/", "wss://b.example/"),
        ("https://b.example/x", "wss://b.example/x"),
        ("HTTPS://b.example/x", "wss://b.example/x"),
        ("http://b.example/x", "ws://b.example/x"),
        ("wss://b.example/x#fragment", "wss://b.example/x"),
        ("WS://b.example", "ws://b.example/"),
    ],
)
def test_a_location_is_read_from_where_it_was_sent(location: str, there: str) -> None:
    assert str(parse_url("wss://a.example:8443/dir/page").join(location)) == there


@pytest.mark.parametrize(
    "location",
    ["ftp://b/", "javascript:alert(1)", "//[::1", "//\u2100/", "//u:p@b/", "data:,x"],
)
def test_a_location_that_names_no_websocket(location: str) -> None:
    with pytest.raises(InvalidURL):
        parse_url("ws://a.example/").join(location)
