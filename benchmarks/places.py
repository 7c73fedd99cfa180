"""Where things go: arithmetic of lengths.

Lives here: a logarithmic scale, labels that must not overlap. Must never live here: matplotlib,
measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class LogScale:
    """Equal factors are equal lengths: `low` is at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Iterable[float], *, start: float, end: float) -> LogScale:
        """A scale that all these positive values are on; a single one is in its middle."""
        low, high = min(values := list(values)), max(values)
        if low == high:
            low, high = low / 2, high * 2
        return cls(low=low, high=high, start=start, end=end)

    def at(self, value: float) -> float:
        """Where the positive `value` is."""
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + part * (self.end - self.start)

    def steps(self) -> list[float]:
        """1, 2, 5, 10, 20 ... as far as they are on the scale."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        return [step for step in steps if self.low <= step <= self.high]


def apart(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """Where to put labels that want these places, so that they are at least `gap` apart and in
    their order. Labels that would touch move together, by as much to one side as to the other."""
    blocks: list[tuple[list[str], float]] = []  # who touches whom, and where their middle is
    for name in sorted(places, key=lambda name: places[name]):
        block, middle = [name], places[name]
        while blocks:
            below, its_middle = blocks[-1]
            count = len(below) + len(block)
            if middle - its_middle >= gap * count / 2:
                break
            blocks.pop()
            middle = (its_middle * len(below) + middle * len(block)) / count
            block = below + block
        blocks.append((block, middle))
    return {
        name: middle + gap * (number - (len(block) - 1) / 2)
        for block, middle in blocks
        for number, name in enumerate(block)
    }
