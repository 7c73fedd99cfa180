"""Who may connect: the application's settings, as one value, and the decision they lead to.

Lives here: `Policy`, its validation, and what is asked of it. Must never live here: the rules
themselves (`_checks`), I/O, or a way to admit what the table refuses: a policy only chooses among
origins and adds refusals.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from ._checks import TABLE, Row, Step, walk
from ._headers import check_token
from ._origin import HostPattern, OriginRule, same_origin
from ._proxies import IPNetwork, TrustedProxies, key_of
from ._request import fields_of
from ._response import Accept, Refusal
from ._rules import PLAIN, Capacity, Check, Ending, Gate, PlainRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._request import UpgradeRequest
    from ._routes import Routes

__all__ = ["Policy", "Verdict"]

T = TypeVar("T")

_ACCEPT = Accept()


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What one row of the table says about a request.

    Attributes:
        row: its name.
        outcome: "passed"; "refused"; "not reached", as an earlier row ended it; or "not asked",
            as the row asks something of a running server.
        why: what the row asks for, or the refusal in words.
    """

    row: str
    outcome: Literal["passed", "refused", "not reached", "not asked"]
    why: str

    def __str__(self) -> str:
        return f"{self.row:<14} {self.outcome:<12} {self.why}"


class Decision(NamedTuple):
    """The outcome of the table.

    Attributes:
        request: the request as known now: seen through trusted proxies, with route captures.
        verdict: `Accept`, `Refusal`, or `PLAIN`: a page is asked for.
    """

    request: UpgradeRequest
    verdict: Accept | Refusal | PlainRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Who may connect, as one ordered table of named, pure checks.

    Raises:
        ValueError: a pattern, subprotocol or network is malformed or repeated.
        TypeError: something has the wrong type; a lone str where a sequence is meant; an
            asynchronous check.
    """

    origins: OriginRule = same_origin
    """Exactly one of `same_origin`, `allow_origins(...)`, `unsafe_any_origin`. Browsers let any
    page open a WebSocket to any server, with the visitor's cookies (RFC 6455 section 10.2), so the
    default admits only pages of this server itself."""

    hosts: Sequence[str] | None = None
    """Names this server answers to, ``host[:port]`` or ``*.host[:port]``; without a port any port.
    None: any name, as most servers sit behind a name they need not know. Name them where the server
    can be reached from browsers of a private network (DNS rebinding)."""

    checks: Sequence[Check] = ()
    """Further refusals, asked in order. They cannot admit what another row refuses."""

    subprotocols: Sequence[str] = ()
    """Subprotocols spoken here, in our order of preference (RFC 6455 section 1.9)."""

    trusted_proxies: Sequence[str | IPNetwork] = ()
    """Networks (``10.0.0.0/8``, one address, or `ipaddress` values) and the word ``unix`` (peers on
    Unix sockets) whose `X-Forwarded-Proto`, `-Host` and `-For` are believed. None by default, as
    any client can send them; name only proxies that set or remove all three."""

    _hosts: tuple[HostPattern, ...] | None = field(init=False, repr=False, compare=False)
    _proxies: TrustedProxies = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.origins, OriginRule):
            raise TypeError(
                "origins must be same_origin, allow_origins(...) or unsafe_any_origin,"
                f" not {self.origins!r}"
            )
        hosts = None if self.hosts is None else _sequence("hosts", self.hosts)
        parsed = None if hosts is None else tuple(HostPattern.parse(h, "host") for h in hosts)
        checks = _sequence("checks", self.checks)
        for check in checks:
            _validate_check(check)
        subprotocols = _sequence("subprotocols", self.subprotocols)
        for subprotocol in subprotocols:
            check_token(subprotocol, "subprotocol")
        if len(set(subprotocols)) != len(subprotocols):
            raise ValueError(f"subprotocols {subprotocols!r} names one twice")
        proxies = _sequence("trusted_proxies", self.trusted_proxies)
        for name, value in (
            ("hosts", hosts),
            ("checks", checks),
            ("subprotocols", subprotocols),
            ("trusted_proxies", proxies),
            ("_hosts", parsed),
            ("_proxies", TrustedProxies.parse(proxies)),
        ):
            object.__setattr__(self, name, value)

    def decide(self, request: UpgradeRequest) -> Accept | Refusal:
        """Ask every row that needs no running server; never raises.

        Returns:
            `Accept` with the chosen subprotocol, or the `Refusal` of the first row that did not
            pass (``.row`` names it). There are no routes here, and no `http`: a request for a page
            is refused by the row "plain".
        """
        verdict = self._decision(request).verdict
        assert not isinstance(verdict, PlainRequest)
        return verdict

    def explain(
        self, request: UpgradeRequest, *, routes: Routes[Any] | None = None, plain: bool = False
    ) -> tuple[Verdict, ...]:
        """The verdict on `request`, row by row: ``print(*policy.explain(request), sep="\\n")``.

        Args:
            request: as received, or made up.
            routes: the routes of the server, if it has some.
            plain: whether the server has an `http`.
        """
        gate = self._gate(request, routes=routes, plain=plain)
        steps: list[Step] = []
        walk(self._proxies.resolve(request), gate, steps.append)
        said = {row.name: self._verdict(row, known, answer, gate) for row, known, answer in steps}
        later = {
            row.name: Verdict(row=row.name, outcome="not reached", why=row.holds) for row in TABLE
        }
        return tuple((later | said).values())

    def _decision(
        self,
        request: UpgradeRequest,
        *,
        routes: Routes[Any] | None = None,
        plain: bool = False,
        capacity: Capacity | None = None,
    ) -> Decision:
        """What a server asks, see the function `decide`."""
        gate = self._gate(request, routes=routes, plain=plain, capacity=capacity)
        known, ending = walk(self._proxies.resolve(request), gate)
        return Decision(known, ending or self._accept(known))

    def _accept(self, request: UpgradeRequest) -> Accept:
        subprotocol = self._choose_subprotocol(request)
        return _ACCEPT if subprotocol is None else Accept(subprotocol)

    def _choose_subprotocol(self, request: UpgradeRequest) -> str | None:
        """The first of ours that the client offers; None if there is none (no header is sent)."""
        if not self.subprotocols:
            return None
        offered = request.subprotocols
        return next((name for name in self.subprotocols if name in offered), None)

    def _gate(
        self,
        request: UpgradeRequest,
        *,
        routes: Routes[Any] | None,
        plain: bool,
        capacity: Capacity | None = None,
    ) -> Gate:
        return Gate(
            fields=fields_of(request),
            origins=self.origins,
            hosts=self._hosts,
            checks=tuple(self.checks),
            routes=routes,
            plain=plain,
            capacity=capacity,
        )

    def _verdict(self, row: Row, known: UpgradeRequest, answer: Ending, gate: Gate) -> Verdict:
        if isinstance(answer, Refusal):
            said = " ".join(answer.body.decode("utf-8", "replace").split("\n")).strip()
            why = said if answer.error is None else f"{answer.status}: raised {answer.error!r}"
            return Verdict(row=row.name, outcome="refused", why=why)
        if answer is PLAIN:
            return Verdict(row=row.name, outcome="passed", why="A page is asked for: http answers.")
        if row.name == "subprotocol":
            why = f"Chosen: {self._choose_subprotocol(known)}."
            return Verdict(row=row.name, outcome="passed", why=why)
        elsewhere = row.check is None or row.asked != "of the request"
        if elsewhere or (row.name == "route" and gate.routes is None):
            return Verdict(row=row.name, outcome="not asked", why=row.holds)
        return Verdict(row=row.name, outcome="passed", why=row.holds)


# -- what servers ask, and users do not: friends of the class, in its own file ------------------


def decide(
    request: UpgradeRequest,
    policy: Policy,
    *,
    routes: Routes[Any] | None = None,
    plain: bool = False,
    capacity: Capacity | None = None,
) -> Decision:
    """Ask the whole table; what a server does with every request. Never raises.

    Args:
        request: as received.
        policy: the application's.
        routes: the handler, if it is a `Routes`.
        plain: whether there is an `http` for ordinary pages.
        capacity: the server's own row: draining and caps.
    """
    return policy._decision(request, routes=routes, plain=plain, capacity=capacity)  # noqa: SLF001


def address_key(request: UpgradeRequest, policy: Policy) -> str | None:
    """What the connections of one client are counted by: its IPv4 address or IPv6 /64.

    The address is the transport's, or behind trusted proxies the right-most untrusted hop. None if
    it is unknown (Unix sockets, streams in memory): such connections are not counted by address.
    """
    return key_of(policy._proxies.resolve(request).client_address)  # noqa: SLF001


def _sequence(name: str, values: Iterable[T]) -> tuple[T, ...]:
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be a sequence, not the single {values!r}")
    return tuple(values)


def _validate_check(check: Check) -> None:
    if not callable(check):
        raise TypeError(f"a check must be callable, not {check!r}")
    if inspect.iscoroutinefunction(check):
        raise TypeError(f"check {check!r} is async; what waits belongs into authorize")
