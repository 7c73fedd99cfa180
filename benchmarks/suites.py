"""What there is to measure: the table of suites, and one measurement of one of them.

Lives here: which cases, which servers take part, what the numbers of a suite are called.
Must never live here: a load, a command line, the order of the runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from benchmarks import broadcast, echo, handshakes, load, population, servers
from benchmarks.connections import holding, most_connections

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from benchmarks.window import Server

_TALK: Final = ("messages/s", "CPU us/message", "p50 us", "p99 us", "server CPU", "load CPU")


def _no_needs(_: str) -> None:
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """One question.

    Attributes:
        title: it, for people; `{}` is the case.
        cases: what is measured by default.
        check: raises ValueError if a text is no case of this suite.
        quantities: what the table shows, of what a measurement may hold.
        measure: fills connections to a server and returns quantities; see `echo.measure`.
        role: what the servers have to do.
        repeats: more than so many are not made by default: it takes long, and varies little.
        needs: why a case cannot be measured on this machine, if so.
    """

    title: str
    cases: tuple[str, ...]
    check: Callable[[str], object]
    quantities: tuple[str, ...]
    measure: Callable[[Server, list[socket.socket], str, float], dict[str, float]]
    role: servers.Role = "echo"
    repeats: int = 99
    needs: Callable[[str], str | None] = _no_needs

    def takes(self, name: str) -> bool:
        """Whether the server of that name has the role."""
        return self.role == "echo" or servers.ADAPTERS[name].room is not None


SUITES: Final[Mapping[str, Suite]] = MappingProxyType(
    {
        "echo": Suite(
            title="echo {}: connections x messages in flight on each",
            cases=echo.CASES,
            check=load.Case.parse,
            quantities=_TALK,
            measure=echo.measure,
        ),
        "broadcast": Suite(
            title="broadcast {}: members x messages under way",
            cases=broadcast.CASES,
            check=broadcast.parse,
            quantities=("deliveries/s", "CPU us/delivery", *_TALK[2:]),
            measure=broadcast.measure,
            role="room",
        ),
        "handshakes": Suite(
            title="handshakes, {}: from accept to 101",
            cases=handshakes.CASES,
            check=handshakes.at_once,
            quantities=("handshakes/s", "CPU us/handshake", *_TALK[2:]),
            measure=handshakes.measure,
        ),
        "idle": Suite(
            title="idle: memory of {} open connections that are silent",
            cases=population.IDLE,
            check=population.count,
            quantities=("bytes/connection",),
            measure=population.idle,
            repeats=3,
            needs=population.needs,
        ),
        "scale": Suite(
            title="scale: {} open connections, at most 100 of them with a message in flight",
            cases=population.SCALE,
            check=population.count,
            quantities=(*_TALK, "bytes/connection"),
            measure=population.scale,
            repeats=3,
            needs=population.needs,
        ),
    }
)
"""Every suite by its name, in the order measured."""


def measure_once(
    suite: str, case: str, name: str, *, seconds: float, core: int | None
) -> dict[str, float]:
    """A fresh process of the server `name`, one case, one window.

    Raises:
        LoadError: the server did something else than it had to.
        Unmeasurable: it is not the server that is to blame.
        ServerFailed: it did not come up.
    """
    most_connections()  # the server inherits the raised limit
    kind = SUITES[suite]
    with holding() as connections, servers.running(name, kind.role, core=core) as server:
        return kind.measure(server, connections, case, seconds)
