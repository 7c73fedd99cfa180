"""The planted faults of `tests/mutants`: each still has its place in the code.

Lives here: that, in a moment. Must never live here: planting them and watching the suite turn red,
which takes minutes (``nox -s mutants``).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).parent / "mutants" / "run.py"


def test_every_planted_fault_fits_the_code() -> None:
    """Who changes a line that a patch names hears of it now and not in some nightly run."""
    done = subprocess.run(
        [sys.executable, str(RUNNER), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
