"""Statistics and tables: measurements in, text out.

Lives here: percentiles, medians, paired ratios, the table, the JSON document.
Must never live here: a clock, a socket, a process, a verdict. A benchmark reports; whether a
number is good enough is decided by who reads it.

Theory of the ratios. The machine's speed drifts (other tenants, frequency, temperature) far more
slowly than one repeat takes. So a ratio is taken *inside* each repeat, between neighbours in time,
and the median of those ratios is reported with their smallest and largest. A quotient of two
medians would throw that pairing away.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Quantity: TypeAlias = "Callable[[Measurement], float]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One server in one case in one repeat.

    Attributes:
        rate: messages per second.
        cpu: microseconds of the server's CPU time, user and system, per message.
        p50, p99: microseconds from sending a message to having its whole reply.
        server_load, load_load: part of the window the process was on a CPU, 0 to 1.
    """

    server: str
    case: str
    repeat: int
    rate: float
    cpu: float
    p50: float
    p99: float
    server_load: float
    load_load: float


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


QUANTITIES: Final[dict[str, Quantity]] = {
    "CPU/message": lambda m: m.cpu,
    "messages/s": lambda m: m.rate,
    "p50": lambda m: m.p50,
}
"""What ratios are taken of. All but the rate are better when smaller."""

_LOAD_BOUND: Final = 0.95
"""A load that was on its CPU for more than this part of the window may have been the limit."""


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


class Results:
    """All measurements of a run, and what is asked of them.

    `reference` is the ceiling (the raw echo), `libraries` those of which the better one is
    compared with. Either may be missing from the measurements; then its column is.
    """

    def __init__(
        self,
        measurements: Sequence[Measurement],
        *,
        reference: str = "raw",
        libraries: Sequence[str] = (),
    ) -> None:
        self._measurements = tuple(measurements)
        self._reference = reference
        self._libraries = tuple(libraries)

    def _runs(self, case: str, server: str) -> list[Measurement]:
        return [m for m in self._measurements if (m.case, m.server) == (case, server)]

    def cases(self) -> list[str]:
        """The cases, in the order measured."""
        return list(dict.fromkeys(m.case for m in self._measurements))

    def servers(self, case: str) -> list[str]:
        """The servers of the case, in the order measured in the first repeat."""
        return list(dict.fromkeys(m.server for m in self._measurements if m.case == case))

    def spread(self, case: str, server: str, quantity: Quantity) -> Spread:
        """Median, smallest and largest over the repeats."""
        return Spread.of(quantity(m) for m in self._runs(case, server))

    def better_library(self, case: str, name: str) -> str | None:
        """The library with the better median of the quantity `name`; None without libraries."""
        quantity = QUANTITIES[name]
        sign = -1 if name == "messages/s" else 1
        present = [server for server in self._libraries if self._runs(case, server)]
        return min(
            present, key=lambda s: sign * self.spread(case, s, quantity).median, default=None
        )

    def ratio(self, case: str, server: str, base: str | None, quantity: Quantity) -> Spread | None:
        """`server` / `base`, paired by repeat; None if no repeat has both."""
        bases = {m.repeat: quantity(m) for m in self._runs(case, base)} if base else {}
        pairs = [
            quantity(m) / bases[m.repeat] for m in self._runs(case, server) if bases.get(m.repeat)
        ]
        return Spread.of(pairs) if pairs else None

    def tables(self) -> str:
        """Two Markdown tables per case: what was measured, and the ratios."""
        parts: list[str] = []
        for case in self.cases():
            connections, _, in_flight = case.partition("x")
            parts += [
                f"## {case}: {connections} connection(s), {in_flight} message(s) in flight on each",
                self._values(case),
                self._ratios(case),
            ]
        return "\n\n".join(part for part in parts if part)

    def _values(self, case: str) -> str:
        header = "server|messages/s|CPU us/message|(min-max)|p50 us|p99 us|server CPU|load CPU"
        rows = [header.split("|")]
        bound = False
        for server in self.servers(case):
            cpu = self.spread(case, server, lambda m: m.cpu)
            busy = self.spread(case, server, lambda m: m.load_load).median
            mark = "*" if busy > _LOAD_BOUND else ""
            bound = bound or bool(mark)
            rows.append(
                [
                    server,
                    f"{self.spread(case, server, lambda m: m.rate).median:,.0f}{mark}",
                    f"{cpu.median:.1f}",
                    f"({cpu.low:.1f}-{cpu.high:.1f})",
                    f"{self.spread(case, server, lambda m: m.p50).median:,.0f}",
                    f"{self.spread(case, server, lambda m: m.p99).median:,.0f}",
                    f"{self.spread(case, server, lambda m: m.server_load).median:.0%}",
                    f"{busy:.0%}",
                ]
            )
        note = "\n\n\\* the load was the limit here: the server could do more." if bound else ""
        return render(rows) + note

    def _ratios(self, case: str) -> str:
        servers = [s for s in self.servers(case) if s != self._reference]
        has_reference = bool(self._runs(case, self._reference))
        header = ["ratio (min-max)"]
        columns: list[tuple[str | None, Quantity]] = []
        for name, quantity in QUANTITIES.items():
            better = self.better_library(case, name)
            for base in [self._reference if has_reference else None, better]:
                if base is not None:
                    header.append(f"{name} / {base}")
                    columns.append((base, quantity))
        if not columns or not servers:
            return ""
        rows = [header]
        for server in servers:
            cells = [self.ratio(case, server, base, quantity) for base, quantity in columns]
            rows.append([server, *(_ratio_text(cell) for cell in cells)])
        return render(rows)

    def document(self, about: dict[str, Any]) -> dict[str, Any]:
        """Everything for a machine to read: `about`, each measurement, each summary."""
        summaries = [
            {
                "case": case,
                "server": server,
                "quantity": name,
                **asdict(self.spread(case, server, quantity)),
                "bases": {
                    base: asdict(ratio)
                    for base in [self._reference, self.better_library(case, name)]
                    if base and (ratio := self.ratio(case, server, base, quantity))
                },
            }
            for case in self.cases()
            for server in self.servers(case)
            for name, quantity in QUANTITIES.items()
        ]
        return {
            "about": about,
            "summaries": summaries,
            "measurements": [asdict(m) for m in self._measurements],
        }


def _ratio_text(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"


def render(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join(cells)} |"

    rule = f"|{'-' * (widths[0] + 2)}|" + "".join(f"{'-' * (w + 1)}:|" for w in widths[1:])
    return "\n".join([line(rows[0]), rule, *(line(row) for row in rows[1:])])
