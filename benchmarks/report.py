"""Statistics and tables: measurements in, text out.

Lives here: percentiles, medians, paired ratios, the tables. Must never live here: a clock, a
socket, a process, a verdict. A benchmark reports; whether a number is good enough is decided by who
reads it.

Theory of the ratios. The machine's speed drifts (other tenants, frequency, temperature) far more
slowly than one repeat takes. So a ratio is taken *inside* each repeat, between neighbours in time,
and the median of those ratios is reported with their smallest and largest. A quotient of two
medians would throw that pairing away.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OURS: Final = "trio_ws"
"""The server all others are compared with."""

_LOAD_BOUND: Final = 0.95
"""A load that was on its CPU for more than this part of the window may have been the limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One server in one case in one repeat; `values` by the names of the quantities."""

    suite: str
    case: str
    server: str
    repeat: int
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """The median of the repeats, and between what they lie."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Summarise at least one value."""
        ordered = sorted(values)
        return cls(median=median(ordered), low=ordered[0], high=ordered[-1])

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def percentile(latencies: Sequence[tuple[float, int]], part: float) -> float:
    """The smallest value that at least `part` (0 to 1) of the weighted values do not exceed."""
    ordered = sorted(latencies)
    wanted = part * sum(weight for _, weight in ordered)
    seen = 0
    for value, weight in ordered:
        seen += weight
        if seen >= wanted:
            return value
    raise ValueError("a percentile of nothing")


def larger_is_better(quantity: str) -> bool:
    """A rate is better when larger; time and memory when smaller."""
    return quantity.endswith("/s")


class Results:
    """All measurements of a run, and what is asked of them.

    `libraries` are those of which the better one gets a column of its own in `summary`.
    """

    def __init__(self, measurements: Iterable[Measurement], *, libraries: Iterable[str]) -> None:
        self._measurements = tuple(measurements)
        self._libraries = tuple(libraries)

    def _of(self, suite: str, case: str, server: str, quantity: str) -> dict[int, float]:
        """The values by repeat."""
        return {
            m.repeat: m.values[quantity]
            for m in self._measurements
            if (m.suite, m.case, m.server) == (suite, case, server) and quantity in m.values
        }

    def _servers(self, suite: str, case: str) -> list[str]:
        return list(
            dict.fromkeys(
                m.server
                for m in sorted(self._measurements, key=lambda m: m.repeat)
                if (m.suite, m.case) == (suite, case)
            )
        )

    def spread(self, suite: str, case: str, server: str, quantity: str) -> Spread | None:
        """The repeats of one quantity; None if it was not measured."""
        values = self._of(suite, case, server, quantity)
        return Spread.of(values.values()) if values else None

    def advantage(self, suite: str, case: str, peer: str, quantity: str) -> Spread | None:
        """How many times better `OURS` is than `peer`, paired by repeat; None without a pair."""
        ours = self._of(suite, case, OURS, quantity)
        theirs = self._of(suite, case, peer, quantity)
        pairs = [(ours[repeat], theirs[repeat]) for repeat in ours.keys() & theirs.keys()]
        if not larger_is_better(quantity):
            pairs = [(b, a) for a, b in pairs]
        return Spread.of(a / b for a, b in pairs) if pairs and all(b for _, b in pairs) else None

    def better_library(self, suite: str, case: str, quantity: str) -> str | None:
        """Of `libraries` the one with the better median; None if none was measured."""
        sign = -1 if larger_is_better(quantity) else 1
        ranked = [
            (sign * spread.median, name)
            for name in self._libraries
            if (spread := self.spread(suite, case, name, quantity))
        ]
        return min(ranked)[1] if ranked else None

    def table(self, suite: str, case: str, quantities: Sequence[str]) -> str:
        """What was measured in one case, and the first two quantities against `OURS`."""
        servers = self._servers(suite, case)
        present = [q for q in quantities if any(self._of(suite, case, s, q) for s in servers)]
        ranged = [q for q in present if q in quantities[:2] or q == "bytes/connection"]
        compared = ranged if OURS in servers and len(servers) > 1 else []
        header = ["server"]
        for quantity in present:
            header += [quantity, "(min-max)"] if quantity in ranged else [quantity]
        rows = [header + [f"{OURS} better: {_plain(quantity)}" for quantity in compared]]
        for server in servers:
            rows.append([server])
            for quantity in present:
                spread = self.spread(suite, case, server, quantity)
                rows[-1] += _cells(spread, quantity, with_range=quantity in ranged)
            for quantity in compared:
                ratio = self.advantage(suite, case, server, quantity)
                rows[-1].append(str(ratio) if ratio and server != OURS else "")
        return render(rows) + self._note(suite, case, servers)

    def _note(self, suite: str, case: str, servers: Sequence[str]) -> str:
        busy = [
            server
            for server in servers
            if (spread := self.spread(suite, case, server, "load CPU"))
            and spread.median > _LOAD_BOUND
        ]
        if not busy:
            return ""
        return f"\n\nThe load was the limit for {', '.join(busy)}: the server could do more."

    def summary(self, lines: Sequence[tuple[str, str, str]], peers: Sequence[str]) -> str:
        """How many times better `OURS` is than each peer, for each (suite, case, quantity)."""
        columns = [peer for peer in peers if peer not in self._libraries]
        rows = [["case", "quantity", "better trio library", *columns]]
        for suite, case, quantity in lines:
            best = self.better_library(suite, case, quantity)
            ratios = [
                self.advantage(suite, case, peer, quantity) if peer else None
                for peer in (best, *columns)
            ]
            if any(ratios):
                cells = [str(ratio) if ratio else "-" for ratio in ratios]
                rows.append([f"{suite} {case}", quantity, *cells])
        return render(rows) if len(rows) > 1 else ""


def _plain(quantity: str) -> str:
    return "CPU" if quantity.startswith("CPU") else quantity


def _cells(spread: Spread | None, quantity: str, *, with_range: bool) -> list[str]:
    if spread is None:
        return ["-"] * (1 + with_range)
    numbers = [_number(value, quantity) for value in (spread.median, spread.low, spread.high)]
    return [numbers[0], f"({numbers[1]}-{numbers[2]})"] if with_range else numbers[:1]


def _number(value: float, quantity: str) -> str:
    if quantity in {"server CPU", "load CPU"}:
        return f"{value:.0%}"
    if quantity.startswith("CPU us"):
        return (
            f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
        )
    return f"{value:,.0f}"


def render(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join(cells)} |"

    rule = f"|{'-' * (widths[0] + 2)}|" + "".join(f"{'-' * (w + 1)}:|" for w in widths[1:])
    return "\n".join([line(rows[0]), rule, *(line(row) for row in rows[1:])])
