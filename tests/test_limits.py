"""Limits: what is refused, and that the defaults are what the documentation says.

Lives here: `_limits` alone. Must never live here: enforcement (test_protocol_limits
and others).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from itertools import pairwise
from typing import Any

import pytest

from trio_ws._limits import Limits

FIELDS = {field.name: field for field in dataclasses.fields(Limits)}
OPTIONAL = {
    "max_fragments",
    "ping_interval",
    "ping_timeout",
    "idle_timeout",
    "max_lifetime",
    "max_connections",
    "max_connections_per_address",
}
MAY_BE_ZERO = {"cancel_grace", "read_ahead", "max_message"}
SECONDS = {
    "handshake_timeout",
    "ping_interval",
    "ping_timeout",
    "idle_timeout",
    "max_lifetime",
    "close_timeout",
    "cancel_grace",
}


def limits(name: str, value: object) -> Limits:
    """`Limits` with one field set, of whatever type."""
    anything: Any = {name: value}
    return Limits(**anything)


def test_the_defaults() -> None:
    """The numbers that the documentation promises."""
    assert dataclasses.asdict(Limits()) == {
        "max_header_bytes": 16384,
        "max_headers": 128,
        "max_target": 8192,
        "handshake_timeout": 10,
        "max_message": 1048576,
        "max_fragments": 4096,
        "read_ahead": 65536,
        "max_outbox": 65536,
        "ping_interval": 20,
        "ping_timeout": 20,
        "idle_timeout": None,
        "max_lifetime": None,
        "close_timeout": 5,
        "cancel_grace": 1,
        "max_connections": None,
        "max_connections_per_address": None,
    }


@pytest.mark.parametrize("name", FIELDS)
def test_a_number_that_is_no_bound_is_refused(name: str) -> None:
    """Negative, infinite and NaN are a ValueError that names the field."""
    for value in (-1, *((-0.5, math.inf, math.nan) if name in SECONDS else ())):
        with pytest.raises(ValueError, match=rf"Limits\.{name} "):
            limits(name, value)


@pytest.mark.parametrize("name", FIELDS)
def test_zero_is_taken_only_where_it_means_something(name: str) -> None:
    """A zero that would refuse everybody, or wait for nothing, is a ValueError."""
    if name in MAY_BE_ZERO:
        assert getattr(limits(name, 0), name) == 0
    else:
        with pytest.raises(ValueError, match=name):
            limits(name, 0)


@pytest.mark.parametrize("name", FIELDS)
def test_none_is_taken_only_where_the_field_admits_it(name: str) -> None:
    """None is "no such limit" for some fields and a TypeError for the others."""
    if name in OPTIONAL:
        assert getattr(limits(name, None), name) is None
    else:
        with pytest.raises(TypeError, match=name):
            limits(name, None)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", ["5", b"5", True, [5], 5j])
def test_what_is_no_number_is_a_type_error(name: str, value: object) -> None:
    """A string from a configuration file is found at once, and so is a bool."""
    with pytest.raises(TypeError, match=name):
        limits(name, value)


@pytest.mark.parametrize("name", FIELDS)
def test_only_times_may_be_fractions(name: str) -> None:
    """Half a second is a time, half a byte is a mistake."""
    if name in SECONDS:
        assert getattr(limits(name, 0.5), name) == 0.5
        assert getattr(limits(name, 3), name) == 3
    else:
        with pytest.raises(TypeError, match=name):
            limits(name, 0.5)


def test_limits_are_a_frozen_value_by_keyword() -> None:
    """One value can be shared by a whole server."""
    assert Limits() == Limits()
    assert hash(Limits(max_message=5)) == hash(Limits(max_message=5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().max_message = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        Limits(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_every_default_has_its_reason() -> None:
    """Each field is followed by a docstring in the source."""
    (law,) = ast.parse(inspect.getsource(Limits)).body
    assert isinstance(law, ast.ClassDef)
    explained = {
        first.target.id
        for first, second in pairwise(law.body)
        if isinstance(first, ast.AnnAssign)
        and isinstance(first.target, ast.Name)
        and isinstance(second, ast.Expr)
        and isinstance(second.value, ast.Constant)
    }
    assert explained == set(FIELDS)
