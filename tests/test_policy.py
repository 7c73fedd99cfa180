"""`Policy`: its validation, origins seen from a request, trusted proxies, subprotocols.

Lives here: what the settings of a policy do. Must never live here: rows that no setting changes
(see test_checks).
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from ipaddress import ip_network

import pytest

from trio_ws import Accept, Policy, UpgradeRequest, allow_origins, same_origin, unsafe_any_origin
from trio_ws._policy import address_key, decide
from trio_ws._response import Refusal

BASE = (
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)
PROXY = ("10.0.0.1", 1234)


def request(
    *headers: tuple[str, str],
    host: str = "a.example",
    tls: bool = False,
    peer: tuple[str, int] | str | None = ("192.0.2.1", 1234),
) -> UpgradeRequest:
    extra = tuple((name.encode(), value.encode("latin-1")) for name, value in headers)
    return UpgradeRequest(
        method=b"GET",
        raw_target=b"/",
        headers=((b"host", host.encode()), *BASE, *extra),
        peer_address=peer,
        tls=tls,
    )


def status(policy: Policy, given: UpgradeRequest) -> int | None:
    verdict = policy.decide(given)
    return verdict.status if isinstance(verdict, Refusal) else None


@pytest.mark.row("B1")
@pytest.mark.parametrize(
    ("origin", "host", "tls", "expected"),
    [
        (None, "a.example", False, None),
        ("http://a.example", "a.example", False, None),
        ("https://a.example", "a.example", True, None),
        ("http://a.example:8080", "a.example:8080", False, None),
        ("http://a.example", "a.example:80", False, None),
        ("https://a.example:443", "a.example", True, None),
        ("http://[::1]:8000", "[::1]:8000", False, None),
        ("http://b.example", "a.example", False, 403),
        ("http://a.example:8080", "a.example", False, 403),
        ("http://a.example", "a.example:8080", False, 403),
        ("https://a.example", "a.example", False, 403),
        ("http://a.example", "a.example", True, 403),
        ("null", "a.example", False, 403),
        ("", "a.example", False, 403),
        ("http://a.example\xff", "a.example", False, 403),
    ],
)
def test_origins_against_the_request(
    origin: str | None, host: str, tls: bool, expected: int | None
) -> None:
    """Absent: no browser, admitted. Present: scheme, host and port are those of the request."""
    headers = () if origin is None else (("origin", origin),)
    assert status(Policy(), request(*headers, host=host, tls=tls)) == expected


@pytest.mark.row("B6")
@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(origins=same_origin),
        Policy(origins=allow_origins()),
        Policy(origins=allow_origins("https://b.example", "https://*.a.example", "null")),
        Policy(hosts=["a.example"]),
        Policy(checks=[lambda given: None]),
        Policy(subprotocols=["chat"]),
        Policy(trusted_proxies=["0.0.0.0/0", "::/0", "unix"]),
        Policy(
            origins=allow_origins("https://b.example"),
            hosts=["a.example"],
            checks=[lambda given: None],
            subprotocols=["chat"],
            trusted_proxies=["0.0.0.0/0"],
        ),
    ],
)
def test_every_policy_that_does_not_say_unsafe_refuses_a_foreign_origin(policy: Policy) -> None:
    """No other setting opens the door."""
    foreign = request(("origin", "https://evil.example"))
    assert status(policy, foreign) == 403
    assert status(replace(policy, origins=unsafe_any_origin), foreign) is None


@pytest.mark.row("B4")
@pytest.mark.parametrize("peer", [("192.0.2.1", 1), "", None, ("not an address", 1)])
def test_forwarded_headers_of_a_stranger_are_ignored(peer: tuple[str, int] | str | None) -> None:
    """Anybody can send them."""
    policy = Policy(trusted_proxies=["10.0.0.0/8"])
    forged = request(
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-for", "198.51.100.7"),
        peer=peer,
    )
    seen = decide(forged, policy).request
    assert (seen.scheme, seen.host) == ("http", "a.example")
    assert seen.client_address == (peer[0] if isinstance(peer, tuple) else None)
    page = replace(forged, headers=(*forged.headers, (b"origin", b"https://evil.example")))
    assert status(policy, page) == 403


@pytest.mark.row("B4")
@pytest.mark.parametrize(
    ("proxies", "peer"),
    [
        (["10.0.0.0/8"], PROXY),
        (["10.0.0.1"], PROXY),
        ([ip_network("10.0.0.0/8")], PROXY),
        (["10.0.0.0/8"], ("::ffff:10.0.0.1", 1)),
        (["fd00::/8"], ("fd00::1", 1)),
        (["unix"], ""),
        (["unix"], "/run/proxy.sock"),
    ],
)
def test_a_trusted_proxy_is_believed(proxies: list[str], peer: tuple[str, int] | str) -> None:
    """Its client's scheme and host are what origins are compared with, and so it is explained."""
    policy = Policy(trusted_proxies=proxies)
    given = request(
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "Front.example"),
        ("x-forwarded-for", "198.51.100.7"),
        ("origin", "https://front.example"),
        host="backend:8000",
        peer=peer,
    )
    decision = decide(given, policy)
    assert decision.verdict == Accept()
    assert (decision.request.scheme, decision.request.host) == ("https", "front.example")
    assert decision.request.client_address == "198.51.100.7"
    assert status(Policy(), given) == 403
    assert not [said for said in policy.explain(given) if said.outcome == "refused"]
    named = replace(policy, hosts=["front.example"])
    assert status(named, given) is None
    assert status(replace(policy, hosts=["backend"]), given) == 421


