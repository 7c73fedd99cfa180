"""The table of the handshake, row by row, as data.

Lives here: which row refuses what, in which order, with which status. Must never live here: bytes
on a wire (see test_handshake), proxies and origins (see test_policy).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from trio_ws import Accept, Policy, Response, UpgradeRequest, allow_origins
from trio_ws import _checks as checks
from trio_ws._policy import Decision, decide
from trio_ws._response import Refusal
from trio_ws._routes import Routes
from trio_ws._rules import PLAIN, Capacity

DOCS = Path(__file__).parent.parent / "docs"

GOOD = {
    "Host": "a.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def request(
    method: str = "GET",
    target: str = "/",
    version: str = "1.1",
    *,
    without: tuple[str, ...] = (),
    extra: tuple[tuple[str, str], ...] = (),
    **replaced: str,
) -> UpgradeRequest:
    """A good request with something changed; `connection="x"` replaces that header."""
    changed = {name.replace("_", "-"): value for name, value in replaced.items()}
    pairs = [
        (name, changed.get(name.lower(), value))
        for name, value in GOOD.items()
        if name.lower() not in without
    ]
    return UpgradeRequest(
        method=method.encode(),
        raw_target=target.encode("latin-1"),
        http_version=version.encode(),
        headers=tuple((n.encode(), v.encode("latin-1")) for n, v in (*pairs, *extra)),
    )


async def handle(ws: object) -> None:
    """A handler that is never called here."""


PAGE = ("upgrade", "connection", "sec-websocket-version", "sec-websocket-key")
"""Headers that an ordinary page request does not have."""

row = pytest.mark.row

REFUSED = [
    pytest.param(request(version="1.0"), "protocol", 505, marks=row("A7")),
    pytest.param(request(version="1.9"), "protocol", 505, marks=row("A7")),
    pytest.param(request("PRI", "*", "2.0", without=tuple(GOOD)), "protocol", 505, marks=row("A7")),
    pytest.param(request(host="\xff"), "host", 400, marks=row("A1")),
    pytest.param(request(host="xn--99999999999"), "host", 400, marks=row("A1")),
    pytest.param(request(host=""), "host", 400, marks=row("A9")),
    pytest.param(request(host="a@b/c"), "host", 400, marks=row("A9")),
    pytest.param(request(without=("host",)), "host", 400, marks=row("A9")),
    pytest.param(request(extra=(("Host", "a.example"),)), "host", 400, marks=row("A9")),
    pytest.param(request(target="*"), "target", 400),
    pytest.param(request(target="/x#y"), "target", 400),
    pytest.param(request(target="a.example:80"), "target", 400),
    pytest.param(request(target="http://b.example/"), "target", 400),
    pytest.param(request(target="http://a.example:81/"), "target", 400),
    pytest.param(request(target="http://u@a.example/"), "target", 400),
    pytest.param(request(target="ftp://a.example/"), "target", 400),
    pytest.param(request("CONNECT", "no authority"), "target", 400),
    pytest.param(request(extra=(("Content-Length", "5"),)), "body", 400, marks=row("A12")),
    pytest.param(request(extra=(("Content-Length", ""),)), "body", 400, marks=row("A12")),
    pytest.param(request(extra=(("Content-Length", "\xff"),)), "body", 400, marks=row("A12")),
    pytest.param(request(extra=(("Transfer-Encoding", "chunked"),)), "body", 400, marks=row("A12")),
    pytest.param(
        request(extra=(("Content-Length", "0"), ("Transfer-Encoding", "chunked"))),
        "body",
        400,
        marks=row("A12"),
    ),
    pytest.param(request(extra=(("Expect", "100-continue"),)), "body", 400, marks=row("A12")),
    pytest.param(request(without=PAGE), "plain", 426, marks=row("A8")),
    pytest.param(request("HEAD", without=PAGE), "plain", 405, marks=row("A8")),
    pytest.param(request("POST", without=PAGE), "plain", 405, marks=row("A8")),
    pytest.param(request(upgrade="h2c"), "plain", 426),
    pytest.param(request(upgrade="websocket2"), "plain", 426),
    pytest.param(request(upgrade="\xff"), "plain", 426),
    pytest.param(request("POST"), "method", 405, marks=row("A8")),
    pytest.param(request("PUT"), "method", 405, marks=row("A8")),
    pytest.param(request("HEAD"), "method", 405, marks=row("A8")),
    pytest.param(request("CONNECT"), "method", 405, marks=row("A8")),
    pytest.param(request("CONNECT", "a.example:80"), "method", 405, marks=row("A8")),
    pytest.param(request("get"), "method", 405),
    pytest.param(request(connection="Upgrade, \xff"), "lists", 400, marks=row("A2")),
    pytest.param(request(upgrade="websocket, \xff"), "lists", 400),
    pytest.param(
        request(extra=(("Sec-WebSocket-Protocol", "\xff"),)), "lists", 400, marks=row("A3")
    ),
    pytest.param(
        request(extra=(("Sec-WebSocket-Protocol", "a b"),)), "lists", 400, marks=row("A3")
    ),
    pytest.param(request(connection="keep-alive"), "connection", 426),
    pytest.param(request(connection="upgraded"), "connection", 426),
    pytest.param(request(without=("connection",)), "connection", 426),
    pytest.param(request(sec_websocket_version="12"), "version", 426, marks=row("A6")),
    pytest.param(request(sec_websocket_version="13, 8"), "version", 426, marks=row("A6")),
    pytest.param(
        request(extra=(("Sec-WebSocket-Version", "13"),)), "version", 426, marks=row("A6")
    ),
    pytest.param(request(without=("sec-websocket-version",)), "version", 426, marks=row("A6")),
    pytest.param(request(without=("sec-websocket-key",)), "key", 400, marks=row("A5")),
    pytest.param(request(sec_websocket_key="MTIzNDU2Nzg5MDEyMzQ1"), "key", 400, marks=row("A5")),
    pytest.param(
        request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZR=="), "key", 400, marks=row("A5")
    ),
    pytest.param(request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ"), "key", 400, marks=row("A5")),
    pytest.param(
        request(extra=(("Sec-WebSocket-Key", GOOD["Sec-WebSocket-Key"]),)),
        "key",
        400,
        marks=row("A5"),
    ),
    pytest.param(
        request(extra=(("Origin", "http://a.example"), ("Origin", "http://a.example"))),
        "origin header",
        400,
        marks=row("B3"),
    ),
    pytest.param(request(extra=(("Origin", "http://b.example"),)), "origins", 403),
]


@pytest.mark.row("A1", "A2", "A3", "A5", "A6", "A7", "A8", "A9", "A12", "B3")
@pytest.mark.parametrize(("given", "name", "status"), REFUSED)
def test_a_row_refuses(given: UpgradeRequest, name: str, status: int) -> None:
    """The first row that does not pass answers, and says its name in the body."""
    refusal = Policy().decide(given)
    assert isinstance(refusal, Refusal)
    assert (refusal.row, refusal.status) == (name, status)
    assert f"refused by: {name}\n".encode() in refusal.body
    assert refusal.error is None


def test_every_row_of_the_request_is_seen_to_refuse() -> None:
    """The table above misses no row that looks at the request alone."""
    seen = {parameters.values[1] for parameters in REFUSED}
    wanted = {each.name for each in checks.TABLE if each.check and each.asked == "of the request"}
    assert wanted - seen == {"hosts", "route", "checks"}, "these need settings, see below"


@pytest.mark.row("A3", "A4", "A11", "A12")
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(request(), id="plain good"),
        pytest.param(request(target="/a%20b?x=y"), id="path"),
        pytest.param(request(target="http://A.example:80/x"), id="absolute-form"),
        pytest.param(request(target="ws://a.example"), id="absolute-form, no path"),
        pytest.param(request(extra=(("Content-Length", "0"),)), id="empty body", marks=row("A12")),
        pytest.param(request(connection="keep-alive, UPGRADE"), id="any case", marks=row("A11")),
        pytest.param(
            request(connection="keep-alive", extra=(("Connection", "upgrade"),)),
            id="two Connection headers",
            marks=row("A11"),
        ),
        pytest.param(request(upgrade="h2c/1, WebSocket"), id="Upgrade list", marks=row("A11")),
        pytest.param(
            request(upgrade="h2c", extra=(("Upgrade", "websocket"),)), id="two", marks=row("A11")
        ),
        pytest.param(
            request(extra=(("Sec-WebSocket-Protocol", "a,,b,"),)), id="empties", marks=row("A3")
        ),
        pytest.param(request(extra=(("Sec-WebSocket-Protocol", ""),)), id="none", marks=row("A3")),
        *(
            pytest.param(
                request(extra=(("Sec-WebSocket-Extensions", offer),)),
                id=offer,
                marks=row("A4"),
            )
            for offer in (
                "permessage-deflate; server_max_window_bits=abc",
                "permessage-deflate; server_max_window_bits=99",
                "permessage-deflate; unknown",
                "permessage-deflate; client_max_window_bits; client_max_window_bits",
                'permessage-deflate; client_max_window_bits="10"',
                'permessage-deflate; x="unclosed',
                '\xff;,;=,"',
            )
        ),
    ],
)
def test_a_good_request_is_accepted(given: UpgradeRequest) -> None:
    """What RFC 6455 and RFC 9110 admit, odd forms included; extensions never refuse."""
    assert Policy().decide(given) == Accept()


@pytest.mark.row("A8")
@pytest.mark.parametrize(
    ("given", "with_http", "verdict"),
    [
        (request(without=PAGE), True, PLAIN),
        (request("HEAD", without=PAGE), True, PLAIN),
        (request("POST", without=PAGE), True, (405, b"GET, HEAD")),
        (request("HEAD", without=PAGE), False, (405, b"GET")),
        (request("POST", without=PAGE), False, (405, b"GET")),
        (request(without=PAGE), False, (426, None)),
        (request("POST"), True, (405, b"GET")),
        (request("POST"), False, (405, b"GET")),
    ],
)
def test_the_plain_row(given: UpgradeRequest, with_http: bool, verdict: object) -> None:
    """GET and HEAD are pages if there is an `http`; a 405 names what would do."""
    answer = decide(given, Policy(), plain=with_http).verdict
    seen = (answer.status, answer.header("allow")) if isinstance(answer, Refusal) else answer
    assert seen == verdict


@pytest.mark.row("A10")
@pytest.mark.parametrize("without", [(), PAGE])
def test_hosts_guard_upgrades_and_pages(without: tuple[str, ...]) -> None:
    """A rebound name gets 421, page or WebSocket; a name of ours passes, on any port."""
    policy = Policy(hosts=["a.example", "*.b.example", "c.example:8080"])

    def status(host: str) -> int | None:
        verdict = decide(request(host=host, without=without), policy, plain=True).verdict
        return verdict.status if isinstance(verdict, Refusal) else None

    passing = ("a.example", "A.example:99", "x.b.example", "c.example:8080")
    assert [status(host) for host in passing] == [None] * 4
    strangers = ("evil.example", "b.example", "c.example", "a.example.evil.example", "127.0.0.1")
    assert [status(host) for host in strangers] == [421] * 5


def test_version_refusals_name_the_version() -> None:
    """RFC 6455 section 4.4."""
    refusal = Policy().decide(request(sec_websocket_version="8"))
    assert isinstance(refusal, Refusal)
    assert refusal.header("sec-websocket-version") == b"13"


def test_the_route_row_answers_404_and_fills_params() -> None:
    """Unknown paths are refused before origins and checks; captures reach the checks."""
    seen: list[str] = []

    def look(given: UpgradeRequest) -> None:
        seen.append(given.params["room"])

    routes = Routes({"/chat/{room}": handle})
    policy = Policy(checks=[look])
    missing = decide(request(target="/nope"), policy, routes=routes).verdict
    assert isinstance(missing, Refusal)
    assert (missing.row, missing.status) == ("route", 404)
    found = decide(request(target="/chat/a%2Fb"), policy, routes=routes)
    assert found.verdict == Accept()
    assert found.request.params == {"room": "a/b"}
    assert seen == ["a/b"]


def test_checks_are_asked_in_order_and_only_add_refusals() -> None:
    """The first refusal ends it; a check cannot admit a foreign origin."""
    asked: list[str] = []

    def check(name: str, answer: Response | None) -> Callable[[UpgradeRequest], Response | None]:
        def ask(given: UpgradeRequest) -> Response | None:
            asked.append(name)
            return answer

        return ask

    policy = Policy(
        checks=[
            check("a", None),
            check("b", Response(401, [("WWW-Authenticate", "Bearer")], b"who?")),
            check("c", None),
        ]
    )
    refusal = policy.decide(request())
    assert isinstance(refusal, Refusal)
    assert (refusal.row, refusal.status, refusal.body) == ("checks", 401, b"who?")
    assert refusal.header("www-authenticate") == b"Bearer"
    assert asked == ["a", "b"]
    foreign = request(extra=(("Origin", "http://b.example"),))
    denied = Policy(checks=[check("d", None)]).decide(foreign)
    assert isinstance(denied, Refusal)
    assert denied.row == "origins"
    assert asked == ["a", "b"]


@pytest.mark.row("A22")
@pytest.mark.parametrize("answer", [True, False, "no", Accept()])
def test_a_check_that_answers_nonsense_refuses(answer: object) -> None:
    """Fail closed: neither True nor False says what was meant."""
    refusal = Policy(checks=[lambda given: answer]).decide(request())  # type: ignore[list-item]
    assert isinstance(refusal, Refusal)
    assert refusal.status == 500
    assert isinstance(refusal.error, TypeError)


@pytest.mark.row("A21", "A22")
def test_a_check_that_raises_is_a_500_that_keeps_the_exception() -> None:
    """The server can log the traceback; the peer learns nothing of it."""

    def broken(given: UpgradeRequest) -> Response | None:
        return Response(403, [("Content-Length", "SECRET")])

    refusal = Policy(checks=[broken]).decide(request())
    assert isinstance(refusal, Refusal)
    assert (refusal.row, refusal.status) == ("checks", 500)
    assert isinstance(refusal.error, ValueError)
    assert refusal.error.__traceback__ is not None
    assert b"SECRET" not in refusal.body


def asked_capacity(answer: Response | None) -> tuple[list[UpgradeRequest], Capacity]:
    seen: list[UpgradeRequest] = []

    def capacity(given: UpgradeRequest) -> Response | None:
        seen.append(given)
        return answer

    return seen, capacity


def test_capacity_is_asked_last_and_only_about_who_may_connect() -> None:
    """A full server does not answer 503 to who would get 403; its refusal keeps its own row."""
    seen, capacity = asked_capacity(checks.too_many_from_address())
    foreign = request(extra=(("Origin", "http://b.example"),))
    assert getattr(decide(foreign, Policy(), capacity=capacity).verdict, "status", None) == 403
    assert not seen
    refusal = decide(request(), Policy(), capacity=capacity).verdict
    assert isinstance(refusal, Refusal)
    assert (refusal.row, refusal.status, refusal.header("retry-after")) == ("capacity", 429, b"5")
    assert len(seen) == 1
    _, custom = asked_capacity(Response(503))
    other = decide(request(), Policy(), capacity=custom).verdict
    assert isinstance(other, Refusal)
    assert (other.row, other.status) == ("capacity", 503)


def test_rows_of_the_server_have_refusals_too() -> None:
    """Those that stand in the table without a check."""
    for refusal, name, status in (
        (checks.too_slow(head_complete=False), "deadline", 408),
        (checks.too_slow(head_complete=True), "deadline", 503),
        (checks.draining(), "capacity", 503),
        (checks.too_many_connections(), "capacity", 503),
        (checks.authorize_failed(ValueError("x")), "authorize", 500),
    ):
        assert (refusal.row, refusal.status) == (name, status)
        assert (refusal.header("retry-after") is not None) == (status == 503)


def test_the_earlier_row_answers() -> None:
    """Order is data: break everything, then repair row by row."""
    repairs: dict[str, object] = {
        "protocol": {"version": "1.0"},
        "host": {"host": "a@b"},
        "target": {"target": "*"},
        "method": {"method": "POST"},
        "lists": {"connection": "\xff"},
        "version": {"sec_websocket_version": "1"},
        "key": {"sec_websocket_key": "1"},
    }
    order: list[str] = []
    while repairs:
        broken: dict[str, str] = {}
        for change in repairs.values():
            broken |= change  # type: ignore[arg-type]
        refusal = Policy().decide(request(**broken))  # type: ignore[arg-type]
        assert isinstance(refusal, Refusal)
        order.append(refusal.row)
        del repairs[refusal.row]
    names = [each.name for each in checks.TABLE]
    assert order == sorted(order, key=names.index)
    assert len(order) == 7


def test_the_table_has_every_row_once_in_the_order_of_the_contract() -> None:
    assert [each.name for each in checks.TABLE] == [
        "head", "size", "deadline", "protocol", "host", "hosts", "target", "body", "plain",
        "method", "lists", "connection", "version", "key", "origin header", "route", "origins",
        "checks", "capacity", "subprotocol", "authorize",
    ]  # fmt: skip


def test_explain_shows_every_row_and_why() -> None:
    """Passed rows, the one that refused, and those never reached."""
    given = request(extra=(("Origin", "http://b.example"),))
    verdicts = Policy(origins=allow_origins("http://c.example")).explain(given)
    assert [verdict.row for verdict in verdicts] == [each.name for each in checks.TABLE]
    said = {verdict.row: verdict for verdict in verdicts}
    assert said["key"].outcome == "passed"
    assert said["origins"].outcome == "refused"
    assert "403" in said["origins"].why
    assert said["checks"].outcome == said["authorize"].outcome == "not reached"
    assert said["head"].outcome == said["route"].outcome == "not asked"
    assert str(said["origins"]).startswith("origins ")


def test_explain_knows_routes_pages_and_subprotocols() -> None:
    routes = Routes({"/x": handle})
    policy = Policy(subprotocols=["b", "a"])
    offered = request(target="/x", extra=(("Sec-WebSocket-Protocol", "a, b"),))
    said = {verdict.row: verdict for verdict in policy.explain(offered, routes=routes)}
    assert said["route"].outcome == "passed"
    assert "b" in said["subprotocol"].why
    page = {v.row: v.outcome for v in policy.explain(request(without=PAGE), plain=True)}
    assert (page["plain"], page["method"]) == ("passed", "not reached")


def test_explain_names_the_exception_of_a_check() -> None:
    def broken(given: UpgradeRequest) -> None:
        raise KeyError("mine")

    said = {verdict.row: verdict for verdict in Policy(checks=[broken]).explain(request())}
    assert said["checks"].outcome == "refused"
    assert "KeyError('mine')" in said["checks"].why


def test_decision_and_explanation_never_disagree() -> None:
    """Both interpret the same table."""
    for parameters in REFUSED:
        given, name, _ = parameters.values
        assert isinstance(given, UpgradeRequest)
        refused = [v.row for v in Policy().explain(given) if v.outcome == "refused"]
        assert refused == [name]
    assert isinstance(decide(request(), Policy()), Decision)


def generator() -> ModuleType:
    path = DOCS / "generate_handshake_table.py"
    spec = importlib.util.spec_from_file_location("generate_handshake_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documented_table_is_the_one_in_the_code() -> None:
    """Run `python docs/generate_handshake_table.py > docs/handshake.md` after changing a row."""
    committed = (DOCS / "handshake.md").read_text(encoding="utf-8")
    assert committed == generator().page()
    assert all(f"| {each.name} |" in committed for each in checks.TABLE)
