"""`Routes`: templates, matching, dispatch.

Lives here: paths. Must never live here: the route row's place in the table (see test_checks).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from trio_ws import UpgradeRequest
from trio_ws._routes import Routes


@dataclass
class Caller:
    """All that `Routes` needs of a WebSocket."""

    request: UpgradeRequest
    called: str = ""


def handler(name: str):
    async def handle(ws: Caller) -> None:
        ws.called = name

    return handle


def routes(*templates: str) -> Routes[Caller]:
    return Routes({template: handler(template) for template in templates})


ALL = routes("/", "/chat", "/chat/{room}", "/chat/all", "/{a}/{b}", "/chat/{room}/log", "/über/x")


@pytest.mark.parametrize(
    ("path", "template", "params"),
    [
        ("/", "/", {}),
        ("/chat", "/chat", {}),
        ("/chat/all", "/chat/all", {}),
        ("/chat/%61ll", "/chat/all", {}),
        ("/chat/ALL", "/chat/{room}", {"room": "ALL"}),
        ("/chat/a%2Fb", "/chat/{room}", {"room": "a/b"}),
        ("/chat/a%252Fb", "/chat/{room}", {"room": "a%2Fb"}),
        ("/chat/%C3%BC%20x", "/chat/{room}", {"room": "ü x"}),
        ("/chat/a+b", "/chat/{room}", {"room": "a+b"}),
        ("/other/x", "/{a}/{b}", {"a": "other", "b": "x"}),
        ("/chat/x/log", "/chat/{room}/log", {"room": "x"}),
        ("/%C3%BCber/x", "/über/x", {}),
        ("/chat/", None, {}),
        ("/chat//log", None, {}),
        ("/chat/..", None, {}),
        ("/chat/%2e", None, {}),
        ("/chat/%ff", None, {}),
        ("/chat/x/log/", None, {}),
        ("/nothing", None, {}),
        ("/Chat", None, {}),
        ("chat", None, {}),
        ("", None, {}),
        ("/\ud800", None, {}),
    ],
)
def test_matching(path: str, template: str | None, params: dict[str, str]) -> None:
    """Whole segments, decoded after splitting; literals before captures, from the left."""
    found = ALL.match(path)
    assert (None if found is None else found.template) == template
    assert found is None or found.params == params


def test_the_left_most_literal_wins_whatever_the_order() -> None:
    for table in (routes("/a/{x}", "/{y}/b"), routes("/{y}/b", "/a/{x}")):
        found = table.match("/a/b")
        assert found is not None
        assert found.template == "/a/{x}"


@pytest.mark.parametrize(
    "templates",
    [("chat",), ("",), ("/{a}/{a}",), ("/{}",), ("/{a b}",), ("/x{a}",), ("/{a}x",), ("/{a",),
     ("/a?b",), ("/a#b",), ("/a%20b",), ("/{a}", "/{b}"), ("/x/{a}/y", "/x/{b}/y")],
)  # fmt: skip
def test_a_bad_table_is_a_valueerror_at_construction(templates: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="route"):
        routes(*templates)


def test_a_table_holds_str_and_callables() -> None:
    with pytest.raises(TypeError, match="str"):
        Routes({b"/": handler("x")})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="callable"):
        Routes({"/": None})  # type: ignore[dict-item]


def drive(coroutine) -> None:
    """Run a coroutine that awaits nothing."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


def test_routes_are_a_handler() -> None:
    """The handler of the request's path is awaited with the WebSocket."""
    request = UpgradeRequest(method=b"GET", raw_target=b"/chat/a%2Fb?x", headers=())
    ws = Caller(replace(request, params={"room": "a/b"}))
    drive(ALL(ws))
    assert ws.called == "/chat/{room}"


@pytest.mark.parametrize("target", [b"/nothing", b"/chat/room"])
def test_routes_that_did_not_answer_their_row_say_so(target: bytes) -> None:
    """Hidden behind another handler there is no 404 and there are no params: an error, not a
    KeyError in the application's code."""
    ws = Caller(UpgradeRequest(method=b"GET", raw_target=target, headers=()))
    with pytest.raises(LookupError, match="Routes itself"):
        ALL(ws).send(None)


def test_what_a_handler_raises_comes_out() -> None:
    async def broken(ws: Caller) -> None:
        raise OSError("mine")

    ws = Caller(UpgradeRequest(method=b"GET", raw_target=b"/", headers=()))
    with pytest.raises(OSError, match="mine"):
        Routes({"/": broken})(ws).send(None)


def test_repr_lists_the_templates() -> None:
    assert repr(routes("/b/{x}", "/a")) == "<Routes /a /b/{x}>"