@pytest.mark.row("B4")
@pytest.mark.parametrize(
    ("headers", "scheme", "host"),
    [
        ((("x-forwarded-proto", "HTTPS"),), "https", "a.example"),
        ((("x-forwarded-proto", "wss"),), "https", "a.example"),
        ((("x-forwarded-proto", "ws"),), "http", "a.example"),
        ((("x-forwarded-proto", "http, https"),), "https", "a.example"),
        ((("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")), "http", "a.example"),
        ((("x-forwarded-proto", "gopher"),), "http", "a.example"),
        ((("x-forwarded-proto", "\xff"),), "http", "a.example"),
        ((("x-forwarded-host", "evil.example, b.example"),), "http", "b.example"),
        ((("x-forwarded-host", "a@b"),), "http", "a.example"),
        ((("x-forwarded-host", "\xff"),), "http", "a.example"),
        ((), "http", "a.example"),
    ],
)
def test_of_several_entries_the_right_most_counts(
    headers: tuple[tuple[str, str], ...], scheme: str, host: str
) -> None:
    """It is our own proxy's; malformed ones say nothing."""
    seen = decide(request(*headers, peer=PROXY), Policy(trusted_proxies=["10.0.0.0/8"])).request
    assert (seen.scheme, seen.host) == (scheme, host)


