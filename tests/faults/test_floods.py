"""One peer floods; the server's memory stays flat and another connection gets its echoes.

Lives here: real processes on the loopback, for a few seconds each. The latencies are printed and
never judged, but that every echo comes is.
"""

from __future__ import annotations

import pytest
from faults_world import MIB, flood, server, wait_until, watch

SECONDS = 3.0
SHORT = {"ping_interval": 1.0, "ping_timeout": 1.0, "close_timeout": 1.0}

FLAT = 16 * MIB
"""What the second half may take above the first: what the allocator keeps in pieces."""

WHOLE = 32 * MIB
"""What one flood may take in all: Limits' sum for the messages it sends, with much room."""


def test_without_a_flood() -> None:
    """The yardstick for the figures below."""
    with server(**SHORT) as watched:
        watch(watched, 1)  # warm
        print(f"\nno flood: {watch(watched, SECONDS)}")


@pytest.mark.row("E2", "E4", "E5", "E7")
@pytest.mark.parametrize(
    "kind",
    [
        "ping",
        "ping-deaf",
        "pong",
        "pong-ignored",
        "tiny",
        "fragments",
        "unfinished",
        "echo-deaf",
        "deaf",
    ],
)
def test_memory_stays_flat_under(kind: str) -> None:
    """Pings and their pongs, read or not; pongs; messages of no bytes; fragments without end;
    messages whose end never comes; echoes and a stream that are never read."""
    flat_under(kind)


@pytest.mark.row("F2")
def test_memory_stays_flat_under_bombs() -> None:
    """200 KB that inflate to 200 MiB, over and over."""
    flat_under("bomb", "--deflate")


def flat_under(kind: str, *options: str) -> None:
    with server(*options, **SHORT) as watched:
        watch(watched, 1)
        before, descriptors = watched.rss, watched.descriptors
        with flood(kind, watched):
            watch(watched, 1)  # buffers reach their size
            seen = watch(watched, SECONDS)
        print(f"\n{kind}: {seen}")
        assert len(seen.latencies) > 10
        assert seen.growth < FLAT
        assert max(seen.rss) - before < WHOLE
        # What the kernel holds of the flood is read to its end first.
        wait_until(lambda: watched.ask()["connections"] == 0, within=60)
        wait_until(lambda: watched.descriptors <= descriptors, within=10)
