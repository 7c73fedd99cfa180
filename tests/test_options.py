"""`ServerOptions`: names, kinds and values are checked before anything happens."""

from __future__ import annotations

import dataclasses
import typing

import pytest
import trio
import trio.testing

from trio_ws import Limits, Policy, Response, UpgradeRequest, WebSocket, serve, serve_stream
from trio_ws._options import ServerKeywords, ServerOptions


async def hook(request: UpgradeRequest) -> Response:
    raise NotImplementedError


async def handler(ws: WebSocket) -> None:
    raise NotImplementedError


def test_type_checkers_are_told_the_very_options_there_are() -> None:
    """`ServerKeywords`, which type checkers read, repeats `ServerOptions` name by name and type by
    type."""
    told, real = typing.get_type_hints(ServerKeywords), typing.get_type_hints(ServerOptions)
    assert told == real
    assert list(told) == [field.name for field in dataclasses.fields(ServerOptions)]
    assert not ServerKeywords.__required_keys__


def test_defaults_are_strict() -> None:
    options = ServerOptions()
    assert (options.policy, options.limits) == (Policy(), Limits())
    assert (options.cancel_code, options.cancel_reason) == (1001, "")
    assert not options.raise_handler_errors
    assert options.compression is None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"polcy": Policy()}, TypeError),
        ({"policy": "any"}, TypeError),
        ({"policy": None}, TypeError),
        ({"limits": {"max_message": 1}}, TypeError),
        ({"compression": True}, TypeError),
        ({"http": "page"}, TypeError),
        ({"authorize": True}, TypeError),
        ({"raise_handler_errors": 1}, TypeError),
        ({"cancel_code": 1005}, ValueError),
        ({"cancel_code": 99999}, ValueError),
        ({"cancel_reason": "x" * 124}, ValueError),
        ({"cancel_reason": None}, ValueError),
    ],
)
def test_a_wrong_option_is_refused(wrong: dict[str, typing.Any], error: type[Exception]) -> None:
    (name,) = wrong
    with pytest.raises(error, match=name.replace("cancel_", "close ")):
        ServerOptions(**wrong)


async def test_an_unknown_option_is_a_type_error_before_any_io() -> None:
    """`serve` does not even look up its host; a stream is left as it was."""
    with pytest.raises(TypeError, match="polcy"):
        await serve(handler, 0, host="no.such.host.invalid", polcy=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="handler"):
        await serve("handler", 0, host="no.such.host.invalid")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ssl_context"):
        await serve(handler, 0, host="no.such.host.invalid", ssl_context=True)  # type: ignore[arg-type]
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(TypeError, match="polcy"):
        await serve_stream(handler, theirs, polcy=1)  # type: ignore[call-arg]
    await theirs.send_all(b"alive")
    assert await ours.receive_some() == b"alive"


def test_options_are_a_value() -> None:
    """Equal if made of equals, and never changed after."""
    options = ServerOptions(http=hook, cancel_reason="bye")
    assert options == ServerOptions(http=hook, cancel_reason="bye")
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.cancel_code = 1000  # type: ignore[misc]