@pytest.mark.row("B4")
@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (["198.51.100.7"], "198.51.100.7"),
        (["1.2.3.4, 198.51.100.7"], "198.51.100.7"),
        (["1.2.3.4, 198.51.100.7, 10.0.0.2, 10.0.0.3"], "198.51.100.7"),
        (["1.2.3.4", "198.51.100.7", "10.0.0.2"], "198.51.100.7"),
        (["10.0.0.9, 198.51.100.7"], "198.51.100.7"),
        (["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        (["198.51.100.7:4711"], "198.51.100.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["::ffff:198.51.100.7"], "198.51.100.7"),
        (["1.2.3.4, unknown"], "10.0.0.1"),
        (["1.2.3.4, unknown, 10.0.0.2"], "10.0.0.2"),
        (["1.2.3.4, \xff"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        ([","], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_the_client_is_the_right_most_untrusted_hop(chain: list[str], client: str) -> None:
    """What stands left of it may be invented, also if it looks like a trusted proxy."""
    given = request(*(("x-forwarded-for", value) for value in chain), peer=PROXY)
    seen = decide(given, Policy(trusted_proxies=["10.0.0.0/8"])).request
    assert seen.client_address == client


@pytest.mark.row("B4")
@pytest.mark.parametrize(
    ("peer", "key"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:3::1", 1), "2001:db8:1:3::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("what", 1), None),
        ("", None),
        (None, None),
    ],
)
def test_clients_are_counted_by_address_ipv6_by_64(
    peer: tuple[str, int] | str | None, key: str | None
) -> None:
    assert address_key(request(peer=peer), Policy()) == key


@pytest.mark.row("B4")
def test_behind_a_proxy_its_clients_are_counted_not_the_proxy() -> None:
    """Resolved or not, the request gives the same key."""
    policy = Policy(trusted_proxies=["unix"])
    given = request(("x-forwarded-for", "2001:db8::1"), peer="")
    assert address_key(given, policy) == "2001:db8::/64"
    assert address_key(decide(given, policy).request, policy) == "2001:db8::/64"
    assert address_key(given, Policy()) is None


@pytest.mark.row("B5")
@pytest.mark.parametrize(
    ("ours", "offers", "chosen"),
    [
        ((), ("a",), None),
        (("a",), (), None),
        (("a",), ("b",), None),
        (("a", "b"), ("b, a",), "a"),
        (("b", "a"), ("a", "b"), "b"),
        (("a",), ("A",), None),
        (("a",), (",,a,",), "a"),
    ],
)
def test_the_subprotocol_is_the_first_of_ours_that_is_offered(
    ours: tuple[str, ...], offers: tuple[str, ...], chosen: str | None
) -> None:
    """None in common: accepted, without one (RFC 6455 section 4.2.2)."""
    given = request(*(("sec-websocket-protocol", offer) for offer in offers))
    assert Policy(subprotocols=ours).decide(given) == Accept(chosen)


@pytest.mark.parametrize(
    ("origin", "host", "smells"),
    [
        ("https://a.example", "a.example", True),
        ("https://a.example:8443", "a.example:8443", True),
        ("https://b.example", "a.example", False),
        ("http://a.example:8080", "a.example", False),
        ("https://a.example:8443", "a.example", False),
        ("null", "a.example", False),
    ],
)
def test_a_refusal_that_smells_of_a_proxy_says_so(origin: str, host: str, smells: bool) -> None:
    """Same host, https against http: TLS probably ends in front of us."""
    refusal = Policy().decide(request(("origin", origin), host=host))
    assert isinstance(refusal, Refusal)
    assert (refusal.hint is not None) == smells
    assert refusal.hint is None or "trusted_proxies" in refusal.hint
    assert b"trusted_proxies" not in refusal.body


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"origins": "same_origin"}, TypeError),
        ({"origins": allow_origins}, TypeError),
        ({"origins": None}, TypeError),
        ({"hosts": "a.example"}, TypeError),
        ({"hosts": [1]}, TypeError),
        ({"hosts": ["*"]}, ValueError),
        ({"hosts": ["*.example"]}, ValueError),
        ({"hosts": ["https://a.example"]}, ValueError),
        ({"hosts": ["a.example/"]}, ValueError),
        ({"hosts": ["bücher.example"]}, ValueError),
        ({"subprotocols": "chat"}, TypeError),
        ({"subprotocols": [1]}, TypeError),
        ({"subprotocols": ["a,b"]}, ValueError),
        ({"subprotocols": ["a", "a"]}, ValueError),
        ({"checks": [None]}, TypeError),
        ({"trusted_proxies": "10.0.0.0/8"}, TypeError),
        ({"trusted_proxies": ["10.0.0.1/8"]}, ValueError),
        ({"trusted_proxies": ["localhost"]}, ValueError),
        ({"unknown": 1}, TypeError),
    ],
)
def test_a_bad_policy_fails_at_construction(
    settings: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Policy(**settings)  # type: ignore[arg-type]


def test_an_async_check_is_a_typeerror() -> None:
    """It would never be awaited, and a coroutine is true."""

    async def check(given: UpgradeRequest) -> None: ...

    with pytest.raises(TypeError, match="authorize"):
        Policy(checks=[check])  # type: ignore[list-item]


def test_a_policy_is_a_frozen_value() -> None:
    """Lists given are copied; nothing changes under a running server."""
    hosts = ["a.example"]
    policy = Policy(hosts=hosts)
    hosts.append("b.example")
    assert policy == Policy(hosts=("a.example",))
    assert status(policy, request(host="b.example")) == 421
    with pytest.raises(FrozenInstanceError):
        policy.hosts = None  # type: ignore[misc]
    assert status(replace(policy, hosts=["b.example"]), request(host="b.example")) is None
