"""A peer behind a cut wire: nothing says that it is gone, only its silence does.

Lives here: what `half_open.py` must report, from a network namespace of its own. The clocks are
proved exactly on the mock clock elsewhere; here is the kernel, with a generous bound.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("half_open.py")
ISOLATED = ["unshare", "--user", "--map-root-user", "--net"]
INTERVAL = TIMEOUT = 2.0  # as the script has them
TICK = 0.5
EARLY = 0.3  # the last sign of life may be a little older than the cut
PATIENCE = 1.5  # for a busy machine


def told(scenario: str) -> dict[str, Any]:
    command = [*ISOLATED, sys.executable, str(SCRIPT), scenario]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    print(f"\n{scenario}: {report}")
    assert report["lost"]
    assert report["descriptors"] == 0
    assert report["tasks"] <= 1
    return report


@pytest.mark.row("E8")
@pytest.mark.parametrize("scenario", ["receiving", "busy"])
def test_a_silent_peer_is_lost_at_interval_plus_timeout(scenario: str) -> None:
    """Its receiver raises ConnectionLost, its waiter hears 1006; its descriptor is free."""
    report = told(scenario)
    assert INTERVAL + TIMEOUT - EARLY <= report["seconds"] <= INTERVAL + TIMEOUT + TICK + PATIENCE


@pytest.mark.row("E9")
def test_a_blocked_send_is_released_at_the_timeout() -> None:
    """The kernel's buffer and the outbox are full, nothing moves: `send` raises ConnectionLost."""
    report = told("sending")
    assert TIMEOUT - EARLY <= report["seconds"] <= TIMEOUT + TICK + PATIENCE
    assert "read nothing" in report["why"]
